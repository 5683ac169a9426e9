"""Scores a finished run on any data set: its metrics, precision and recall of each class, confusion matrix.

python -m mnist_jax evaluate --workdir=runs/mine --dataset=mnist5k

Writes evaluation.json and, for a classifier, confusion.png, mistakes.png and calibration.png. With --ensemble, all
seeds of the run, or of several (--workdir=RUN,RUN), are one network whose probabilities are the mean of theirs.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mnist_jax import cli
from mnist_jax.commands._output import OutputFlags
from mnist_jax.commands._run import RunFlags
from mnist_jax.config import Config
from mnist_jax.errors import ConfigError, DataError
from mnist_jax.fields import flag_field, flags_of
from mnist_jax.files import write_json

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from mnist_jax.loaded_run import LoadedRun
    from mnist_jax.types import Dataset, Record

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Flags(OutputFlags, RunFlags):
    """The flags of the command."""

    dataset: str = flag_field("", "data set to score; left out: the run's own", group="data")
    data_dir: str = flag_field("", flags_of(Config)["data_dir"].help, group="data")
    split: str = flag_field("test", "train, validation or test, as the run split them", group="data", choices=SPLITS)


def main(flags: Flags, positional: list[str]) -> None:
    """Runs the command.

    Args:
      flags: parsed flags.
      positional: must be empty.

    Raises:
      ConfigError: no workdir, a split that the run does not have, or no folder to write.
      DataError: a damaged run or data set, or one that does not fit the other.
    """
    cli.reject_positionals(positional)
    flags.check_workdir()
    flags.check_output("evaluation.json", "confusion.png", "mistakes.png", "calibration.png")
    import jax

    from mnist_jax import figures, plots
    from mnist_jax.evaluation import evaluate
    from mnist_jax.metrics import compute

    run = flags.load()
    dataset = _load_dataset(flags, run)
    images, labels = _choose_split(run, dataset, flags.split)
    eval_step = run.components.eval_step
    score = jax.jit(lambda state, images, labels: evaluate(eval_step, state, images, labels))
    scores = compute(jax.device_get(score(run.state, images, labels)))
    record = {
        "run": {"workdir": flags.workdir, "experiment": run.config.name, "seeds": list(run.seeds)},
        "dataset": {"name": dataset.name, "sha256": dataset.sha256},
        "split": flags.split,
        **scores,
    }
    means = ", ".join(f"{name} {value:.4f}" for name, value in scores.items() if name != "count")
    lines = [f"{means}; {scores['count']} images of {dataset.name}"]
    logits = run.logits(images)
    folder = flags.make_output(f"evaluate-{run.config.name}-{dataset.name.partition(':')[0]}-{flags.split}")
    if logits.shape == (len(labels), len(run.class_names)):
        classes = _to_classes(labels)
        matrix, by_class = _measure_classes(run.class_names, classes, logits.argmax(axis=-1))
        lines += _format_classes(run.class_names, matrix, by_class)
        figures.save(plots.confusion(matrix, run.class_names), folder / "confusion.png")
        figures.save(plots.mistakes(images, classes, logits, run.class_names), folder / "mistakes.png")
        calibration, line, diagram = _calibrate(run, dataset, flags.split, logits, classes)
        figures.save(diagram, folder / "calibration.png")
        lines.append(line)
        record |= {"classes": by_class, "confusion": matrix.tolist(), "calibration": calibration}
        record["mistakes"] = _list_mistakes(run.class_names, classes, logits)
    write_json(folder / "evaluation.json", record)
    print(*lines, f"Results: {folder}", sep="\n")


def _load_own_dataset(run: "LoadedRun", data_dir: str) -> "Dataset":
    """The data set of the run, by the name it had, or else where it lies from the run's folder."""
    from mnist_jax.datasets import load_dataset

    own, name = run.record["dataset"], run.config.dataset
    load = functools.partial(load_dataset, image_size=run.config.image_size, resplit=run.config.resplit)
    places: list[Callable[[], Dataset]] = [functools.partial(load, name, data_dir or run.config.data_dir)]
    if "dataset" in run.experiment.own_parts:
        name, places = own["name"], [lambda: run.experiment.dataset]
    elif own.get("from_workdir") and not data_dir:
        moved = str((run.workdir / own["from_workdir"]).resolve())
        prefix, colon, _ = name.partition(":")
        place = (f"{prefix}:{moved}", "") if colon and prefix != "tfds" else (name, moved)
        places.append(functools.partial(load, *place))
    problems = []
    for load_from in places:
        try:
            dataset = load_from()
        except DataError as error:
            if len(places) == 1:
                raise
            problems.append(str(error).partition(";")[0])
            continue
        if dataset.sha256 == own["sha256"]:
            return dataset
        problems.append(f"{dataset.name} holds other data now, of SHA-256 {dataset.sha256[:12]}")
    raise DataError(
        f"dataset={name}: the run's own data, of SHA-256 {own['sha256'][:12]}, are not there: {'; '.join(problems)}; "
        "name the data to use with dataset=NAME or data_dir=FOLDER"
    )


