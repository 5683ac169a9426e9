"""sweep: varies fields of an experiment, compares on validation images, and scores the winner on the test images."""

import contextlib
import dataclasses
import os
import pathlib
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from filelock import FileLock, Timeout

from mnist_jax.config import Config, config_from_dict
from mnist_jax.devices import choose_device
from mnist_jax.errors import ConfigError, suggest_name
from mnist_jax.experiment import Experiment
from mnist_jax.files import check_writable, expand_user, write_json
from mnist_jax.report import git_commit, versions
from mnist_jax.runner import fit_batch, run
from mnist_jax.sweeps import search as searching
from mnist_jax.sweeps.engines import Computer
from mnist_jax.sweeps.executor import DataShape
from mnist_jax.sweeps.live import Live
from mnist_jax.sweeps.options import SweepOptions
from mnist_jax.sweeps.space import (
    Dimension,
    Point,
    Spec,
    check_points,
    format_value,
    grid_points,
    parse_space,
    round_value,
)
from mnist_jax.sweeps.storage import open_study, storage_errors
from mnist_jax.sweeps.study import SharedStudy, Trial
from mnist_jax.sweeps.table import Row, advise, make_rows, write_csv
from mnist_jax.sweeps.trainer import BatchTrainer, Objective, RunStore
from mnist_jax.types import Record

SWEEP, BEST, TRIALS, WINNER = "sweep.json", "best.json", "trials.csv", "winner"
_MAX_POINTS = 1000  # of a grid, without yes=True
_FRESH = 10_000  # from the first seed to the first of those that score the winner
_POLL = 1.0  # seconds between looks at what other clients do


class SweepResult(NamedTuple):
    """What came out of a sweep."""

    rows: list[Row]  # best first
    best: Config  # of the winner
    test: Record | None  # summary of the winner's test scores, by metric; None where they were left alone
    advice: list[str]
    record: Record  # what sweep.json holds


@contextlib.contextmanager
def _client_name(workdir: pathlib.Path) -> Iterator[str]:
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


class _Sweep:
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
        from mnist_jax.sweeps.storage import OPTUNA_MAJOR

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
    sweep: _Sweep, study: SharedStudy, trials: Sequence[Trial], start: int, points: Sequence[tuple[int, Point, Any]]
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


def _next_batch(sweep: _Sweep, study: SharedStudy, size: int) -> list[Trial]:
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


def _train_all(sweep: _Sweep, study: SharedStudy, computer: Computer, store: RunStore) -> None:
    trials = study.trials()
    done = sum(len(t.attrs["seeds"]) for t in trials if t.state != "RUNNING")
    live = Live((sweep.num_points * len(sweep.seeds) - done) * sweep.config.epochs, sweep.options.quiet)

    def show() -> None:
        live.trials(sweep.rows(study.trials()), sweep.num_points)

    trainer = BatchTrainer(study, computer, store, sweep.objective, sweep.options.pruner, show, live.epochs)
    lanes, widest = len(computer.lanes), max(computer.plan.widths)
    size = searching.BATCH if sweep.learns else max(searching.BATCH, lanes * widest)
    with contextlib.closing(live):
        show()
        while True:
            if batch := _next_batch(sweep, study, size):
                trainer.train([sweep.configure(trial) for trial in batch])
            elif any(trial.state == "RUNNING" for trial in study.trials()):
                time.sleep(_POLL)  # others' trials, which they finish or leave to us
                show()
            else:
                return


def _score_winner(sweep: _Sweep, study: SharedStudy, best: Row) -> Record | None:
    """Trains the winner again with fresh seeds, and scores those on the test images: the only place that sees them."""
    count = sweep.options.test_seeds
    if not count:
        return None
    seed = sweep.config.seed + _FRESH

    def score() -> Record:
        folder = sweep.workdir / WINNER
        with FileLock(sweep.workdir / ".winner.lock"):
            if (folder / "result.json").exists():
                from mnist_jax.files import read_json

                record = read_json(folder / "result.json")
                same = {**dataclasses.asdict(best.config), "seed": seed, "num_seeds": count}
                if record["config"] == read_json_of(same):
                    return {"seeds": [seed, count], "summary": record["summary"]["test"]}
            result = run(
                sweep.experiment,
                folder,
                quiet=True,
                platform=sweep.options.platform,
                overwrite=(folder / "result.json").exists(),
                resume="auto",
                **{**best.point, "seed": seed, "num_seeds": count},
            )
        return {"seeds": [seed, count], "summary": result.record["summary"]["test"]}

    key = f"test of point {best.number} with {len(best.seeds)} and {count} seeds"
    return study.once(key, score)["summary"]


