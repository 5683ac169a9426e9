"""Trains a batch of trials to their end: in chunks that the engine likes, from rung to rung, failures recorded."""

import dataclasses
import json
import math
import pathlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from mnist_jax.config import Config
from mnist_jax.files import append_json
from mnist_jax.loop import should_stop
from mnist_jax.sweeps import search
from mnist_jax.sweeps.chunk import Chunk, Outcome
from mnist_jax.sweeps.engines import Computer, split_hparams
from mnist_jax.sweeps.space import Point
from mnist_jax.sweeps.study import SharedStudy, Trial
from mnist_jax.sweeps.workers import train_chunks
from mnist_jax.types import PyTree, Record


@dataclasses.dataclass
class SeedRun:
    """One seed of a trial as far as it has come."""

    trial: Trial
    point: Point
    config: Config
    seed: int
    records: list[Record] = dataclasses.field(default_factory=list)
    state: PyTree = None
    seconds: float = 0.0
    error: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to train."""
        return bool(self.error) or should_stop(self.config, self.records)


class Objective(NamedTuple):
    """What is compared between trials: a metric of the validation images."""

    metric: str
    minimize: bool

    @property
    def direction(self) -> str:
        """In Optuna's words."""
        return "minimize" if self.minimize else "maximize"

    def of(self, record: Record) -> float | None:
        """Returns the value in a record of an epoch; None where nothing was validated."""
        return record.get("validation", {}).get(self.metric)


