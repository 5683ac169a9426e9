"""sweep: varies fields of an experiment, compares on validation images, and scores the winner on the test images."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from filelock import FileLock

from mnist_jax.config import Config, config_from_dict
from mnist_jax.devices import choose_device
from mnist_jax.errors import ConfigError
from mnist_jax.experiment import Experiment
from mnist_jax.files import check_writable, expand_user, read_json, write_json
from mnist_jax.report import git_commit, versions
from mnist_jax.runner import fit_batch, run
from mnist_jax.sweeps import search as searching
from mnist_jax.sweeps.chunk import DataShape
from mnist_jax.sweeps.engines import Computer
from mnist_jax.sweeps.live import Live
from mnist_jax.sweeps.options import SweepOptions
from mnist_jax.sweeps.space import (
    Spec,
    format_value,
    parse_space,
)
from mnist_jax.sweeps.storage import open_study, storage_errors
from mnist_jax.sweeps.study import SharedStudy, check_same
from mnist_jax.sweeps.table import Row, advise, write_csv
from mnist_jax.sweeps.task import FRESH, Task, check_data, check_task, client_name, example_config, has_work, next_batch
from mnist_jax.sweeps.trainer import BatchTrainer, RunStore
from mnist_jax.types import Record

DEFINITION, SWEEP, BEST, TRIALS, WINNER = "definition.json", "sweep.json", "best.json", "trials.csv", "winner"
_POLL = 1.0  # seconds between looks at what other clients do


class SweepResult(NamedTuple):
    """What came out of a sweep."""

    rows: list[Row]  # best first
    best: Config  # of the winner
    test: Record | None  # summary of the winner's test scores, by metric; None where they were left alone
    advice: list[str]
    record: Record  # what sweep.json holds


def _train_all(task: Task, study: SharedStudy, computer: Computer, store: RunStore) -> None:
    trials = study.trials()
    done = sum(len(t.attrs["seeds"]) for t in trials if t.state != "RUNNING")
    live = Live((task.num_points * len(task.seeds) - done) * task.config.epochs, task.options.quiet)

    def show() -> None:
        live.trials(task.rows(study.trials()), task.num_points)

    trainer = BatchTrainer(study, computer, store, task.objective, task.options.pruner, show, live.epochs)
    lanes, widest = len(computer.lanes), max(computer.plan.widths)
    size = searching.BATCH if task.learns else max(searching.BATCH, lanes * widest)
    with contextlib.closing(live):
        show()
        while True:
            if batch := next_batch(task, study, size):
                trainer.train([task.configure(trial) for trial in batch])
            elif any(trial.state == "RUNNING" for trial in study.trials()):
                time.sleep(_POLL)  # others' trials, which they finish or leave to us
                show()
            else:
                return


def _score_winner(task: Task, study: SharedStudy, best: Row) -> Record | None:
    """Trains the winner again with fresh seeds, and scores those on the test images: the only place that sees them."""
    count = task.options.test_seeds
    if not count:
        return None
    seed = task.config.seed + FRESH

    def score() -> Record:
        folder = task.workdir / WINNER
        with FileLock(task.workdir / ".winner.lock"):
            if (folder / "result.json").exists():
                record = read_json(folder / "result.json")
                same = {**dataclasses.asdict(best.config), "seed": seed, "num_seeds": count}
                if record["config"] == read_json_of(same):
                    return {"seeds": [seed, count], "summary": record["summary"]["test"]}
            result = run(
                task.experiment,
                folder,
                quiet=True,
                platform=task.options.platform,
                overwrite=(folder / "result.json").exists(),
                resume="auto",
                **{**best.point, "seed": seed, "num_seeds": count},
            )
        return {"seeds": [seed, count], "summary": result.record["summary"]["test"]}

    key = f"test of point {best.number} with {len(best.seeds)} and {count} seeds"
    return study.once(key, score)["summary"]


def read_json_of(value: Any) -> Any:
    """Returns a value as it comes back from JSON."""
    return json.loads(json.dumps(value))


def _make_task(
    experiment: Experiment,
    workdir: pathlib.Path,
    options: SweepOptions,
    grid: Mapping[str, Spec] | Sequence[str],
    space: Mapping[str, Spec] | Sequence[str],
    module: str,
) -> Task:
    if bool(grid) == bool(space):
        raise ConfigError("grid, space: give one of them, such as grid=learning_rate=1e-4:1e-1:log:8")
    name = options.search or ("grid" if grid else "qmc")
    if (name == "grid") != bool(grid):
        raise ConfigError(
            f"search={name}: takes {'grid' if name == 'grid' else 'space'}, not {'space' if space else 'grid'}"
        )
    dimensions = parse_space(grid or space, experiment.config, "grid" if grid else "space")
    return Task(experiment, workdir, options, dimensions, name, module)


def _check_folder(workdir: pathlib.Path) -> None:
    try:
        check_writable(workdir)
    except OSError as error:
        raise ConfigError(f"workdir={workdir}: can't be written: {error.strerror}; choose another folder") from None
    if (workdir / "config.json").exists():
        raise ConfigError(f"workdir={workdir}: holds a run; choose another folder")


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

    Writes into workdir: definition.json, study.journal (unless another storage is given), runs-*.jsonl (each finished
    run), trials.csv, best.json, report.html with its pictures, winner/ (a run), and sweep.json last.

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
    workdir = expand_user(workdir)
    task = _make_task(experiment, workdir, options, grid or options.grid, space or options.space, module)
    check_task(task)
    _check_folder(workdir)
    device = choose_device(options.platform)
    task = Task(fit_batch(experiment), workdir, options, task.dimensions, task.search, module)
    check_data(task)
    started = time.perf_counter()
    workdir.mkdir(parents=True, exist_ok=True)
    definition = read_json_of(task.definition())
    if (workdir / DEFINITION).exists():  # whatever the storage, since the files in it are of one sweep
        check_same(read_json(workdir / DEFINITION), definition, f"in {workdir}")
    storage = options.storage or str(workdir / "study.journal")
    with client_name(workdir) as client, storage_errors(storage):
        study = SharedStudy(open_study(storage, workdir.resolve().name, task.objective.direction), client)
        study.define(definition)
        write_json(workdir / DEFINITION, definition)
        with study, contextlib.closing(_make_computer(task, device, caches)) as computer:
            if has_work(task, study.trials()):
                first = example_config(task)
                names = [dimension.name for dimension in task.dimensions]
                computer.choose(options.engine, first, names, task.num_points, options.seeds)
                _train_all(task, study, computer, RunStore(workdir, client))
                how = {"engine": computer.describe(), "seconds": round(time.perf_counter() - started, 2)}
            else:  # it was finished before
                how = {"engine": "none", "seconds": 0.0}
                with contextlib.suppress(OSError, ValueError, KeyError):
                    how = {name: read_json(workdir / SWEEP)[name] for name in how}
        return _finish(task, study, how)


def _make_computer(task: Task, device: jax.Device, caches: bool) -> Computer:
    dataset, splits = task.experiment.dataset, task.experiment.splits
    shape = DataShape(
        len(dataset.class_names),
        jax.ShapeDtypeStruct(task.experiment.image_shape, dataset.train_images.dtype),
    )
    chosen = {name: splits[name] for name in ("train", "validation")}  # and no test images
    return Computer(task.experiment, chosen, shape, jax.devices(device.platform), caches)


def _finish(task: Task, study: SharedStudy, how: Record) -> SweepResult:
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
    advice = advise(rows, task.dimensions, task.objective, len(task.seeds))
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
        "versions": versions() | {"optuna": importlib.metadata.version("optuna")},
        "commit": git_commit(),
    }
    write_report(task.workdir, task.config, rows, task.dimensions, task.objective, record, study.study)
    write_json(task.workdir / SWEEP, record)
    return SweepResult(rows, best.config, test, advice, record)
