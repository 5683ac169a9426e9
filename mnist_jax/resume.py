"""Where a run resumes: at the newest checkpoint that is undamaged and of this very run."""

import logging
import pathlib
from typing import Any

import jax
import numpy as np

from mnist_jax.checkpoint import Checkpoints, read_metadata, restore_state
from mnist_jax.errors import ConfigError, DataError
from mnist_jax.experiment import Experiment
from mnist_jax.programs import Programs
from mnist_jax.report import versions
from mnist_jax.types import Mean, Metrics, Record, TrainState
from mnist_jax.workdir import checkpoint_folder, final_state_folder

logger = logging.getLogger("mnist_jax")


def fingerprint(experiment: Experiment) -> dict[str, Record]:
    """Collects everything that decides the bits of a seed's run.

    Args:
      experiment: of the run.

    Returns:
      Of JSON's types: config, the dataset's digest, parts of the experiment's own, and versions.
    """
    fields = experiment.config.deciding_bits().items()
    return {
        "config": {name: list(value) if isinstance(value, tuple) else value for name, value in fields},
        "dataset": {"dataset": experiment.dataset.sha256},
        "parts": dict.fromkeys(experiment.own_parts, f"of {experiment.config.name}"),
        "versions": versions(),
    }


def _format_diff(old: Record, new: Record) -> list[str]:
    def show(value: Any) -> str:
        return (value if isinstance(value, str) and value.isprintable() else repr(value))[:80]

    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return [f"{show(name)}: was {show(old.get(name))}, is {show(new.get(name))}" for name in names]


def metrics_of(metadata: Record) -> Metrics:
    """Reads the metrics of an unfinished epoch.

    Args:
      metadata: of a checkpoint.

    Returns:
      Metrics of one entry per step.
    """
    return {name: Mean(*map(np.asarray, pair)) for name, pair in metadata["per_step"].items()}


def _is_valid_record(record: Record, epoch: int, steps_per_epoch: int) -> bool:
    scores = [record[split] for split in ("train", "validation") if split in record]
    types = {"count": int, "skipped": int}
    return (
        (record["epoch"], record["step"], type(record["seed"])) == (epoch, epoch * steps_per_epoch, int)
        and "train" in record
        and all(type(one["loss"]) is float for one in scores)
        and all(type(number) is types.get(name, float) for one in scores for name, number in one.items())
    )


def _is_valid_metadata(metadata: Record, step: int, programs: Programs) -> bool:
    """Whether the metadata is what the training loop writes at this step."""
    size, records = programs.steps_per_epoch, metadata.get("records")
    try:
        per_step, shapes = metrics_of(metadata), programs.metric_shapes
        pairs = [pair for name in shapes for pair in zip(per_step[name], shapes[name], strict=True)]
        return (
            type(records) is list
            and len(records) == step // size
            and all(_is_valid_record(record, epoch, size) for epoch, record in enumerate(records, start=1))
            and per_step.keys() == shapes.keys()
            and all(part.shape == (step % size,) for part, _ in pairs)
            and all(part.dtype.kind == shape.dtype.kind or not part.size for part, shape in pairs)
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return False


def _load_matching_checkpoint(
    path: pathlib.Path, programs: Programs, expected: dict[str, Record]
) -> tuple[TrainState, Record]:
    """Reads a checkpoint; DataError where it is damaged, ConfigError where it is of another run."""
    metadata = read_metadata(path)
    if not all(isinstance(metadata.get(name), dict) for name in expected):
        raise DataError(f"{path}: no checkpoint of a run")
    for name in ("config", "dataset", "parts"):
        if differences := _format_diff(metadata[name], expected[name]):
            more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
            raise ConfigError(
                f"{differences[0]}{more}, in {path}; choose another workdir, or use resume=never to start from scratch"
            )
    if differences := _format_diff(metadata["versions"], expected["versions"]):
        logger.warning(
            "%s was written with other versions (%s): the last bits may differ", path, ", ".join(differences)
        )
    state = restore_state(path, programs.state_shapes)
    if not _is_valid_metadata(metadata, int(state.step), programs):
        raise DataError(f"{path}: no checkpoint of a run")
    return state, metadata


def restore_latest(
    workdir: pathlib.Path, seed: int, programs: Programs, expected: dict[str, Record]
) -> tuple[TrainState, Record] | None:
    """Restores a seed's newest undamaged checkpoint; damaged ones are named and skipped.

    Args:
      workdir: the run's folder.
      seed: which seed.
      programs: the shapes that a state must have.
      expected: what the checkpoint's fingerprint must be.

    Returns:
      The state and the checkpoint's metadata, with `is_final` for the end of training; None where there is none.

    Raises:
      ConfigError: the checkpoint is of another configuration or data set.
    """
    folder = Checkpoints(checkpoint_folder(workdir, seed), max_to_keep=1)
    final = final_state_folder(workdir, seed)
    for path in (final, *(folder.folder / str(step) for step in folder.steps())):
        if path.exists():
            try:
                state, metadata = _load_matching_checkpoint(path, programs, expected)
            except DataError as error:
                logger.warning("%s: skipped", str(error).partition(";")[0])
                continue
            if path != final:
                logger.info("seed %d: resuming from step %d", seed, int(jax.device_get(state.step)))
            return state, metadata | {"is_final": path == final}
    return None
