"""Reads pictures such as people take, and writes the table of docs/predict.md: right, unsure, wrong.

python -m benchmarks.predict FOLDER RUN RUN, of the four IDX files of MNIST and of two finished runs.
"""

import pathlib
import sys
import zlib
from collections.abc import Callable

import numpy as np

import mnist_jax as mj
from benchmarks.pictures import KINDS, NO_DIGITS
from mnist_jax.errors import DataError
from mnist_jax.loaded_run import LoadedRun

DOCUMENT = pathlib.Path(__file__).parents[1] / "docs" / "predict.md"
PICTURES = 100  # of each kind
DIGIT_COLUMNS = "right | unsure | wrong"


def draw(kind: str, number: int, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, str]:
    """One picture of a kind, and the digit on it."""
    rng = np.random.default_rng([number, zlib.crc32(kind.encode())])
    rows = rng.integers(0, len(images), 3)
    return (KINDS | NO_DIGITS)[kind](rng, images[rows, ..., 0]), str(labels[rows[0]])


def read(run: LoadedRun, picture: np.ndarray) -> tuple[str, bool]:
    """What is read, and whether anything about it is unsure; nothing found is sure of nothing."""
    try:
        predictions = run.predict(picture)
    except DataError:
        return "", True
    return "".join(one.label for one in predictions), any(one.unsure for one in predictions)


def count(kind: str, runs: list[LoadedRun], dataset: mj.Dataset) -> list[tuple[int, int, int]]:
    """For each run how many are right and sure, unsure, and wrong though sure."""
    counts = np.zeros((len(runs), 3), int)
    for number in range(PICTURES):
        picture, label = draw(kind, number, dataset.test_images, dataset.test_labels)
        for row, run in zip(counts, runs, strict=True):
            text, is_unsure = read(run, picture)
            row[1 if is_unsure else 0 if text == label and kind in KINDS else 2] += 1
    return [tuple(row) for row in counts.tolist()]


def write_table(name: str, lines: list[str]) -> None:
    """Replaces what stands between <!-- NAME --> and <!-- end of NAME --> in the document."""
    text = DOCUMENT.read_text()
    before, start, rest = text.partition(f"<!-- {name} -->\n")
    after = rest[rest.index(f"<!-- end of {name} -->") :]
    DOCUMENT.write_text(before + start + "\n".join(lines) + "\n" + after)


def make_table(kinds: dict[str, Callable], runs: list[LoadedRun], dataset: mj.Dataset, cells: Callable) -> list[str]:
    lines = []
    total = np.zeros((len(runs), 3), int)
    for kind in kinds:
        counts = count(kind, runs, dataset)
        total += np.array(counts)
        lines.append(f"| {kind} | " + " | ".join(cells(*row) for row in counts) + " |")
        print(lines[-1], flush=True)
    share = [tuple(f"{100 * n / PICTURES / len(kinds):.1f} %" for n in row) for row in total.tolist()]
    return [*lines, "| all | " + " | ".join(cells(*row) for row in share) + " |"]


def main(folder: str, *workdirs: str) -> None:
    dataset, runs = mj.load_dataset(f"idx:{folder}"), [mj.load_run(workdir) for workdir in workdirs]
    names = [run.config.name for run in runs]
    head = "| picture | " + " | ".join(f"{name}: right | unsure | wrong" for name in names) + " |"
    rule = "|---" * (1 + 3 * len(runs)) + "|"
    rows = make_table(KINDS, runs, dataset, lambda *row: " | ".join(map(str, row)))
    write_table("digits", [head, rule, *rows])
    head = "| picture | " + " | ".join(f"{name}: unsure or none found | sure" for name in names) + " |"
    rule = "|---" * (1 + 2 * len(runs)) + "|"
    rows = make_table(NO_DIGITS, runs, dataset, lambda right, unsure, wrong: f"{unsure} | {wrong}")
    write_table("no digits", [head, rule, *rows])
    for name, run in zip(names, runs, strict=True):
        predictions = run.predict(dataset.test_images[..., 0])
        print(f"{name}: unsure about {sum(bool(one.unsure) for one in predictions) / 100:.2f} % of the test images")


if __name__ == "__main__":
    main(*sys.argv[1:])
