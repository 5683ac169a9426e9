"""Reads digits from your own pictures with a finished run: one line per digit with its probability and the runner-up.

python -m mnist_jax predict --workdir=runs/mine FILE...
"""

import dataclasses
import json
import pathlib
import sys
from typing import TYPE_CHECKING

from mnist_jax import cli
from mnist_jax.commands._run import RunFlags
from mnist_jax.errors import ConfigError, DataError
from mnist_jax.fields import flag_field

if TYPE_CHECKING:
    from mnist_jax.loaded_run import Prediction


@dataclasses.dataclass(frozen=True)
class Flags(RunFlags):
    """The flags of the command."""

    json: bool = flag_field(False, "print a JSON object per line, for programs")
    show: bool = flag_field(False, "draw what the network saw into predictions.png, and on a screen if there is one")


def main(flags: Flags, positional: list[str]) -> None:
    """Runs the command.

    Args:
      flags: parsed flags.
      positional: PNG, JPEG or IDX files.

    Raises:
      ConfigError: no workdir or no file.
      DataError: a damaged run.
    """
    flags.check_workdir()
    if not positional:
        raise ConfigError("no FILE: name PNG, JPEG or IDX files after the flags")
    import numpy as np

    from mnist_jax import images, plots

    run = flags.load()
    pictures, failed = [], False
    for path in positional:
        try:
            pictures += images.read_pictures(path, run.picture_shape)
        except DataError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
    predictions = run.predict(*pictures)
    for prediction in predictions:
        print(_to_json(prediction) if flags.json else _to_line(prediction))
    if flags.show and predictions:
        shown = predictions[:64]
        titles = [f"{one.label} ({100 * one.probability:.1f} %)" for one in shown]
        figure = plots.image_grid(np.stack([one.image for one in shown])[..., None], titles, min(8, len(shown)))
        plots.save(figure, pathlib.Path("predictions.png"), show=True)
    if failed:
        sys.exit(1)


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
