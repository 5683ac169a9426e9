"""Where a run resumes: at the newest checkpoint that is undamaged and of this very run."""

import logging
import pathlib
from collections.abc import Collection
from typing import Any

import jax.numpy as jnp
import numpy as np

from mnist_jax.checkpoint import Checkpoints, read_metadata, restore_state
from mnist_jax.errors import ConfigError, DataError
from mnist_jax.experiment import Experiment
from mnist_jax.fields import flags_of
from mnist_jax.optimizers import uses_total_steps
from mnist_jax.processes import Processes
from mnist_jax.programs import Programs
from mnist_jax.report import versions
from mnist_jax.types import Mean, Metrics, Record, TrainState
from mnist_jax.workdir import checkpoint_folder, final_state_folder, start_over_advice

logger = logging.getLogger("mnist_jax")


def _why_epochs_matter(experiment: Experiment) -> str:
    """What makes another number of epochs change the numbers of those before; empty where nothing does."""
    if "optimizer" not in experiment.own_parts and uses_total_steps(experiment.config):
        return f"the {experiment.config.schedule} schedule depends on it"
    return "the experiment's own parts may depend on it" if experiment.make_parts else ""


def fingerprint(experiment: Experiment, deterministic: bool = False) -> dict[str, Record]:
    """Collects everything that decides the bits of a seed's run.

    Args:
      experiment: of the run.
      deterministic: whether kernels whose results vary were forbidden on a device that has some.

    Returns:
      Of JSON's types: config, the dataset's digest, parts of the experiment's own, and versions.
    """
    fields = experiment.config.deciding_bits()
    if not _why_epochs_matter(experiment):
        del fields["epochs"]
    if deterministic:
        fields["deterministic"] = True
    return {
        "config": {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()},
        "dataset": {"dataset": experiment.dataset.sha256},
        "parts": dict.fromkeys(experiment.own_parts, f"of {experiment.config.name}"),
        "versions": versions(),
    }


def _differences(old: Record, new: Record, ignored: Collection[str] = ()) -> dict[str, str]:
    def show(value: Any) -> str:
        return (value if isinstance(value, str) and value.isprintable() else repr(value))[:80]

    names = [name for name in {**old, **new} if old.get(name) != new.get(name) and name not in ignored]
    # What only one of them has (epochs, where the schedule depends on it) follows from another difference, if any.
    names = [name for name in names if name in old and name in new] or names
    old, new = ({name: record.get(name, "not set") for name in names} for record in (old, new))
    return {name: f"{show(name)}: was {show(old[name])}, is {show(new[name])}" for name in names}


def _check_same_run(
    workdir: pathlib.Path, path: pathlib.Path, metadata: Record, programs: Programs, expected: dict[str, Record]
) -> None:
    experiment = programs.experiment
    undecisive = flags_of(type(experiment.config)).keys() - expected["config"].keys()
    for section, ignored in (("config", undecisive), ("dataset", ()), ("parts", ())):
        if differences := _differences(metadata[section], expected[section], ignored):
            if "epochs" in differences:
                differences["epochs"] += f", and {_why_epochs_matter(experiment)}"
            more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
            what = "; ".join([*differences.values()][:3])
            raise ConfigError(f"{what}{more}, in {path}; {start_over_advice(workdir)}")
    if differences := _differences(metadata["versions"], expected["versions"]):
        logger.warning(
            "%s was written with other versions (%s): the last bits may differ", path, ", ".join(differences.values())
        )


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
        and all("loss" in one for one in scores)
        and all(type(number) is types.get(name, float) for one in scores for name, number in one.items())
    )


def _holds_numbers(part: np.ndarray, dtype: np.dtype[Any]) -> bool:
    is_floating = jnp.issubdtype(dtype, jnp.floating)
    if part.size and part.dtype.kind not in ("biuf" if is_floating else "biu"):
        return False
    with np.errstate(over="ignore"):
        as_saved = part.astype(dtype)
    return np.array_equal(np.isfinite(as_saved), np.isfinite(part)) if is_floating else np.array_equal(as_saved, part)


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
            and all(_holds_numbers(part, shape.dtype) for part, shape in pairs)
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return False


def _load(
    workdir: pathlib.Path, path: pathlib.Path, programs: Programs, expected: dict[str, Record], processes: Processes
) -> tuple[TrainState, Record] | None:
    """Reads a checkpoint; None with a warning where it is damaged, ConfigError where it is of another run."""

    def read() -> Record | None:
        try:
            metadata = read_metadata(path)
            if not all(isinstance(metadata.get(name), dict) for name in expected):
                raise DataError(f"{path}: no checkpoint of a run")
        except DataError as error:
            _skip(error)
            return None
        _check_same_run(workdir, path, metadata, programs, expected)
        return metadata

    if (metadata := processes.first(read)) is None:
        return None
    state = None
    try:
        state = restore_state(path, programs.state_shapes)
        if not _is_valid_metadata(metadata, int(state.step), programs):
            raise DataError(f"{path}: no checkpoint of a run")
    except DataError as error:
        _skip(error)
        state = None
    are_read = processes.gather(state is not None)
    return (state, metadata) if state is not None and all(are_read) else None


def _skip(error: DataError) -> None:
    logger.warning("%s: skipped", str(error).partition(";")[0])


def restore_latest(
    workdir: pathlib.Path, seed: int, programs: Programs, expected: dict[str, Record], processes: Processes
) -> tuple[TrainState, Record] | None:
    """Restores a seed's newest undamaged checkpoint; damaged ones are named and skipped.

    Args:
      workdir: the run's folder.
      seed: which seed.
      programs: of the experiment; the shapes that a state must have.
      expected: what the checkpoint's fingerprint must be.
      processes: that restore it together; process 0 decides which.

    Returns:
      The state and the checkpoint's metadata, with `is_final` for the end of training; None where there is none.

    Raises:
      ConfigError: the checkpoint is of another configuration or data set, or trained for more epochs.
    """

    def load(path: pathlib.Path) -> tuple[TrainState, Record] | None:
        return _load(workdir, path, programs, expected, processes)

    epochs = programs.experiment.config.epochs
    max_step = epochs * programs.steps_per_epoch
    folder, final_folder = checkpoint_folder(workdir, seed), final_state_folder(workdir, seed)
    final = load(final_folder) if processes.first(final_folder.exists) else None
    final_step = int(final[0].step) if final else -1
    steps = processes.first(Checkpoints(folder, max_to_keep=1).steps)
    steps = steps if final_step < max_step else []  # perhaps there are some of a longer run
    newest = next(filter(None, (load(folder / str(step)) for step in steps if step > final_step)), final)
    if newest is None:
        return None
    state, metadata = newest
    if state.step > max_step:
        trained = -(-int(state.step) // programs.steps_per_epoch)
        raise ConfigError(
            f"epochs={epochs}: seed {seed} is already trained for {trained} in {workdir}; ask for at least as many, "
            f"{start_over_advice(workdir)}"
        )
    return state, metadata | {"is_final": newest is final}
