"""Reads digits from your own pictures with a finished run: one line per digit with its probability and the runner-up.

python -m mnist_jax predict --workdir=runs/mine FILE...

FILE is a PNG, JPEG, WebP, BMP, TIFF, GIF or IDX file, a folder or pattern of pictures, or - for standard input. Several
digits in a picture are read from left to right. With --show or --output=FOLDER, predictions.png shows what the network
saw, and stages.png how the picture became that.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mnist_jax import cli
from mnist_jax.commands._output import OutputFlags
from mnist_jax.commands._run import RunFlags
from mnist_jax.errors import ConfigError, DataError
from mnist_jax.fields import flag_field

if TYPE_CHECKING:
    from mnist_jax.loaded_run import LoadedRun, Prediction
    from mnist_jax.pictures.digits import Digit

MAX_DRAWN = 64
MAX_STAGES = 12
MAX_NAME = 16  # characters over an image
AT_A_TIME = 64  # files that are in memory


@dataclasses.dataclass(frozen=True)
class Flags(OutputFlags, RunFlags):
    """The flags of the command."""

    json: bool = flag_field(False, "print a JSON object per line, for programs", group="output")
    show: bool = flag_field(False, "draw what the network saw, and show it if there is a screen", group="output")
    single: bool = flag_field(False, "read only the largest digit of each picture", group="data")


def main(flags: Flags, positional: list[str]) -> None:
    """Runs the command.

    Args:
      flags: parsed flags.
      positional: files, folders or patterns.

    Raises:
      ConfigError: no workdir, no file, or no folder to write.
      DataError: a damaged run.
    """
    flags.check_workdir()
    if not positional:
        raise ConfigError("no FILE: name pictures, folders of pictures or IDX files after the flags")
    is_drawn = bool(flags.show or flags.output)
    if is_drawn:
        flags.check_output("predictions.png", "stages.png")
    from mnist_jax.pictures.reading import expand_paths

    run = flags.load()
    outcomes = _predict_all(run, expand_paths(positional), flags.single)
    first: list[Sequence[Prediction] | DataError] = []
    drawn: list[Prediction] = []
    if is_drawn:  # files are written before anything is printed
        for outcome in outcomes:
            first.append(outcome)
            drawn += [] if isinstance(outcome, DataError) else outcome
            if len(drawn) >= MAX_DRAWN:
                break
    folder = _draw(flags, drawn[:MAX_DRAWN]) if drawn else None
    count = failures = 0
    for outcome in itertools.chain(first, outcomes):
        if isinstance(outcome, DataError):
            failures += 1
            print(f"error: {outcome}", file=sys.stderr)
        else:
            count += len(outcome)
            print(*(_to_json if flags.json else _to_lines)(outcome), sep="\n")
    if folder:
        note = f" (the first {MAX_DRAWN} are drawn)" if count > MAX_DRAWN else ""
        print(f"Results: {folder}{note}", file=sys.stderr if flags.json else sys.stdout)
    if failures:
        sys.exit(1)


def _read(path: str, shape: tuple[int, int], single: bool) -> "list[Digit] | DataError":
    from mnist_jax.pictures.reading import read_pictures

    try:
        return read_pictures(path, shape, single)
    except DataError as error:
        return error


def _predict_all(run: "LoadedRun", paths: Sequence[str], single: bool) -> "Iterator[Sequence[Prediction] | DataError]":
    """For each file its predictions or what is wrong with it; a few files at a time, so that memory stays flat."""
    read = functools.partial(_read, shape=run.picture_shape, single=single)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), AT_A_TIME):
            outcomes = list(pool.map(read, paths[start : start + AT_A_TIME]))
            digits = [digit for outcome in outcomes if not isinstance(outcome, DataError) for digit in outcome]
            predictions = iter(run.predict(*digits))
            for outcome in outcomes:
                if isinstance(outcome, DataError):
                    yield outcome
                else:
                    yield list(itertools.islice(predictions, len(outcome)))


def _draw(flags: Flags, predictions: "list[Prediction]") -> pathlib.Path:
    import numpy as np

    from mnist_jax import figures, plots
    from mnist_jax.pictures.plots import stages

    titles = [f"{_shorten(one.name)}\n{one.label} ({100 * one.probability:.1f} %)" for one in predictions]
    titles = [title + "\nunsure" * bool(one.unsure) for title, one in zip(titles, predictions, strict=True)]
    images = np.stack([one.digit.image for one in predictions])[..., None]
    folder = flags.make_output("predict")
    staged = [number for number, one in enumerate(predictions) if one.digit.stages][:MAX_STAGES]
    if staged:
        figure = stages([predictions[number].digit for number in staged], [titles[number] for number in staged])
        figures.save(figure, folder / "stages.png")
    figure = plots.image_grid(images, titles, min(8, len(predictions)), cmap="gray")
    figures.save(figure, folder / "predictions.png", flags.show)
    return folder


def _shorten(name: str) -> str:
    name = "".join(char if char.isprintable() else "?" for char in pathlib.PurePath(name).name)
    name = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME // 2]}…{name[1 - MAX_NAME // 2 :]}"
    return name.replace("$", r"\$")  # which begins a formula


def _read_page(predictions: "Sequence[Prediction]") -> str:
    """All digits of a picture that has several; empty for one, and for the images of an IDX file."""
    is_page = len({one.digit.box for one in predictions}) > 1
    return "".join(one.label for one in predictions) if is_page else ""


def _to_json(predictions: "Sequence[Prediction]") -> list[str]:
    """A line for each digit."""
    text = _read_page(predictions)
    lines = []
    for one in predictions:
        stats = {"file": one.name, "prediction": one.label, "probability": one.probability}
        stats |= {"runner_up": one.runner_up, "runner_up_probability": one.runner_up_probability}
        stats |= {"unsure": one.unsure or None, "box": one.digit.box, "text": text or one.label}
        lines.append(json.dumps(stats | {"preprocessing": one.digit.steps}))
    return lines


def _to_lines(predictions: "Sequence[Prediction]") -> list[str]:
    """A line for each digit, and where a picture has several, one for all."""
    text = _read_page(predictions)
    lines = []
    for one in predictions:
        place = " ({},{} to {},{})".format(*one.digit.box) if text else ""
        doubt = f"  unsure: {one.unsure}" if one.unsure else ""
        lines.append(
            f"{one.name}{place}: {one.label}  {100 * one.probability:.1f} %  (then {one.runner_up}, "
            f"{100 * one.runner_up_probability:.1f} %){doubt}  [{', '.join(one.digit.steps) or 'unchanged'}]"
        )
    return [*lines, f"{predictions[0].name}: {text}"] if text else lines


if __name__ == "__main__":
    cli.run_cli(__doc__, Flags(), main)
