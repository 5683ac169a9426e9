"""A complete run with its side effects: files, progress, checkpoints and the result."""

import contextlib
import dataclasses
import logging
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mnist_jax.checkpoint import Checkpoints
from mnist_jax.config import Config, config_from_dict
from mnist_jax.devices import choose_devices, oom_as_config_error
from mnist_jax.errors import ConfigError, InterruptedRunError
from mnist_jax.experiment import Experiment
from mnist_jax.files import expand_user, write_json
from mnist_jax.hooks import append_metrics, report_progress, save_checkpoints, save_final_state
from mnist_jax.loop import Hook, SeedRun, should_stop, start_seed, train_seed
from mnist_jax.options import RunOptions
from mnist_jax.plots import save_run_plots
from mnist_jax.process import defer_signals
from mnist_jax.processes import Processes, join
from mnist_jax.programs import Programs, compile_programs
from mnist_jax.report import Progress, git_commit, summarize_runs, versions
from mnist_jax.resume import fingerprint, restore_latest
from mnist_jax.sharding import Placement, make_placement
from mnist_jax.types import Array, PyTree, Record, TrainState
from mnist_jax.workdir import (
    CONFIG,
    METRICS,
    RESULT,
    acquire_workdir,
    check_workdir,
    checkpoint_folder,
    final_state_folder,
    find_seeds,
)

logger = logging.getLogger("mnist_jax")


class RunResult(NamedTuple):
    """What came out of a run."""

    summary: dict[str, dict[str, dict[str, float | None]]]  # [split][metric]: mean, std, min, max, n over the seeds
    record: Record  # what result.json holds
    states: list[TrainState]  # each seed's final state


def run(
    experiment: Experiment,
    workdir: str | os.PathLike[str],
    options: RunOptions | None = None,
    *,
    hooks: Sequence[Hook] = (),
    **fields: Any,
) -> RunResult:
    """Trains and scores a network for each seed, and writes the result; resumes what an earlier call did not finish.

    More seeds extend a finished run, and so do more epochs, unless the schedule depends on their number.

    Writes into workdir: config.json, metrics.jsonl (a line per epoch), checkpoints/seed-N/STEP and state/seed-N (see
    mnist_jax.checkpoint), plots, and result.json last.

    Args:
      experiment: what to run.
      workdir: folder to write, made if missing.
      options: how; None for the defaults.
      hooks: functions of one's own, called with the SeedRun after each chunk of steps.
      **fields: of RunOptions or of the experiment's configuration, such as quiet=True or num_seeds=5.

    Returns:
      The result.

    Raises:
      ConfigError, ArgumentError, DataError: before anything is written; or when the folder can't be written any more.
      DivergedError: a loss or parameter became NaN or infinite; config.json and the epochs before it stay.
      InterruptedRunError: SIGTERM or SIGINT, after a checkpoint of the step it came in.
    """
    started = time.perf_counter()
    of_options = {name: fields.pop(name) for name in [*fields] if name in RunOptions.__dataclass_fields__}
    options = dataclasses.replace(options or RunOptions(), **of_options)
    experiment = experiment.with_config(config_from_dict(fields, experiment.config))
    config = experiment.config
    processes = join(options)
    with processes.taking_part():
        seeds = range(config.seed, config.seed + config.num_seeds)
        job = _Job(expand_user(workdir), seeds, config.epochs, options, processes, hooks)
        return _run(experiment, job, "batch_size" not in fields, started)


class _Job(NamedTuple):
    """What the steps of a run share."""

    workdir: pathlib.Path
    seeds: range
    epochs: int
    options: RunOptions
    processes: Processes
    hooks: Sequence[Hook]

    @property
    def folder(self) -> tuple[pathlib.Path, range, int, bool, str]:
        """What check_workdir and acquire_workdir take."""
        return self.workdir, self.seeds, self.epochs, self.options.overwrite, self.options.resume


