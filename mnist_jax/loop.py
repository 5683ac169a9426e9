"""The training loop of one seed: parts of epochs, and after each of them whatever hooks are given."""

import dataclasses
import signal
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import numpy as np

from mnist_jax.config import Config
from mnist_jax.errors import DivergedError, InterruptedRunError
from mnist_jax.metrics import compute, sum_over_steps
from mnist_jax.processes import Processes
from mnist_jax.programs import Programs
from mnist_jax.resume import metrics_of
from mnist_jax.types import Metrics, Record, TrainState

CHUNK_SECONDS = 1.0  # how long a signal may have to wait


@dataclasses.dataclass(kw_only=True)
class SeedRun:
    """One seed's training as far as it has come."""

    seed: int
    state: TrainState
    step: int  # state.step, on the host
    per_step: Metrics  # of the current epoch, [S] arrays, zero at steps that are still to come
    records: list[Record]  # one for each epoch
    is_final: bool  # whether the state is saved as that at the end of training
    seconds: float = 0.0  # of training in the current epoch
    images: int = 0  # trained on in the current epoch
    epoch_seconds: list[float] = dataclasses.field(default_factory=list)
    signal: int = 0  # the signal that asks to stop, or 0

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        return len(self.per_step["loss"].total)

    @property
    def is_epoch_end(self) -> bool:
        """Whether the last chunk ended an epoch, whose record is the last one."""
        return self.step % self.steps_per_epoch == 0


Hook: TypeAlias = Callable[[SeedRun], None]  # called after each chunk of steps


def start_seed(seed: int, programs: Programs, restored: tuple[TrainState, Record] | None) -> SeedRun:
    """Starts a seed, or continues it from a checkpoint.

    Args:
      seed: which one.
      programs: the compiled programs.
      restored: a state and its metadata, or None.

    Returns:
      The run.
    """
    per_step = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), programs.metric_shapes)
    if restored is None:
        state = programs.init(jax.random.key(seed))
        return SeedRun(seed=seed, state=state, step=0, per_step=per_step, records=[], is_final=False)
    state, metadata = restored
    saved = metrics_of(metadata)
    for name, mean in per_step.items():
        for array, part in zip(mean, saved[name], strict=True):
            array[: len(part)] = part
    records, is_final = list(metadata["records"]), metadata["is_final"]
    return SeedRun(seed=seed, state=state, step=int(state.step), per_step=per_step, records=records, is_final=is_final)


def best_step(records: Sequence[Record]) -> int | None:
    """Finds the epoch with the lowest validation loss.

    Args:
      records: lines of metrics.jsonl.

    Returns:
      Its last step; None where nothing was validated.
    """
    scored = [record for record in records if "validation" in record and np.isfinite(record["validation"]["loss"])]
    return min(scored, key=lambda record: record["validation"]["loss"])["step"] if scored else None


def should_stop(config: Config, records: Sequence[Record]) -> bool:
    """Says whether a seed is trained: all epochs, or `patience` validations without a lower loss.

    flax.training.early_stopping keeps a state for this, which a restored run would have to restore too.

    Args:
      config: its `epochs` and `patience`.
      records: lines of metrics.jsonl.

    Returns:
      Whether to stop.
    """
    losses = [record["validation"]["loss"] for record in records if "validation" in record]
    losses = [loss if np.isfinite(loss) else np.inf for loss in losses]
    waited = len(losses) - 1 - losses.index(min(losses)) if losses else 0
    return len(records) >= config.epochs or bool(config.patience and waited >= config.patience)


def _check_finite(run: SeedRun, config: Config) -> None:
    size = run.steps_per_epoch
    epoch, losses = (run.step - 1) // size + 1, run.per_step["loss"].total
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        what = f"the loss became {losses[bad[0]]} in epoch {epoch}, at step {(epoch - 1) * size + bad[0] + 1}"
    elif run.is_epoch_end and not all(
        np.isfinite(part.data).all() for leaf in jax.tree.leaves(run.state.params) for part in leaf.addressable_shards
    ):
        what = f"a parameter is no longer finite after epoch {epoch}"
    else:
        return
    raise DivergedError(
        f"seed {run.seed}: {what}; try a smaller learning_rate than {config.learning_rate}, or on_nan=skip (the "
        "workdir's metrics.jsonl has the epochs before)"
    )


def _finish_epoch(run: SeedRun, programs: Programs, config: Config) -> None:
    record: Record = {"seed": run.seed, "epoch": run.step // run.steps_per_epoch, "step": run.step}
    record["train"] = compute(sum_over_steps(run.per_step))
    if config.on_nan == "skip":
        record["train"]["skipped"] = int((run.per_step["loss"].count == 0).sum())
    is_due = config.eval_every_epochs and record["epoch"] % config.eval_every_epochs == 0
    if is_due and "validation" in programs.splits:
        record["validation"] = dict(programs.score("validation", run.state))
    run.records.append(record)
    run.epoch_seconds.append(round(run.seconds, 4))


def train_seed(
    run: SeedRun,
    programs: Programs,
    config: Config,
    hooks: Sequence[Hook],
    checkpoint_every: int,
    stop_signal: Callable[[], int],
    processes: Processes,
) -> None:
    """Trains a seed to its end.

    Args:
      run: where to start; it is updated.
      programs: the compiled programs.
      config: epochs, patience and what to do about NaN.
      hooks: called after each chunk of steps, which ends at the latest at an epoch's end or a checkpoint.
      checkpoint_every: steps between checkpoints, at which a chunk ends; 0 for none inside an epoch.
      stop_signal: returns the number of a signal that asks to stop, or 0.
      processes: that train together; they agree on signals and on where a chunk ends.

    Raises:
      DivergedError: a loss or parameter is no longer finite.
      InterruptedRunError: a signal came, after the hooks have run.
    """
    size, chunk_steps = programs.steps_per_epoch, 1
    while not should_stop(config, run.records):
        if run.is_epoch_end:
            run.per_step = jax.tree.map(np.zeros_like, run.per_step)
            run.seconds, run.images = 0.0, 0
        start_step = run.step % size
        end_step = min(start_step + chunk_steps, size)
        if checkpoint_every:
            end_step = min(end_step, start_step + checkpoint_every - run.step % checkpoint_every)
        start = time.perf_counter()
        processes.advance()
        run.state, chunk_metrics = jax.block_until_ready(programs.train(run.state, start_step, end_step))
        elapsed = time.perf_counter() - start
        # At most ten times as many steps as before: the first ones may be quicker than the rest.
        chunk_steps = max(1, int((end_step - start_step) * min(10.0, CHUNK_SECONDS / max(elapsed, 1e-6))))
        run.step += end_step - start_step
        run.seconds += elapsed
        chunk_metrics = jax.device_get(chunk_metrics)
        run.per_step = jax.tree.map(np.add, run.per_step, chunk_metrics)
        run.images += int(chunk_metrics["loss"].count.sum())
        if config.on_nan == "stop":
            _check_finite(run, config)
        if run.is_epoch_end:
            _finish_epoch(run, programs, config)
        # Once, so that the checkpoint of this step is the one that the message names.
        agreed = processes.gather([stop_signal(), chunk_steps])
        run.signal, chunk_steps = max(number for number, _ in agreed), agreed[0][1]
        for hook in hooks:
            processes.advance()
            hook(run)
        if run.signal:
            error = InterruptedRunError(
                f"stopped by {signal.Signals(run.signal).name}, saved at step {run.step} of seed {run.seed}"
            )
            error.exit_status = 128 + run.signal
            raise error
