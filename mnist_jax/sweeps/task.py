"""One sweep as a task: its points, what is compared, what it refuses, and which trials a client trains next."""

import contextlib
import dataclasses
import pathlib
import re
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from filelock import FileLock, Timeout

from mnist_jax.config import Config
from mnist_jax.errors import ConfigError, suggest_name
from mnist_jax.experiment import Experiment
from mnist_jax.sweeps import search as searching
from mnist_jax.sweeps.options import SweepOptions
from mnist_jax.sweeps.space import Dimension, Point, check_points, format_value, grid_points
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


def missing_seeds(task: Task, trials: Sequence[Trial]) -> dict[int, list[int]]:
    """Finds what no client has claimed yet.

    Args:
      task: the sweep.
      trials: of its study.

    Returns:
      From the number of a point to its missing seeds; points that are being trained, were stopped early or failed have
      none.
    """
    have: dict[int, set[int]] = {}
    for trial in trials:
        is_open = trial.state == "COMPLETE"
        have.setdefault(trial.point, set()).update(trial.attrs["seeds"] if is_open else task.seeds)
    missing = {}
    for point in range(task.num_points):
        if seeds := [seed for seed in task.seeds if seed not in have.get(point, ())]:
            missing[point] = seeds
    return missing


def _claim(task: Task, study: SharedStudy, start: int, points: Sequence[tuple[int, Point, Any]]) -> list[Trial]:
    """Claims points of the batch that begins with number `start`, with all seeds that they miss."""
    distributions = {d.name: searching.make_distribution(d) for d in task.dimensions}
    missing, claims = missing_seeds(task, study.trials()), []
    for number, point, system_attrs in points:
        if number in missing:
            params = {name: searching.to_param(value) for name, value in point.items()}
            attrs = {"seeds": missing[number], "batch": start}
            claims.append((number, params, distributions, attrs, system_attrs or {}))
    return study.claim(claims) if claims else []


def has_work(task: Task, trials: Sequence[Trial]) -> bool:
    """Whether anything is still to be trained, by this client or by others.

    Args:
      task: the sweep.
      trials: of its study.
    """
    return any(trial.state == "RUNNING" for trial in trials) or bool(missing_seeds(task, trials))


def next_batch(task: Task, study: SharedStudy, size: int) -> list[Trial]:
    """Claims the trials to train next.

    Args:
      task: the sweep.
      study: its study.
      size: points to claim at most.

    Returns:
      Those that this client holds already, or new ones; none where all are claimed.
    """
    trials, held = study.trials(), study.held()
    propose = lambda start, count, end: searching.propose(  # noqa: E731
        task.search, task.dimensions, study.study, task.config.seed, start, count, end
    )
    if held:
        start = held[0].attrs["batch"]
        batch = [trial for trial in trials if trial.attrs["batch"] == start]
        end = min(start + size, task.num_points)
        if task.learns and start + len({trial.point for trial in batch}) < end:  # killed while it claimed them
            proposed = propose(start, end - start, batch[0].number)
            points = [(start + i, *one) for i, one in enumerate(proposed)]
            held = [*held, *_claim(task, study, start, points)]
        return sorted((one for one in held if one.attrs["batch"] == start), key=lambda trial: trial.number)
    known = {trial.point: trial for trial in trials}
    missing = missing_seeds(task, trials)
    if begun := [point for point in missing if point in known][:size]:  # seeds that were added to a finished sweep
        again = [(point, searching.from_params(task.dimensions, known[point].params), None) for point in begun]
        return _claim(task, study, begun[0], again)
    start = max(known, default=-1) + 1
    count = min(size, task.num_points - start)
    if count <= 0:
        return []
    points = [(start + i, *one) for i, one in enumerate(propose(start, count, None))]
    return _claim(task, study, start, points)


def check_task(task: Task) -> None:
    """Refuses what can't work, before anything is written or computed."""
    config, options = task.config, task.options
    names = [dimension.name for dimension in task.dimensions]
    if "epochs" in names and options.pruner != "none":
        raise ConfigError(f"pruner={options.pruner}: can't compare trials of different epochs; leave one of them out")
    if config.epochs < 1:
        raise ConfigError("epochs=0: there is nothing to compare")
    if task.search == "grid" and task.num_points > _MAX_POINTS and not options.yes:
        raise ConfigError(
            f"grid: has {task.num_points:,} points, {task.num_points * options.seeds:,} runs; use yes=True if you "
            "mean it"
        )
    searching.check_search(task.search, task.dimensions, options.trials)
    points = [*grid_points(task.dimensions)] if task.search == "grid" else []
    check_points(task.experiment, task.dimensions, points)
    if config.seed + FRESH + options.test_seeds >= 2**31:
        raise ConfigError(f"seed={config.seed}: must leave room for fresh seeds; choose a smaller one")


def check_data(task: Task) -> None:
    splits = task.experiment.splits
    if "validation" not in splits:
        raise ConfigError("validation_fraction=0.0: a sweep compares on validation images; hold some out")
    count = len(splits["train"][1])
    for dimension in task.dimensions:
        largest = max(dimension.values, default=0) if dimension.values and dimension.is_numeric else dimension.high
        if dimension.name == "batch_size" and largest > count:
            raise ConfigError(f"batch_size={format_value(largest)}: there are only {count} training images")


def example_config(task: Task) -> Config:
    """The configuration of a trial in the middle of the space, whose program is measured."""
    values = {dimension.name: dimension.at(0.5) for dimension in task.dimensions}
    return dataclasses.replace(task.config, **values)