def read_json_of(value: Any) -> Any:
    """Returns a value as it comes back from JSON."""
    import json

    return json.loads(json.dumps(value))


def _check(sweep: _Sweep) -> None:
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
    if config.seed + _FRESH + options.test_seeds >= 2**31:
        raise ConfigError(f"seed={config.seed}: must leave room for fresh seeds; choose a smaller one")


def _check_data(sweep: _Sweep) -> None:
    splits = sweep.experiment.splits
    if "validation" not in splits:
        raise ConfigError("validation_fraction=0.0: a sweep compares on validation images; hold some out")
    count = len(splits["train"][1])
    for dimension in sweep.dimensions:
        largest = max(dimension.values, default=0) if dimension.values and dimension.is_numeric else dimension.high
        if dimension.name == "batch_size" and largest > count:
            raise ConfigError(f"batch_size={format_value(largest)}: there are only {count} training images")


def sweep(
    experiment: Experiment,
    workdir: str | os.PathLike[str],
    *,
    grid: Mapping[str, Spec] | Sequence[str] = (),
    space: Mapping[str, Spec] | Sequence[str] = (),
    options: SweepOptions | None = None,
    module: str = "",
    caches: bool = False,
    **fields: Any,
) -> SweepResult:
    """Varies fields of an experiment: a grid of values, or a search in a space; resumes what was not finished.

    The validation images decide. The winner alone is trained again, with fresh seeds, and scored on the test images.
    The same call finishes a sweep that was stopped; several of them, on one machine or many, share its trials. More
    seeds, or more trials of a search, extend a finished one.

    Writes into workdir: study.journal (unless another storage is given), runs-*.jsonl (each finished run), trials.csv,
    best.json, report.html with its pictures, winner/ (a run), and sweep.json last.

    Args:
      experiment: what to run; its configuration has the values of what does not vary.
      workdir: folder to write, made if missing; its name is the study's.
      grid: from fields to values: a sequence, or a text such as "1e-4:1e-1:log:8" or "64|128".
      space: from fields to ranges or choices, such as "1e-5:1:log" or "64|128".
      options: how; None for the defaults.
      module: that defines the experiment, for the commands in the table.
      caches: whether to keep compiled programs and measurements in the user's cache.
      **fields: of SweepOptions or of the experiment's configuration, such as seeds=5 or epochs=3.

    Returns:
      The result.

    Raises:
      ConfigError, ArgumentError, DataError: before anything is trained; or where all trials failed.
    """
    of_options = {name: fields.pop(name) for name in [*fields] if name in SweepOptions.__dataclass_fields__}
    options = dataclasses.replace(options or SweepOptions(), **of_options)
    if "num_seeds" in fields:
        raise ConfigError(f"num_seeds={fields['num_seeds']}: is of a single run; use seeds={fields['num_seeds']}")
    config = config_from_dict({**fields, "num_seeds": 1}, experiment.config)
    experiment = experiment.with_config(config)
    grid, space = grid or options.grid, space or options.space
    if bool(grid) == bool(space):
        raise ConfigError("grid, space: give one of them, such as grid=learning_rate=1e-4:1e-1:log:8")
    name = options.search or ("grid" if grid else "qmc")
    if (name == "grid") != bool(grid):
        raise ConfigError(
            f"search={name}: takes {'grid' if name == 'grid' else 'space'}, not {'space' if space else 'grid'}"
        )
    kind = "grid" if grid else "space"
    dimensions = parse_space(grid or space, experiment.config, kind)
    workdir = expand_user(workdir)
    task = _Sweep(experiment, workdir, options, dimensions, name, module)
    _check(task)
    try:
        check_writable(workdir)
    except OSError as error:
        raise ConfigError(f"workdir={workdir}: can't be written: {error.strerror}; choose another folder") from None
    device = choose_device(options.platform)
    task = _Sweep(fit_batch(experiment), workdir, options, dimensions, name, module)
    _check_data(task)
    started = time.perf_counter()
    workdir.mkdir(parents=True, exist_ok=True)
    storage = options.storage or str(workdir / "study.journal")
    with _client_name(workdir) as client, storage_errors(storage):
        study = SharedStudy(open_study(storage, workdir.resolve().name, task.objective.direction), client)
        study.define(read_json_of(task.definition()))
        with study, contextlib.closing(_make_computer(task, device, caches)) as computer:
            if _has_work(task, study):
                first = _example(task)
                names = [dimension.name for dimension in dimensions]
                computer.choose(options.engine, first, names, task.num_points, options.seeds)
                _train_all(task, study, computer, RunStore(workdir, client))
            engine = computer.describe()
        return _finish(task, study, {"engine": engine, "seconds": round(time.perf_counter() - started, 2)})


