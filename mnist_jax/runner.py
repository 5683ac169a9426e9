"""A complete run with its side effects: files, progress, checkpoints and the result."""

import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mnist_jax.checkpoint import Checkpoints
from mnist_jax.config import Config, config_from_dict
from mnist_jax.devices import choose_device, oom_as_config_error
from mnist_jax.errors import ConfigError, InterruptedRunError
from mnist_jax.experiment import Experiment
from mnist_jax.files import expand_user, write_json
from mnist_jax.hooks import append_metrics, report_progress, save_checkpoints, save_final_state
from mnist_jax.loop import Hook, SeedRun, start_seed, train_seed
from mnist_jax.options import RunOptions
from mnist_jax.plots import save_run_plots
from mnist_jax.process import defer_signals
from mnist_jax.programs import Programs, compile_programs
from mnist_jax.report import Progress, git_commit, summarize_runs, versions
from mnist_jax.resume import fingerprint, restore_latest
from mnist_jax.types import Record, TrainState
from mnist_jax.workdir import (
    CONFIG,
    METRICS,
    RESULT,
    acquire_workdir,
    check_no_result,
    check_resumable,
    check_seeds,
    checkpoint_folder,
)


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
    clock = {"start": time.perf_counter()}
    of_options = {name: fields.pop(name) for name in [*fields] if name in RunOptions.__dataclass_fields__}
    options = dataclasses.replace(options or RunOptions(), **of_options)
    experiment = experiment.with_config(config_from_dict(fields, experiment.config))
    workdir, config = expand_user(workdir), experiment.config
    check_no_result(workdir, options.overwrite)
    device = choose_device(options.platform)
    experiment.check()  # before the data are loaded, or downloaded
    record = _describe(experiment, device)
    clock["load"] = time.perf_counter()
    expected = fingerprint(experiment)
    with contextlib.ExitStack() as stack:
        stack.enter_context(oom_as_config_error(config.batch_size))
        stack.enter_context(jax.default_device(device))
        programs = compile_programs(experiment, device)
        if options.resume == "required":
            check_resumable(workdir)
        stack.enter_context(acquire_workdir(workdir, options.overwrite, options.resume))
        if options.summary and (tabulate := programs.components.model.tabulate):
            print(tabulate(jnp.zeros((1, *experiment.image_shape), jnp.float32)))
        restored = _restore_seeds(config, workdir, programs, options, expected)
        clock["compile"] = time.perf_counter()
        try:
            seed_runs = _train_seeds(config, workdir, programs, restored, options, expected, hooks)
        except InterruptedRunError as error:
            error.args = (f"{error}; to resume, run the same again with workdir={workdir}",)
            raise
        record["runs"] = [{"seed": one.seed, "steps": one.step, **programs.score_all(one.state)} for one in seed_runs]
        clock["train"] = time.perf_counter()
        record["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(seed_runs[0].state.params))
        record["summary"] = summarize_runs(record["runs"])
        record["seconds"] = _seconds(clock) | {"epochs": [s for one in seed_runs for s in one.epoch_seconds]}
        if options.plots:
            state = seed_runs[0].state
            records = [line for one in seed_runs for line in one.records]
            logits = programs.predict("test", state)
            save_run_plots(workdir, records, experiment.dataset, logits, jax.device_get(state.params))
        write_json(workdir / RESULT, record)
    return RunResult(record["summary"], record, [one.state for one in seed_runs])


def _seconds(clock: dict[str, float]) -> Record:
    times = [*clock.values()]
    phases = {name: later - earlier for name, earlier, later in zip([*clock][1:], times, times[1:], strict=False)}
    return {**phases, "total": times[-1] - times[0]}


def _describe(experiment: Experiment, device: jax.Device) -> Record:
    dataset = experiment.dataset
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
        },
        "versions": versions(),
        "device": {"platform": device.platform, "kind": device.device_kind, "cpu_count": os.cpu_count()},
        "commit": git_commit(),  # at the start: the files may change during the run
    }


def _restore_seeds(
    config: Config, workdir: pathlib.Path, programs: Programs, options: RunOptions, expected: dict[str, Record]
) -> dict[int, tuple[TrainState, Record] | None]:
    seeds = range(config.seed, config.seed + config.num_seeds)
    check_seeds(workdir, seeds)
    restored = {seed: restore_latest(workdir, seed, programs, expected) for seed in seeds}
    if options.resume == "required" and not any(restored.values()):
        raise ConfigError(f"resume=required: {workdir} holds no unfinished run that can be read; leave it out")
    write_json(workdir / CONFIG, dataclasses.asdict(config))
    return restored


def _train_seeds(
    config: Config,
    workdir: pathlib.Path,
    programs: Programs,
    restored: dict[int, tuple[TrainState, Record] | None],
    options: RunOptions,
    expected: dict[str, Record],
    hooks: Sequence[Hook],
) -> list[SeedRun]:
    seed_runs: list[SeedRun] = []
    previous_records: list[Record] = []
    with defer_signals() as stop_signal:
        for seed, state_and_metadata in restored.items():
            one = start_seed(seed, programs, state_and_metadata)
            # Written again from the checkpoint's records, so that it holds each epoch once.
            write_json(workdir / METRICS, *previous_records, *one.records)
            checkpoints = Checkpoints(checkpoint_folder(workdir, seed), options.max_to_keep)
            progress = Progress(config.epochs, options.quiet, initial=len(one.records))
            all_hooks = [
                *hooks,
                append_metrics(workdir),
                report_progress(progress),
                save_checkpoints(checkpoints, expected, options.checkpoint_every),
            ]
            with contextlib.closing(checkpoints), progress:
                train_seed(one, programs, config, all_hooks, options.checkpoint_every, stop_signal)
                checkpoints.wait()
            save_final_state(workdir, one, expected)
            seed_runs.append(one)
            previous_records += one.records
    return seed_runs
