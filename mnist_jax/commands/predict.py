"""Reads digits from your own pictures with a finished run: one line per digit with its probability and the runner-up.

python -m mnist_jax predict --workdir=runs/mine FILE...

With --show or --output=FOLDER, draws the digits as the network saw them into predictions.png.
"""

import dataclasses
import json
import pathlib
import sys
from typing import TYPE_CHECKING

from mnist_jax import cli
from mnist_jax.commands._output import OutputFlags
from mnist_jax.commands._run import RunFlags
from mnist_jax.errors import ConfigError, DataError
from mnist_jax.fields import flag_field

if TYPE_CHECKING:
    from mnist_jax.loaded_run import Prediction

MAX_DRAWN = 64
MAX_NAME = 16  # characters over an image


@dataclasses.dataclass(frozen=True)
class Flags(OutputFlags, RunFlags):
    """The flags of the command."""

    json: bool = flag_field(False, "print a JSON object per line, for programs", group="output")
    show: bool = flag_field(False, "draw what the network saw, and show it if there is a screen", group="output")


def main(flags: Flags, positional: list[str]) -> None:
    """Runs the command.

    Args:
      flags: parsed flags.
      positional: PNG, JPEG or IDX files.

    Raises:
      ConfigError: no workdir, no file, or no folder to write.
      DataError: a damaged run.
    """
    flags.check_workdir()
    if not positional:
        raise ConfigError("no FILE: name PNG, JPEG or IDX files after the flags")
    is_drawn = bool(flags.show or flags.output)
    if is_drawn:
        flags.check_output("predictions.png")
    from mnist_jax import images

    run = flags.load()
    shape = run.picture_shape
    pictures, errors = [], []
    for path in positional:
        try:
            pictures += images.read_pictures(path, shape)
        except DataError as error:
            errors.append(f"error: {error}")
    predictions = run.predict(*pictures)
    folder = _draw(flags, predictions[:MAX_DRAWN]) if is_drawn and predictions else None
    for line in errors:
        print(line, file=sys.stderr)
    for prediction in predictions:
        print(_to_json(prediction) if flags.json else _to_line(prediction))
    if folder:
        drawn = f" (the first {MAX_DRAWN} are drawn)" if len(predictions) > MAX_DRAWN else ""
        print(f"Results: {folder}{drawn}", file=sys.stderr if flags.json else sys.stdout)
    if errors:
        sys.exit(1)


def _draw(flags: Flags, predictions: "list[Prediction]") -> pathlib.Path:
    import numpy as np

    from mnist_jax import plots

    titles = [f"{_shorten(one.name)}\n{one.label} ({100 * one.probability:.1f} %)" for one in predictions]
    images = np.stack([one.image for one in predictions])[..., None]
    folder = flags.make_output("predict")
    figure = plots.image_grid(images, titles, min(8, len(predictions)), cmap="gray")
    plots.save(figure, folder / "predictions.png", flags.show)
    return folder


def _shorten(name: str) -> str:
    name = "".join(char if char.isprintable() else "?" for char in pathlib.PurePath(name).name)
    name = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME // 2]}…{name[1 - MAX_NAME // 2 :]}"
    return name.replace("$", r"\$")  # which begins a formula


def _to_json(prediction: "Prediction") -> str:
    stats = {"file": prediction.name, "prediction": prediction.label, "probability": prediction.probability}
    stats |= {"runner_up": prediction.runner_up, "runner_up_probability": prediction.runner_up_probability}
    return json.dumps(stats | {"preprocessing": prediction.preprocessing_steps})


def _to_line(prediction: "Prediction") -> str:
    steps = ", ".join(prediction.preprocessing_steps) or "unchanged"
    return (
        f"{prediction.name}: {prediction.label}  {100 * prediction.probability:.1f} %  "
        f"(then {prediction.runner_up}, {100 * prediction.runner_up_probability:.1f} %)  [{steps}]"
    )


if __name__ == "__main__":
    cli.run_cli(__doc__, Flags(), main)
