"""Reads pictures such as people take, and writes how many are right, unsure and wrong into results/NAME.json.

python -m benchmarks.predict NAME FOLDER RUN..., of the four IDX files of MNIST and of finished runs; then
python results/table.py writes the tables of docs/predict.md (NAME predict) and docs/accuracy.md (NAME predict_recipes).
"""

import pathlib
import sys
import zlib
from collections.abc import Iterable

import numpy as np

import mnist_jax as mj
from benchmarks.pictures import KINDS, NO_DIGITS
from mnist_jax.errors import DataError
from mnist_jax.files import write_json
from mnist_jax.loaded_run import LoadedRun, Prediction

RESULTS = pathlib.Path(__file__).parents[1] / "results"
PICTURES = 100  # of each kind


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
    return "".join(one.label for one in predictions), count_unsure(predictions) > 0


def count(kind: str, runs: list[LoadedRun], dataset: mj.Dataset) -> list[list[int]]:
    """For each run how many are right and sure, unsure, and wrong though sure."""
    counts = np.zeros((len(runs), 3), int)
    for number in range(PICTURES):
        picture, label = draw(kind, number, dataset.test_images, dataset.test_labels)
        for row, run in zip(counts, runs, strict=True):
            text, is_unsure = read(run, picture)
            row[1 if is_unsure else 0 if text == label and kind in KINDS else 2] += 1
    return counts.tolist()


def count_all(kinds: Iterable[str], runs: list[LoadedRun], dataset: mj.Dataset) -> dict[str, list[list[int]]]:
    """The counts of each kind, printed as they come."""
    counts = {}
    for kind in kinds:
        counts[kind] = count(kind, runs, dataset)
        print(kind, *counts[kind], flush=True)
    return counts


def count_unsure(predictions: list[Prediction]) -> int:
    return sum(bool(one.unsure) for one in predictions)


def main(name: str, folder: str, *workdirs: str) -> None:
    dataset, runs = mj.load_dataset(f"idx:{folder}"), [mj.load_run(workdir) for workdir in workdirs]
    record = {
        "runs": [run.config.name for run in runs],
        "pictures_per_kind": PICTURES,
        "digits": count_all(KINDS, runs, dataset),
        "no digits": count_all(NO_DIGITS, runs, dataset),
        "unsure_test_images": [
            sum(bool(one.unsure) for one in run.predict(dataset.test_images[..., 0])) for run in runs
        ],
    }
    write_json(RESULTS / f"{name}.json", record)


if __name__ == "__main__":
    main(*sys.argv[1:])