def _make_computer(task: _Sweep, device: jax.Device, caches: bool) -> Computer:
    dataset, splits = task.experiment.dataset, task.experiment.splits
    shape = DataShape(
        len(dataset.class_names),
        jax.ShapeDtypeStruct(task.experiment.image_shape, dataset.train_images.dtype),
    )
    chosen = {name: splits[name] for name in ("train", "validation")}  # and no test images
    return Computer(task.experiment, chosen, shape, jax.devices(device.platform), caches)


def _has_work(task: _Sweep, study: SharedStudy) -> bool:
    trials = study.trials()
    done = {(t.point, seed) for t in trials if t.state == "COMPLETE" for seed in t.attrs["seeds"]}
    ended = {t.point for t in trials if t.state in ("PRUNED", "FAIL")}
    return any(
        point not in ended and any((point, seed) not in done for seed in task.seeds) for point in range(task.num_points)
    )


def _example(task: _Sweep) -> Config:
    """The configuration of a trial in the middle of the space, whose program is measured."""
    values = {}
    for d in task.dimensions:
        middle = np.sqrt(d.low * d.high) if d.log else (d.low + d.high) / 2
        values[d.name] = d.values[len(d.values) // 2] if d.values else round_value(float(middle), d.is_int)
    return dataclasses.replace(task.config, **values)


def _finish(task: _Sweep, study: SharedStudy, how: Record) -> SweepResult:
    from mnist_jax.sweeps.report import write_report

    trials = study.trials()
    rows = task.rows([trial for trial in trials if trial.point < task.num_points])
    write_csv(task.workdir / TRIALS, rows, task.dimensions)
    if not rows or rows[0].state != "COMPLETE":
        reasons = [row.reason for row in rows if row.reason]
        raise ConfigError(
            f"no trial came to its end; the first reason: {reasons[0] if reasons else 'all were stopped'}"
        )
    best = rows[0]
    write_json(task.workdir / BEST, dataclasses.asdict(best.config))
    advice = advise(rows, task.dimensions, task.objective)
    test = _score_winner(task, study, best)
    total = sum(len(row.seeds) * row.config.epochs for row in rows)
    record = {
        **task.definition(),
        "seeds": task.seeds,
        "trials": len(rows),
        "winner": {
            "point": {name: format_value(value) for name, value in best.point.items()},
            "validation": {"mean": best.mean, "stderr": best.stderr, "n": len(best.scores), "scores": best.scores},
            "test": test,
            "command": best.command,
        },
        "epochs": {"trained": sum(row.epochs for row in rows), "of complete trials": total},
        "advice": advice,
        **how,
        "versions": versions() | {"optuna": _optuna_version()},
        "commit": git_commit(),
    }
    write_report(task.workdir, task.config, rows, task.dimensions, task.objective, record, study.study)
    write_json(task.workdir / SWEEP, record)
    return SweepResult(rows, best.config, test, advice, record)


def _optuna_version() -> str:
    import importlib.metadata

    return importlib.metadata.version("optuna")
