"""One sweep as a task: its points, what is compared, what it refuses, and which trials a client trains next."""

import contextlib
import dataclasses
import pathlib
import re
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from mnist_jax.config import Config
from mnist_jax.errors import ConfigError, suggest_name
from mnist_jax.experiment import Experiment
from mnist_jax.sweeps import search as searching
from mnist_jax.sweeps.options import SweepOptions
from mnist_jax.sweeps.space import Dimension, Point, check_points, format_value, grid_points, round_value
from mnist_jax.sweeps.storage import OPTUNA_MAJOR
from mnist_jax.sweeps.study import SharedStudy, Trial
from mnist_jax.sweeps.table import Row, make_rows
from mnist_jax.sweeps.trainer import Objective
from mnist_jax.types import Record

FRESH = 10_000  # from the first seed to the first of those that score the winner
_MAX_POINTS = 1000  # of a grid, without yes=True


@contextlib.contextmanager
def client_name(workdir: pathlib.Path) -> Iterator[str]:
    """A name that a command gets again when it is started again, and that no other one has at the same time."""
    host = re.sub(r"[^\w-]+", "_", socket.gethostname())[:40] or "host"
    for slot in range(1000):
        name = f"{host}-{slot}"
        lock = FileLock(workdir / f".client-{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            yield name
        finally:
            lock.release()
        return
    raise ConfigError(f"workdir={workdir}: too many commands work there")


class Task:
    """What the steps of a sweep share."""

    def __init__(
        self,
        experiment: Experiment,
        workdir: pathlib.Path,
        options: SweepOptions,
        dimensions: Sequence[Dimension],
        search: str,
        module: str,
    ):
        self.experiment, self.workdir, self.options = experiment, workdir, options
        self.dimensions, self.search, self.module = dimensions, search, module
        self.config = experiment.config
        self.num_points = sum(1 for _ in grid_points(dimensions)) if search == "grid" else options.trials
        self.seeds = [self.config.seed + i for i in range(options.seeds)]
        self.objective = _objective(experiment, options.objective)
        self.learns = searching.is_adaptive(search) or options.pruner != "none"

    def definition(self) -> Record:
        """What must be the same for a command to join or resume the sweep."""
        fields = self.config.deciding_bits()
        for dimension in self.dimensions:
            fields.pop(dimension.name, None)
        return {
            "experiment": self.config.name,
            "config": {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()},
            "first seed": self.config.seed,
            "dataset": self.experiment.dataset.sha256,
            "parts": self.experiment.own_parts,
            "space": {d.name: d.describe() for d in self.dimensions},
            "search": self.search,
            "objective": self.objective.metric,
            "pruner": self.options.pruner,
            "optuna": OPTUNA_MAJOR,
        }

    def configure(self, trial: Trial) -> tuple[Trial, Point, Config]:
        """A trial with its point and configuration."""
        point = searching.from_params(self.dimensions, trial.params)
        return trial, point, dataclasses.replace(self.config, **point)

    def rows(self, trials: Sequence[Trial]) -> list[Row]:
        """The trials as rows, best first."""
        return make_rows(trials, self.dimensions, self.config, self.module, self.objective)


def _objective(experiment: Experiment, name: str) -> Objective:
    known = (
        ["loss", *experiment.parts["metrics"]]
        if "metrics" in experiment.parts
        else ["loss", *experiment.config.metrics]
    )
    name = name or ("accuracy" if "accuracy" in known else "loss")
    if name not in known and "metrics" not in experiment.own_parts:
        raise ConfigError(f"objective={name}: is no metric of this experiment; {suggest_name(name, known)}")
    return Objective(name, minimize=name == "loss")


def _claims(
    sweep: Task, study: SharedStudy, trials: Sequence[Trial], start: int, points: Sequence[tuple[int, Point, Any]]
) -> list[Trial]:
    """Claims points with all seeds that they lack."""
    distributions = {d.name: searching.make_distribution(d) for d in sweep.dimensions}
    claims = []
    for number, point, system_attrs in points:
        have = {seed for trial in trials if trial.point == number for seed in trial.attrs["seeds"]}
        if missing := [seed for seed in sweep.seeds if seed not in have]:
            params = {name: searching.to_param(value) for name, value in point.items()}
            attrs = {"seeds": missing, "batch": start}
            claims.append((number, params, distributions, attrs, system_attrs))
    return study.claim(claims) if claims else []


def next_batch(sweep: Task, study: SharedStudy, size: int) -> list[Trial]:
    """The trials to train next: those that this client holds already, or new ones."""
    trials, held = study.trials(), study.held()
    propose = lambda start, count, end: searching.propose(  # noqa: E731
        sweep.search, sweep.dimensions, study.study, sweep.config.seed, start, count, end
    )
    if held:
        start = held[0].attrs["batch"]
        batch = [trial for trial in trials if trial.attrs["batch"] == start]
        end = min(start + size, sweep.num_points)
        if sweep.learns and start + len({trial.point for trial in batch}) < end:  # killed while it claimed them
            proposed = propose(start, end - start, batch[0].number)
            points = [(start + i, *one) for i, one in enumerate(proposed)]
            held = [*held, *_claims(sweep, study, trials, start, points)]
        return sorted((one for one in held if one.attrs["batch"] == start), key=lambda trial: trial.number)
    known = {trial.point: trial for trial in trials}
    start = max(known, default=-1) + 1
    # Seeds that were added to a finished sweep; of trials that were stopped early or failed there is nothing to add.
    lacking: list[tuple[int, Point, Any]] = [
        (number, searching.from_params(sweep.dimensions, trial.params), {})
        for number, trial in known.items()
        if number < sweep.num_points
        and {one.state for one in trials if one.point == number} == {"COMPLETE"}
        and not {*sweep.seeds} <= {seed for one in trials if one.point == number for seed in one.attrs["seeds"]}
    ]
    if lacking:
        return _claims(sweep, study, trials, lacking[0][0], lacking[:size])
    count = min(size, sweep.num_points - start)
    if count <= 0:
        return []
    points = [(start + i, *one) for i, one in enumerate(propose(start, count, None))]
    return _claims(sweep, study, trials, start, points)


def check_task(sweep: Task) -> None:
    """Refuses what can't work, before anything is written or computed."""
    config, options = sweep.config, sweep.options
    names = [dimension.name for dimension in sweep.dimensions]
    if "epochs" in names and options.pruner != "none":
        raise ConfigError(f"pruner={options.pruner}: can't compare trials of different epochs; leave one of them out")
    if config.epochs < 1:
        raise ConfigError("epochs=0: there is nothing to compare")
    if sweep.search == "grid" and sweep.num_points > _MAX_POINTS and not options.yes:
        raise ConfigError(
            f"grid: has {sweep.num_points:,} points, {sweep.num_points * options.seeds:,} runs; use yes=True if you "
            "mean it"
        )
    searching.check_search(sweep.search, sweep.dimensions)
    points = [*grid_points(sweep.dimensions)] if sweep.search == "grid" else []
    check_points(sweep.experiment, sweep.dimensions, points)
    if config.seed + FRESH + options.test_seeds >= 2**31:
        raise ConfigError(f"seed={config.seed}: must leave room for fresh seeds; choose a smaller one")


def check_data(sweep: Task) -> None:
    splits = sweep.experiment.splits
    if "validation" not in splits:
        raise ConfigError("validation_fraction=0.0: a sweep compares on validation images; hold some out")
    count = len(splits["train"][1])
    for dimension in sweep.dimensions:
        largest = max(dimension.values, default=0) if dimension.values and dimension.is_numeric else dimension.high
        if dimension.name == "batch_size" and largest > count:
            raise ConfigError(f"batch_size={format_value(largest)}: there are only {count} training images")


def has_work(task: Task, study: SharedStudy) -> bool:
    trials = study.trials()
    done = {(t.point, seed) for t in trials if t.state == "COMPLETE" for seed in t.attrs["seeds"]}
    ended = {t.point for t in trials if t.state in ("PRUNED", "FAIL")}
    return any(
        point not in ended and any((point, seed) not in done for seed in task.seeds) for point in range(task.num_points)
    )


def example_config(task: Task) -> Config:
    """The configuration of a trial in the middle of the space, whose program is measured."""
    values = {}
    for d in task.dimensions:
        middle = np.sqrt(d.low * d.high) if d.log else (d.low + d.high) / 2
        values[d.name] = d.values[len(d.values) // 2] if d.values else round_value(float(middle), d.is_int)
    return dataclasses.replace(task.config, **values)
