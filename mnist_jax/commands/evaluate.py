"""Scores a finished run on any data set: its metrics, precision and recall of each class, confusion matrix.

python -m mnist_jax evaluate --workdir=runs/mine --dataset=mnist5k
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mnist_jax import cli
from mnist_jax.commands._run import RunFlags
from mnist_jax.config import Config
from mnist_jax.errors import ConfigError, DataError
from mnist_jax.fields import flag_field, flags_of
from mnist_jax.files import expand_user, write_json

if TYPE_CHECKING:
    import numpy as np

    from mnist_jax.loaded_run import LoadedRun
    from mnist_jax.types import Dataset, Record

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Flags(RunFlags):
    """The flags of the command."""

    dataset: str = flag_field("", "data set to score; left out: the run's own")
    data_dir: str = flag_field("", flags_of(Config)["data_dir"].help)
    split: str = flag_field("test", "train, validation or test, as the run split them", choices=SPLITS)


def main(flags: Flags, positional: list[str]) -> None:
    """Runs the command.

    Args:
      flags: parsed flags.
      positional: must be empty.

    Raises:
      ConfigError: no workdir, or a split that the run does not have.
      DataError: a damaged run or data set, or one that does not fit the other.
    """
    cli.reject_positionals(positional)
    flags.check_workdir()
    import jax

    from mnist_jax import plots
    from mnist_jax.evaluation import evaluate
    from mnist_jax.metrics import compute

    run = flags.load()
    dataset, images, labels = _load_split(flags, run)
    eval_step = run.components.eval_step
    score = jax.jit(lambda state, images, labels: evaluate(eval_step, state, images, labels))
    scores = compute(jax.device_get(score(run.state, images, labels)))
    means = ", ".join(f"{name} {value:.4f}" for name, value in scores.items() if name != "count")
    print(f"{means}; {scores['count']} images of {dataset.name}")

    folder = expand_user(flags.workdir) / f"evaluate-{dataset.name.partition(':')[0]}-{flags.split}"
    folder.mkdir(parents=True, exist_ok=True)
    record = {"dataset": {"name": dataset.name, "sha256": dataset.sha256}, "split": flags.split, **scores}
    logits = run.logits(images)
    if logits.shape == (len(labels), len(run.class_names)):
        classes = labels if labels.ndim == 1 else labels.argmax(axis=-1)
        matrix, by_class = _measure_classes(run.class_names, classes, logits.argmax(axis=-1))
        _print_classes(run.class_names, matrix, by_class)
        plots.save(plots.confusion(matrix, run.class_names), folder / "confusion.png")
        plots.save(plots.mistakes(images, classes, logits, run.class_names), folder / "mistakes.png")
        record |= {"classes": by_class, "confusion": matrix.tolist()}
    write_json(folder / "evaluation.json", record)
    print(f"Results: {folder}")


def _load_split(flags: Flags, run: "LoadedRun") -> "tuple[Dataset, np.ndarray, np.ndarray]":
    from mnist_jax.batches import split_validation
    from mnist_jax.datasets import load_dataset

    name = flags.dataset
    dataset = load_dataset(name, flags.data_dir or run.config.data_dir) if name else run.experiment.dataset
    shape, found = tuple(run.record["dataset"]["image_shape"]), dataset.test_images.shape[1:]
    if found != shape:
        sizes = ["x".join(map(str, size)) for size in (found, shape)]
        raise DataError(f"dataset={dataset.name}: its images are {sizes[0]}, the run's are {sizes[1]}")
    if len(dataset.class_names) != len(run.class_names):
        raise DataError(
            f"dataset={dataset.name}: has {len(dataset.class_names)} classes, the run has {len(run.class_names)}"
        )
    images, labels = dataset.test_images, dataset.test_labels
    if flags.split != "test":
        rows = split_validation(len(dataset.train_images), run.config.validation_fraction)
        images, labels = (array[rows[SPLITS.index(flags.split)]] for array in dataset[:2])
    if not len(labels):
        raise ConfigError(f"split={flags.split}: the run held no images out")
    return dataset, images, labels


def _measure_classes(
    names: Sequence[str], labels: "np.ndarray", predictions: "np.ndarray"
) -> "tuple[np.ndarray, Record]":
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    every = range(len(names))
    matrix = confusion_matrix(labels, predictions, labels=every)
    nan = float("nan")  # where there is nothing to divide by; null in JSON
    precision, recall, _, count = precision_recall_fscore_support(labels, predictions, labels=every, zero_division=nan)
    stats = zip(precision.tolist(), recall.tolist(), count.tolist(), strict=True)
    keys = ("precision", "recall", "count")
    return matrix, {name: dict(zip(keys, one, strict=True)) for name, one in zip(names, stats, strict=True)}


def _print_classes(names: Sequence[str], matrix: "np.ndarray", by_class: "Record") -> None:
    width = max(9, *map(len, names))
    print(f"{'class':>{width}}  precision  recall   count")
    for name, row in by_class.items():
        precision, recall = ("-" if row[k] != row[k] else f"{row[k]:.4f}" for k in ("precision", "recall"))
        print(f"{name:>{width}}  {precision:>9}  {recall:>6}  {row['count']:>6}")
    print("confusion matrix (rows: labels, columns: predictions)")
    cell = len(str(matrix.max()))
    for name, row in zip(names, matrix, strict=True):
        print(f"{name:>{width}}  " + " ".join(f"{n:>{cell}}" for n in row))


if __name__ == "__main__":
    cli.run_cli(__doc__, Flags(), main)