def _load_dataset(flags: Flags, run: "LoadedRun") -> "Dataset":
    """The data set to score, which must fit the run."""
    from mnist_jax.datasets import RESIZED, load_dataset

    name = flags.dataset
    data_dir = flags.data_dir or run.config.data_dir
    image_size = run.config.image_size if name.startswith(RESIZED) else 0
    dataset = load_dataset(name, data_dir, image_size) if name else _load_own_dataset(run, flags.data_dir)
    shape, found = tuple(run.record["dataset"]["image_shape"]), dataset.test_images.shape[1:]
    if found != shape:
        sizes = ["x".join(map(str, size)) for size in (found, shape)]
        raise DataError(f"dataset={dataset.name}: its images are {sizes[0]}, the run's are {sizes[1]}")
    if len(dataset.class_names) != len(run.class_names):
        raise DataError(
            f"dataset={dataset.name}: has {len(dataset.class_names)} classes, the run has {len(run.class_names)}"
        )
    if dataset.test_images.dtype != run.image_dtype:
        raise DataError(
            f"dataset={dataset.name}: its images are {dataset.test_images.dtype}, the run's are {run.image_dtype}"
        )
    return dataset


def _choose_split(run: "LoadedRun", dataset: "Dataset", split: str) -> "tuple[np.ndarray, np.ndarray]":
    """Images and labels of a split, as the run split its data."""
    from mnist_jax.batches import split_dataset

    images, labels = dataset.test_images, dataset.test_labels
    if split != "test":
        rows = split_dataset(dataset, run.config.validation_fraction, run.config.validation_rows)
        images, labels = (array[rows[SPLITS.index(split)]] for array in dataset[:2])
    if not len(labels):
        raise ConfigError(f"split={split}: the run held no images out")
    return images, labels


def _to_classes(labels: "np.ndarray") -> "np.ndarray":
    """[N] int: the labels; of soft ones the most probable."""
    return labels if labels.ndim == 1 else labels.argmax(axis=-1)


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


def _list_mistakes(names: Sequence[str], labels: "np.ndarray", logits: "np.ndarray") -> "list[Record]":
    """Each image that was not classified as labeled: its row in the split, and what the network made of it."""
    import numpy as np
    from scipy.special import softmax

    predictions, probabilities = logits.argmax(axis=-1), softmax(logits, axis=-1)
    return [
        {
            "row": row,
            "label": names[labels[row]],
            "prediction": names[predictions[row]],
            "probability": float(probabilities[row, predictions[row]]),
        }
        for row in np.flatnonzero(predictions != labels).tolist()
    ]


def _calibrate(
    run: "LoadedRun", dataset: "Dataset", split: str, logits: "np.ndarray", labels: "np.ndarray"
) -> "tuple[Record, str, Figure]":
    """Measures calibration, also at the temperature that fits the validation images, where there are any."""
    from mnist_jax.calibration import expected_calibration_error, fit_temperature, reliability_diagram

    record: Record = {"error": expected_calibration_error(logits, labels)}
    line = f"expected calibration error {record['error']:.4f}"
    curves = {"as trained": logits}
    if run.config.validation_fraction and split == "test":
        images, held_out = _choose_split(run, dataset, "validation")
        temperature = fit_temperature(run.logits(images), _to_classes(held_out))
        curves[f"temperature {temperature:.3g}"] = logits / temperature
        record |= {"temperature": temperature, "error_scaled": expected_calibration_error(logits / temperature, labels)}
        line += f"; {record['error_scaled']:.4f} at a temperature of {temperature:.3g}, fitted to the validation images"
    return record, line, reliability_diagram(curves, labels)


def _format_classes(names: Sequence[str], matrix: "np.ndarray", by_class: "Record") -> list[str]:
    width = max(9, *map(len, names))
    lines = [f"{'class':>{width}}  precision  recall   count"]
    for name, row in by_class.items():
        precision, recall = ("-" if row[k] != row[k] else f"{row[k]:.4f}" for k in ("precision", "recall"))
        lines.append(f"{name:>{width}}  {precision:>9}  {recall:>6}  {row['count']:>6}")
    lines.append("confusion matrix (rows: labels, columns: predictions)")
    cell = len(str(matrix.max()))
    for name, row in zip(names, matrix, strict=True):
        lines.append(f"{name:>{width}}  " + " ".join(f"{n:>{cell}}" for n in row))
    return lines


if __name__ == "__main__":
    cli.run_cli(__doc__, Flags(), main)