class RunStore:
    """The finished runs of a sweep on disk, a line each, so that none is trained twice; each client has a file."""

    def __init__(self, workdir: pathlib.Path, client: str):
        self.path = workdir / f"runs-{client}.jsonl"
        self._known: dict[str, tuple[list[Record], float]] = {}
        for path in sorted(workdir.glob("runs-*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    record = json.loads(line)
                    self._known[record["key"]] = record["records"], record["seconds"]
                except (ValueError, KeyError, TypeError):  # the last line of a process that was killed
                    continue
        if self.path.exists() and not self.path.read_bytes().endswith(b"\n") and self.path.stat().st_size:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n")

    @staticmethod
    def _key(run: SeedRun) -> str:
        values = {name: search.to_param(value) for name, value in run.point.items()}
        return json.dumps([values, run.seed, run.config.epochs])

    def load(self, run: SeedRun) -> bool:
        """Fills in a run that is finished; says whether it is."""
        found = self._known.get(self._key(run))
        if found:
            run.records, run.seconds = list(found[0]), found[1]
        return found is not None

    def save(self, run: SeedRun) -> None:
        """Appends a finished run."""
        append_json(self.path, {"key": self._key(run), "seconds": round(run.seconds, 4), "records": run.records})


def standard_error(scores: Sequence[float]) -> float | None:
    """Returns the standard error of a mean; None for a single score.

    >>> standard_error([1.0, 3.0])
    1.0
    """
    return statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


class BatchTrainer:
    """Trains the trials that a client holds, and tells the study."""

    def __init__(
        self,
        study: SharedStudy,
        computer: Computer,
        store: RunStore,
        objective: Objective,
        pruner: str,
        on_change: Callable[[], None],
        on_epochs: Callable[[int], None],
    ):
        """Takes what it works with.

        Args:
          study: where trials are recorded.
          computer: what trains.
          store: finished runs.
          objective: what is compared.
          pruner: one of options.PRUNERS.
          on_change: called when a trial was recorded.
          on_epochs: called with the number of epochs, summed over runs, that were just trained or will not be.
        """
        self.study, self.computer, self.store, self.objective = study, computer, store, objective
        self.pruner, self.on_change, self.on_epochs = pruner, on_change, on_epochs
        self._canonical: dict[object, Config] = {}

    def train(self, trials: Sequence[tuple[Trial, Point, Config]]) -> None:
        """Trains trials to their end, and tells each.

        Args:
          trials: with their points and configurations.
        """
        runs = {
            trial.number: [SeedRun(trial, point, config, seed) for seed in trial.attrs["seeds"]]
            for trial, point, config in trials
        }
        for run in (run for one in runs.values() for run in one):
            if self.store.load(run):
                self.on_epochs(run.config.epochs)
        epochs = max((config.epochs for _, _, config in trials), default=0)
        remembered: dict[int, Record] = {number: {} for number in runs}
        for end_epoch in [*search.rungs(self.pruner, epochs), epochs]:
            self._train_until(runs, end_epoch, keep_states=end_epoch < epochs)
            for number in [number for number, one in runs.items() if all(run.is_finished for run in one)]:
                if end_epoch == epochs or any(run.error for run in runs[number]):
                    self._tell(runs.pop(number))
            if end_epoch < epochs and runs:
                self._prune(runs, end_epoch, epochs, remembered)

    def _train_until(self, runs: dict[int, list[SeedRun]], end_epoch: int, keep_states: bool) -> None:
        chunks, members = [], []
        for chunk, of_chunk in self._chunks([run for one in runs.values() for run in one], end_epoch, keep_states):
            chunks.append(chunk)
            members.append(of_chunk)
        done = [len(of_chunk[0].records) for of_chunk in members]

        def on_epoch(number: int, epoch: int) -> None:
            self.on_epochs((epoch - done[number]) * len(set(map(id, members[number]))))
            done[number] = epoch

        def on_outcomes(number: int, outcomes: list[Outcome]) -> None:
            for run, outcome in zip(members[number], outcomes, strict=True):
                run.records, run.state, run.error = outcome.records, outcome.state, outcome.error
                run.seconds += outcome.seconds
            for run in {id(run): run for run in members[number]}.values():
                if run.is_finished and not run.error:
                    self.store.save(run)
            on_epoch(number, end_epoch)
            if not keep_states:
                for trial in {run.trial.number for run in members[number]}:
                    if trial in runs and all(run.is_finished for run in runs[trial]):
                        self._tell(runs.pop(trial))

        train_chunks(self.computer.lanes, chunks, on_outcomes, on_epoch)

    def _chunks(
        self, runs: Sequence[SeedRun], end_epoch: int, keep_states: bool
    ) -> Iterator[tuple[Chunk, list[SeedRun]]]:
        """Gathers runs into full chunks of one program and seed; a run may fill the empty place of another one."""
        plan = self.computer.plan
        groups: dict[Any, dict[int, list[SeedRun]]] = {}
        names_of: dict[Any, list[str]] = {}
        for run in runs:
            if run.is_finished or len(run.records) >= min(end_epoch, run.config.epochs):
                continue
            names = split_hparams(run.config, [*run.point], plan.name)
            static = tuple(sorted((n, search.to_param(v)) for n, v in run.point.items() if n not in names))
            key = static, tuple(names), len(run.records)
            groups.setdefault(key, {}).setdefault(run.seed, []).append(run)
            names_of[key] = names
            self._canonical.setdefault(key[:2], run.config)
        for key, by_seed in groups.items():
            config, names = self._canonical[key[:2]], names_of[key]
            num_runs, seeds = max(map(len, by_seed.values())), [*by_seed]
            is_even = len({len(one) for one in by_seed.values()}) == 1
            together = is_even and self.computer.devices[0].platform != "cpu" and plan.name == "vmap"
            divided = plan.divide(num_runs, len(seeds)) if names else [(len(seeds), 1)]
            widths = [width for count, width in divided for _ in range(count)]
            parts = [(seeds, widths[0])] if together else [([seed], w) for seed, w in zip(seeds, widths, strict=True)]
            for part, width in parts:
                size = max(len(by_seed[seed]) for seed in part)
                for start in range(0, size, width):
                    members = []
                    for seed in part:
                        one = by_seed[seed][start : start + width]
                        few = 1 if size == 1 else width
                        members += one + [one[-1]] * (few - len(one))
                    first = members[: len(members) // len(part)]
                    yield (
                        Chunk(
                            config=config,
                            seeds=tuple(part),
                            hparams={name: tuple(getattr(run.config, name) for run in first) for name in names},
                            end_epoch=min(end_epoch, config.epochs),
                            states=[run.state for run in members] if members[0].records else (),
                            records=[run.records for run in members] if members[0].records else (),
                            keep_states=keep_states,
                        ),
                        members,
                    )

    def _value(self, runs: Sequence[SeedRun], epoch: int) -> float | None:
        records = [[one for one in run.records if one["epoch"] <= epoch] for run in runs]
        return _mean([self.objective.of(one[-1]) if one else None for one in records])

    def _prune(self, runs: dict[int, list[SeedRun]], epoch: int, epochs: int, remembered: dict[int, Record]) -> None:
        batch: dict[int, dict[int, float]] = {}
        for number, one in runs.items():
            values = {rung: self._value(one, rung) for rung in search.rungs(self.pruner, epochs) if rung <= epoch}
            if scores := {rung: value for rung, value in values.items() if value is not None}:
                batch[number] = scores
        for number in [number for number in remembered if number not in runs]:
            del remembered[number]
        stopped = search.prune(self.pruner, epochs, self.study.study, batch, remembered)
        for number, scores in batch.items():
            self.study.report(runs[number][0].trial, epoch, scores[max(scores)], remembered[number])
        for number in stopped:
            if not all(run.is_finished for run in runs[number]):
                self.on_epochs(sum(run.config.epochs - len(run.records) for run in runs[number]))
                self._tell(runs.pop(number), is_pruned=True)

    def _tell(self, runs: Sequence[SeedRun], is_pruned: bool = False) -> None:
        scores = [self.objective.of(run.records[-1]) if run.records else None for run in runs]
        errors = [f"seed {run.seed}: {run.error}" for run in runs if run.error]
        value = _mean(scores)
        if not errors and (value is None or not math.isfinite(value)):
            errors = [f"validation {self.objective.metric} is {value}"]
        epochs = max((len(run.records) for run in runs), default=0)
        history = [
            _mean([self.objective.of(run.records[i]) if i < len(run.records) else None for run in runs])
            for i in range(epochs)
        ]
        attrs = {
            "scores": scores,
            "history": history,
            "seconds": round(sum(run.seconds for run in runs), 3),
            "epochs": [len(run.records) for run in runs],
            "value": value,
        }
        if errors:
            attrs["reason"] = "; ".join(errors)[:500]
        state = "FAIL" if errors else "PRUNED" if is_pruned else "COMPLETE"
        self.study.tell(runs[0].trial, state, value, attrs)
        self.on_change()
