"""One seed trained to its end: in pieces, with checkpoints, from where an earlier process was stopped."""

import contextlib
import pathlib
import signal
import sys
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from mnist_jax import metrics
from mnist_jax.checkpoint import Checkpoints, read_about, restore_state, save_state
from mnist_jax.config import Config
from mnist_jax.errors import ConfigError, DataError, DivergedError, StoppedError
from mnist_jax.files import append_json, write_json
from mnist_jax.report import Progress
from mnist_jax.types import Metrics, TrainState

PIECE_SECONDS = 1.0  # how long a signal may have to wait for


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    def shown(value: Any) -> str:
        return (value if isinstance(value, str) and value.isprintable() else repr(value))[:80]

    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    told = [f"{shown(name)} was {shown(before.get(name))}, is {shown(now.get(name))}" for name in names[:5]]
    return ", ".join(told) + (f", and {len(names) - 5} more" if len(names) > 5 else "")


def _is_of_a_run(about: dict[str, Any], step: int, size: int) -> bool:
    """Whether a checkpoint says what Trainer.run writes of the given step, in epochs of so many steps."""
    try:
        records, per_step = about["records"], Metrics(*map(np.asarray, about["per_step"]))
        validations = [record["validation"]["loss"] for record in records if "validation" in record]
        return (
            [record["step"] for record in records] == [size * (i + 1) for i in range(step // size)]
            and all(type(record["train"]) is dict and type(record["epoch"]) is int for record in records)
            and all(type(loss) is float for loss in validations)
            and all(part.shape == (step % size,) and np.can_cast(part.dtype, float) for part in per_step)
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return False


def _told_apart(
    path: pathlib.Path, like: TrainState, same: dict[str, Any], size: int
) -> tuple[TrainState, dict[str, Any]]:
    """Reads a checkpoint of this very run; DataError where it is damaged, ConfigError where it is of another run."""
    about = read_about(path)
    if not all(isinstance(about.get(name), dict) for name in same):
        raise DataError(f"{path}: no checkpoint of a run")
    for name, flag in (("config", "--config"), ("dataset", "--dataset")):
        if about[name] != same[name]:
            raise ConfigError(
                f"{flag}: {path} is of another run ({_differences(about[name], same[name])}); name another --workdir, "
                "or say --resume=never to begin anew"
            )
    if about["versions"] != same["versions"]:
        what = _differences(about["versions"], same["versions"])
        _note(f"{path} was written with other versions ({what}): the last bits may differ")
    state = restore_state(path, like)
    if not _is_of_a_run(about, int(state.step), size):
        raise DataError(f"{path}: no checkpoint of a run")
    return state, about


def _note(line: str) -> None:
    print(f"note: {line}", file=sys.stderr, flush=True)


def _is_trained(config: Config, records: list[dict[str, Any]]) -> bool:
    losses = [record["validation"]["loss"] for record in records if "validation" in record]
    waited = len(losses) - 1 - losses.index(min(losses)) if losses else 0
    return len(records) >= config.epochs or bool(config.patience and waited >= config.patience)


def _best(records: list[dict[str, Any]]) -> int | None:
    scored = [record for record in records if "validation" in record and np.isfinite(record["validation"]["loss"])]
    return min(scored, key=lambda record: record["validation"]["loss"])["step"] if scored else None


def _refuse_divergence(state: TrainState, per_step: Metrics, seed: int, step: int, config: Config) -> None:
    size = len(per_step.loss)
    epoch, bad = (step - 1) // size + 1, np.flatnonzero(~np.isfinite(per_step.loss))
    if len(bad):
        what = f"the loss became {per_step.loss[bad[0]]} in epoch {epoch}, at step {(epoch - 1) * size + bad[0] + 1}"
    elif step % size == 0 and not all(
        np.isfinite(leaf).all() for leaf in jax.device_get(jax.tree.leaves(state.params))
    ):
        what = f"a parameter is no longer finite after epoch {epoch}"
    else:
        return
    raise DivergedError(
        f"seed {seed}: {what}; try a smaller --learning_rate than {config.learning_rate}, or --on_nan=skip (the "
        "workdir's metrics.jsonl has the epochs before)"
    )


class Trainer(NamedTuple):
    """What trains one seed after another: compiled programs and where they write."""

    config: Config
    workdir: pathlib.Path
    train: tuple[jax.Array, jax.Array]
    epoch_fn: Any  # (state, images, labels, first, stop) -> (state, Metrics of [S])
    score: Any  # (split, state) -> dict
    splits: tuple[str, ...]
    steps_per_epoch: int
    same: dict[str, Any]  # what a checkpoint must agree on
    checkpoint_every: int
    keep: int
    quiet: bool

    def start(self, seed: int, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Finds the newest whole checkpoint of a seed: its state and what it says, or None."""
        folder = Checkpoints(self.workdir / "checkpoints" / f"seed-{seed}", self.keep)
        paths = [self.workdir / "state" / f"seed-{seed}", *(folder.folder / str(step) for step in folder.steps())]
        for path in paths:
            if path.exists():
                try:
                    state, about = _told_apart(path, like, self.same, self.steps_per_epoch)
                    is_final = path == paths[0]
                    if not self.quiet and not is_final:
                        print(f"seed {seed}: going on from step {int(state.step)}", file=sys.stderr)
                    return state, about | {"is_final": is_final}
                except DataError as error:
                    _note(f"{str(error).partition(';')[0]}: passed over")
        return None

    def run(self, seed: int, state: TrainState, about: dict[str, Any] | None, before: list, told: Any) -> tuple:
        """Trains one seed to its end: the state, its lines of metrics.jsonl, the seconds of each epoch."""
        config, size = self.config, self.steps_per_epoch
        records = list(about["records"]) if about else []
        per_step = Metrics(np.zeros(size, np.int32), np.zeros(size, np.float32), np.zeros(size, np.int32))
        for whole, part in zip(per_step, about["per_step"] if about else (), strict=False):
            whole[: len(part)] = part
        step, piece, seconds, images, epoch_seconds = int(state.step), 1, 0.0, 0, []
        checkpoints = Checkpoints(self.workdir / "checkpoints" / f"seed-{seed}", self.keep)

        def facts() -> dict[str, Any]:
            done = [array[: step % size].tolist() for array in per_step]
            return self.same | {"records": list(records), "per_step": done, "best_step": _best(records)}

        write_json(self.workdir / "metrics.jsonl", *before, *records)
        with contextlib.closing(checkpoints), Progress(config.epochs, self.quiet, done=len(records)) as progress:
            while not _is_trained(config, records):
                first = step % size
                stop = min(first + piece, size)
                if self.checkpoint_every:
                    stop = min(stop, first + self.checkpoint_every - step % self.checkpoint_every)
                tick = time.perf_counter()
                state, some = jax.block_until_ready(self.epoch_fn(state, *self.train, np.int32(first), np.int32(stop)))
                took = time.perf_counter() - tick
                piece = max(1, int((stop - first) * min(10.0, PIECE_SECONDS / max(took, 1e-6))))
                seconds, step = seconds + took, step + stop - first
                per_step = jax.tree.map(np.add, per_step, jax.device_get(some))
                images += int(some.count.sum())
                due = self.checkpoint_every and step % self.checkpoint_every == 0
                if config.on_nan == "stop":
                    _refuse_divergence(state, per_step, seed, step, config)
                if stop == size:
                    epoch = step // size
                    record = {"seed": seed, "epoch": epoch, "step": step}
                    record["train"] = metrics.compute(metrics.merge(per_step))
                    if config.on_nan == "skip":
                        record["train"]["skipped"] = int((per_step.count == 0).sum())
                    if "validation" in self.splits and config.eval_every and epoch % config.eval_every == 0:
                        record["validation"] = self.score("validation", state)
                    records.append(record)
                    append_json(self.workdir / "metrics.jsonl", record)
                    progress.epoch(record, images / seconds)
                    epoch_seconds.append(round(seconds, 4))
                    per_step, seconds, images = jax.tree.map(np.zeros_like, per_step), 0.0, 0
                    due = due or not self.checkpoint_every or _best(records) == step
                if due or told():
                    checkpoints.save(state, facts())
                if told():
                    checkpoints.wait()
                    raise _stopped(told(), seed, step, self.workdir)
            checkpoints.wait()
        if dropped := sum(record["train"].get("skipped", 0) for record in records):
            _note(f"seed {seed}: {dropped} of {step} updates were dropped (--on_nan=skip)")
        if not (about and about["is_final"]):
            save_state(self.workdir / "state" / f"seed-{seed}", state, facts())
        return state, records, epoch_seconds


def _stopped(number: int, seed: int, step: int, workdir: pathlib.Path) -> StoppedError:
    error = StoppedError(
        f"stopped by {signal.Signals(number).name}, saved at step {step} of seed {seed}; to go on, give the same "
        f"command with --workdir={workdir}"
    )
    error.exit_status = 128 + number
    return error