def _run(experiment: Experiment, job: _Job, may_fit_batch: bool, started: float) -> RunResult:
    clock, options, processes = {"start": started}, job.options, job.processes
    processes.check_same(_settings(experiment, options))
    processes.first(lambda: check_workdir(*job.folder))
    devices = choose_devices(options.platform)
    experiment.check()  # before the data are loaded, or downloaded
    logger.info("loading %s", "the data set" if "dataset" in experiment.own_parts else experiment.config.dataset)
    experiment = fit_batch(experiment) if may_fit_batch else experiment
    processes.check_same({"dataset": experiment.dataset.sha256})
    config = experiment.config
    placement = make_placement(devices, options.mesh, config.batch_size)
    record = _describe(experiment, placement, job)
    clock["load"] = time.perf_counter()
    with contextlib.ExitStack() as stack:
        stack.enter_context(oom_as_config_error(config.batch_size))
        stack.enter_context(jax.default_device(placement.device))
        sizes = ", ".join(f"{len(split.rows):,} {name}" for name, split in experiment.split_rows.items())
        logger.info("compiling %s for %s (%s images)", config.name, placement.describe(), sizes)
        programs = compile_programs(experiment, placement, options.deterministic)
        if options.summary and processes.is_first and (tabulate := programs.components.model.tabulate):
            print(tabulate(jnp.zeros((1, *experiment.image_shape), jnp.float32)))
        if processes.is_first:
            stack.enter_context(acquire_workdir(*job.folder))
        processes.check_shared(job.workdir)
        expected = fingerprint(experiment, options.deterministic and placement.device.platform == "gpu")
        restored = _restore_seeds(job, programs, expected)
        clock["compile"] = time.perf_counter()
        seed_runs = _train_seeds(job, programs, restored, expected)
        clock["train"] = time.perf_counter()
        logger.info("scoring")
        record["runs"] = [{"seed": one.seed, "steps": one.step, **programs.score_all(one.state)} for one in seed_runs]
        record["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(seed_runs[0].state.params))
        record["summary"] = summarize_runs(record["runs"])
        clock["score"] = time.perf_counter()
        if options.plots:
            _plot(job, programs, seed_runs)
            clock["plots"] = time.perf_counter()
        record["seconds"] = _seconds(clock) | {"epochs": [s for one in seed_runs for s in one.epoch_seconds]}
        _write_result(job, seed_runs, expected, record)
    return RunResult(record["summary"], record, [one.state for one in seed_runs])


def _settings(experiment: Experiment, options: RunOptions) -> Record:
    """What must be the same in all processes; not where data lie."""
    names = ("resume", "overwrite", "checkpoint_every", "max_to_keep", "mesh", "platform", "deterministic", "plots")
    config = dataclasses.asdict(experiment.config)
    config = {name: value for name, value in config.items() if name not in ("dataset", "data_dir")}
    return {**config, **{name: getattr(options, name) for name in names}, "parts": experiment.own_parts}


def fit_batch(experiment: Experiment) -> Experiment:
    """Cuts a batch that is larger than a small data set."""
    config, count = experiment.config, len(experiment.split_rows["train"].rows)
    if config.batch_size <= count:
        return experiment
    logger.info("batch_size=%d: cut to the %d training images", config.batch_size, count)
    return experiment.with_config(dataclasses.replace(config, batch_size=count))


def _seconds(clock: dict[str, float]) -> Record:
    times = [*clock.values()]
    phases = {name: later - earlier for name, earlier, later in zip([*clock][1:], times, times[1:], strict=False)}
    return {**phases, "total": times[-1] - times[0]}


def _describe(experiment: Experiment, placement: Placement, job: _Job) -> Record:
    dataset, device = experiment.dataset, placement.device
    return {
        "experiment": experiment.config.name,
        "config": dataclasses.asdict(experiment.config),
        "parts": experiment.own_parts,
        "dataset": {
            "name": dataset.name,
            "sha256": dataset.sha256,
            "class_names": dataset.class_names,
            "image_shape": experiment.image_shape,
            "image_dtype": str(dataset.train_images.dtype),
            **_relative_folder(experiment.config, job.workdir),
        },
        "versions": versions(),
        "device": {"platform": device.platform, "kind": device.device_kind, "cpu_count": os.cpu_count()},
        "mesh": str(placement),
        "processes": job.processes.size,
        "deterministic": job.options.deterministic,
        "commit": git_commit(),  # at the start: the files may change during the run
    }


def _relative_folder(config: Config, workdir: pathlib.Path) -> Record:
    """Where a relative folder of data lies as seen from the workdir, so that it is found from other folders too."""
    for path in (config.dataset.partition(":")[2], config.data_dir):
        if path and not expand_user(path).is_absolute() and os.path.exists(path):
            return {"from_workdir": os.path.relpath(os.path.realpath(path), os.path.realpath(workdir))}
    return {}


def _restore_seeds(job: _Job, programs: Programs, expected: dict[str, Record]) -> dict[int, tuple[TrainState, Record]]:
    workdir, processes = job.workdir, job.processes
    seeds = processes.first(lambda: find_seeds(workdir, job.seeds))
    found = {seed: restore_latest(workdir, seed, programs, expected, processes) for seed in seeds}
    restored = {seed: one for seed, one in found.items() if one is not None}
    if job.options.resume == "required" and not restored:
        raise ConfigError(f"resume=required: {workdir} holds no unfinished run that can be read; leave it out")
    if processes.is_first:
        write_json(workdir / CONFIG, dataclasses.asdict(programs.experiment.config))
        # Written again from the checkpoints' records, so that it holds each epoch once.
        write_json(workdir / METRICS, *(record for _, metadata in restored.values() for record in metadata["records"]))
    return restored


def _train_seeds(
    job: _Job, programs: Programs, restored: dict[int, tuple[TrainState, Record]], expected: dict[str, Record]
) -> list[SeedRun]:
    seeds = job.seeds
    which = f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    logger.info("training %s, writing %s", which, job.workdir)
    seed_runs: list[SeedRun] = []
    for seed in seeds:
        one = start_seed(seed, programs, restored.pop(seed, None))
        if not should_stop(programs.experiment.config, one.records):
            _train_seed(one, job, programs, expected)
        elif not one.is_final:
            _save_if_first(job, one, expected)
        seed_runs.append(one)
    return seed_runs


def _train_seed(one: SeedRun, job: _Job, programs: Programs, expected: dict[str, Record]) -> None:
    if one.step:
        logger.info("seed %d: resuming from step %d", one.seed, one.step)
    config, options, is_first = programs.experiment.config, job.options, job.processes.is_first
    checkpoints = Checkpoints(checkpoint_folder(job.workdir, one.seed), options.max_to_keep)
    progress = Progress(config.epochs, options.quiet or not is_first, initial=len(one.records), seed=one.seed)
    all_hooks = [
        *job.hooks,
        append_metrics(job.workdir) if is_first else lambda run: None,
        report_progress(progress),
        save_checkpoints(checkpoints, expected, options.checkpoint_every),
    ]
    # Signals are deferred only while there is something to save: elsewhere, they may end the process at once.
    with defer_signals() as stop_signal, contextlib.closing(checkpoints), progress:
        one.is_final = False
        try:
            train_seed(one, programs, config, all_hooks, options.checkpoint_every, stop_signal, job.processes)
        except InterruptedRunError as error:
            error.args = (f"{error}; to resume, run the same again with workdir={job.workdir}",)
            raise
        checkpoints.wait()
        _save_if_first(job, one, expected)


def _save_if_first(job: _Job, one: SeedRun, expected: dict[str, Record]) -> None:
    """Saves a final state, but leaves one that is there to its result for as long as that is there."""
    if not job.processes.first(final_state_folder(job.workdir, one.seed).exists):
        save_final_state(job.workdir, one, expected)


def _plot(job: _Job, programs: Programs, seed_runs: Sequence[SeedRun]) -> None:
    state, dataset = seed_runs[0].state, programs.experiment.dataset
    records = [record for one in seed_runs for record in one.records]
    name = f"{programs.experiment.config.name} on {dataset.name.rpartition('/')[2]}"
    logits = programs.predict("test", state)
    params, model_state = programs.fetch((state.params, state.model_state))

    def apply(params: PyTree, images: Array) -> Array:
        variables = {"params": params, **model_state}
        outputs, _ = programs.components.model.apply(variables, jnp.asarray(images), train=False, rngs=None, mask=None)
        return outputs[0] if isinstance(outputs, tuple) else outputs

    if job.processes.is_first:
        save_run_plots(job.workdir, records, dataset, logits, params, name, apply)


def _write_result(job: _Job, seed_runs: Sequence[SeedRun], expected: dict[str, Record], record: Record) -> None:
    """Writes the result last; of one with fewer epochs, everything is left in its place until then."""
    for one in seed_runs:
        if not one.is_final:  # in the place of one that _save_if_first left
            save_final_state(job.workdir, one, expected)
    if job.processes.is_first:
        write_json(job.workdir / METRICS, *(record for one in seed_runs for record in one.records))  # by seed
        write_json(job.workdir / RESULT, record)
