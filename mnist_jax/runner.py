"""A whole run with its side effects: progress, evaluation, checkpoints and the result file; and a run read back."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
import shutil
import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from mnist_jax import metrics
from mnist_jax.checkpoint import restore_state
from mnist_jax.config import Config, config_from_dict
from mnist_jax.data import DEFAULT_DATA_DIR, load_dataset, split_validation
from mnist_jax.errors import ConfigError, DataError, lookup
from mnist_jax.files import expanded, read_json, write_json
from mnist_jax.models import tabulate
from mnist_jax.plots import save_pictures
from mnist_jax.process import LOCK, deferred_signals, free_memory, locked
from mnist_jax.report import commit, summarize, versions
from mnist_jax.train import Parts, check, evaluate, make_parts, predict, train_epoch
from mnist_jax.trainer import Trainer
from mnist_jax.types import TrainState


def _refuse_result(workdir: pathlib.Path, overwrite: bool) -> None:
    try:
        if (workdir / "result.json").exists() and not overwrite:
            raise ConfigError(f"--workdir={workdir}: already holds a result; name another folder, or say --overwrite")
    except OSError as error:
        raise ConfigError(f"--workdir={workdir}: can't be read: {error.strerror}; name another folder") from None


FILES = ("result.json", "metrics.jsonl", "config.json")
FOLDERS = ("checkpoints", "state")
# What a killed process of ours may have begun to write: files, pictures, the final state, checkpoints.
LEFT = {
    "": r"\.(\w+\.(json|jsonl|png)|probe)\.\d+",
    "state": r"\.seed-\d+\.\d+\.\d",
    "checkpoints/*": r"\.\d+\.\d+\.\d",
}


def _refuse_links(workdir: pathlib.Path) -> None:
    for path in (*(workdir / name for name in (LOCK, *FILES, *FOLDERS)), *workdir.glob("checkpoints/*")):
        if path.is_symlink():
            raise ConfigError(
                f"--workdir={workdir}: {path.relative_to(workdir)} is a symbolic link, which a run does not follow; "
                "remove it, or name another folder"
            )


@contextlib.contextmanager
def _claimed(workdir: pathlib.Path, overwrite: bool, resume: str) -> Iterator[None]:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        _refuse_links(workdir)
        with locked(workdir):
            _refuse_result(workdir, overwrite)  # it may have appeared while this process compiled
            for folder, pattern in LEFT.items():
                for left in workdir.glob(f"{folder}/.*" if folder else ".*"):
                    if re.fullmatch(pattern, left.name):
                        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            if resume == "never" or (workdir / FILES[0]).exists():
                for name in FILES[:2]:
                    (workdir / name).unlink(missing_ok=True)
                for name in FOLDERS:
                    if (workdir / name).exists():
                        shutil.rmtree(workdir / name)
            probe = workdir / f".probe.{os.getpid()}"
            probe.touch()
            probe.unlink()
            yield
    except OSError as error:
        raise ConfigError(
            f"--workdir={workdir}: can't be written: {error.strerror}; make room, or name another folder"
        ) from None


@contextlib.contextmanager
def _memory_told(batch_size: int) -> Iterator[None]:
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise ConfigError(
            f"--batch_size={batch_size}: the device ran out of memory; choose a smaller batch or network, or "
            "compute fewer images at a time by --micro_batch_size"
        ) from None


def refuse_what_does_not_fit(program: jax.stages.Compiled, device: jax.Device, batch_size: int) -> None:
    """Compares what a compiled epoch needs with the memory that is free, before it runs.

    Args:
      program: the epoch.
      device: where it is to run.
      batch_size: for the message.

    Raises:
      ConfigError: it needs more.
    """
    needs, known = program.memory_analysis(), device.memory_stats()
    free = known["bytes_limit"] - known["bytes_in_use"] if known else free_memory()
    bytes_needed = needs.temp_size_in_bytes + needs.argument_size_in_bytes + needs.output_size_in_bytes
    bytes_needed -= needs.alias_size_in_bytes  # a state given away is the outcome's place
    if bytes_needed > free:
        raise ConfigError(
            f"--batch_size={batch_size}: an epoch needs {bytes_needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} "
            "are free; choose a smaller batch or network, or compute fewer images at a time by --micro_batch_size"
        )


def choose_device(name: str) -> jax.Device:
    """Chooses where everything after it runs, for the whole process.

    Args:
      name: cpu, gpu or tpu; empty for JAX's own choice.

    Returns:
      The first device there.

    Raises:
      ConfigError: there is none.
    """
    try:
        if name:
            jax.config.update("jax_platforms", name)
        return jax.devices()[0]
    except (RuntimeError, AssertionError):  # the latter where jax lacks the platform's plugin
        raise ConfigError(
            f"--platform={name}: JAX finds no such platform here; leave it out, or install jax for it"
        ) from None


RESUME = ("auto", "never", "must")


def keep_compiled() -> None:
    """Lets JAX keep compiled programs in the user's cache, for the whole process; JAX's own variables go before.

    Source: https://docs.jax.dev/en/latest/persistent_compilation_cache.html
    """
    folder = expanded(DEFAULT_DATA_DIR) / "compiled"
    if jax.config.jax_compilation_cache_dir is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        if os.access(folder, os.W_OK):
            jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    warnings.filterwarnings("ignore", message=".*persistent compilation cache")  # one that can't be read is made anew


def run(
    config: Config,
    workdir: str | os.PathLike,
    *,
    overwrite: bool = False,
    quiet: bool = False,
    plots: bool = False,
    summary: bool = False,
    platform_name: str = "",
    resume: str = "auto",
    checkpoint_every: int = 0,
    keep: int = 2,
) -> tuple[dict[str, Any], list[TrainState]]:
    """Trains and scores a network for each seed, and writes what came of it; goes on where an earlier call was stopped.

    Writes into workdir: config.json, metrics.jsonl (a line an epoch), checkpoints/seed-N/STEP and state/seed-N (orbax),
    pictures, and result.json last.

    Args:
      config: what to run.
      workdir: folder to write, made if missing.
      overwrite: whether a result that is there may be replaced.
      quiet: whether to report no progress.
      plots: whether to draw learning curves, confusion matrix, worst mistakes and first-layer filters.
      summary: whether to print the network's layers, shapes and parameter counts first.
      platform_name: cpu, gpu or tpu; empty for JAX's own choice.
      resume: auto goes on from the newest whole checkpoint, where there is one; must needs one; never begins anew.
      checkpoint_every: steps between checkpoints; 0 for an epoch's. The best on validation is always among them.
      keep: newest checkpoints of a seed to keep, beside the best on validation.

    Returns:
      What result.json holds, and each seed's final state.

    Raises:
      ConfigError, DataError: before anything is written; or where the folder can't be written any more.
      DivergedError: the loss became NaN or infinite; config.json and the good epochs' metrics stay.
      StoppedError: SIGTERM or SIGINT, after a checkpoint of the step it came in.
    """
    begin, version = time.perf_counter(), commit()
    workdir = expanded(workdir)
    lookup(dict.fromkeys(RESUME), "resume", resume)
    for name, value, least in (("checkpoint_every", checkpoint_every, 0), ("keep", keep, 1)):
        if value < least:
            raise ConfigError(f"--{name}={value}: must be at least {least}")
    _refuse_result(workdir, overwrite)
    check(config)
    device = choose_device(platform_name)
    dataset = load_dataset(config.dataset, config.data_dir)
    train_rows, validation_rows = split_validation(len(dataset.train_images), config.validation_fraction)
    if config.batch_size > len(train_rows):
        raise ConfigError(f"--batch_size={config.batch_size}: larger than the {len(train_rows)} training images")
    steps_per_epoch = -(-len(train_rows) // config.batch_size)
    shape = dataset.train_images.shape[1:]
    parts = make_parts(config, len(dataset.class_names), shape, config.epochs * steps_per_epoch)
    splits = {
        "train": (dataset.train_images[train_rows], dataset.train_labels[train_rows]),
        "validation": (dataset.train_images[validation_rows], dataset.train_labels[validation_rows]),
        "test": (dataset.test_images, dataset.test_labels),
    }
    splits = {name: jax.device_put(arrays, device) for name, arrays in splits.items() if len(arrays[1])}
    loaded = time.perf_counter()

    epoch_fn = functools.partial(train_epoch, parts.train_step, batch_size=config.batch_size)
    like = jax.eval_shape(parts.init, jax.random.key(config.seed))
    bounds = (np.int32(0), np.int32(0))
    facts = {
        "dataset": {
            "name": dataset.name,
            "sha256": dataset.sha256,
            "class_names": dataset.class_names,
            "image_shape": shape,
        },
        "config": dataclasses.asdict(config),
        "versions": versions(),
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(_memory_told(config.batch_size))
        epoch_fn = jax.jit(epoch_fn, donate_argnums=0).lower(like, *splits["train"], *bounds).compile()
        refuse_what_does_not_fit(epoch_fn, device, config.batch_size)
        nothing = ConfigError(f"--resume=must: {workdir} holds no unfinished run; leave it out to begin one")
        if resume == "must" and (
            (workdir / FILES[0]).exists() or not any((workdir / name).exists() for name in FOLDERS)
        ):
            raise nothing
        stack.enter_context(_claimed(workdir, overwrite, resume))
        if summary:
            print(tabulate(parts.model, shape))
        eval_fn = jax.jit(functools.partial(evaluate, parts.eval_step))
        eval_fns = {name: eval_fn.lower(like, *arrays).compile() for name, arrays in splits.items()}
        init = jax.jit(parts.init)

        def score(name: str, state: TrainState) -> dict[str, float]:
            return metrics.compute(jax.device_get(eval_fns[name](state, *splits[name])))

        trainer = Trainer(
            config,
            workdir,
            splits["train"],
            epoch_fn,
            score,
            tuple(splits),
            steps_per_epoch,
            json.loads(json.dumps(facts)),
            checkpoint_every,
            keep,
            quiet,
        )
        seeds = range(config.seed, config.seed + config.num_seeds)
        for folder in (*workdir.glob("checkpoints/seed-*"), *workdir.glob("state/seed-*")):
            if folder.name not in {f"seed-{seed}" for seed in seeds}:
                raise ConfigError(
                    f"--seed={config.seed}: {folder} is of another run; name another --workdir, or say --resume=never "
                    "to begin anew"
                )
        starts = [trainer.start(seed, like) for seed in seeds]
        if resume == "must" and not any(starts):
            raise nothing
        write_json(workdir / "config.json", dataclasses.asdict(config))
        compiled = time.perf_counter()

        records, runs, epoch_seconds, states = [], [], [], []
        told = stack.enter_context(deferred_signals())
        for seed, start in zip(seeds, starts, strict=True):
            state, about = start or (init(jax.random.key(seed)), None)
            state, lines, seconds = trainer.run(seed, state, about, records, told)
            records += lines
            epoch_seconds += seconds
            states.append(state)
            scores = {name: score(name, state) for name in splits}
            runs.append({"seed": seed, "steps": int(state.step), **scores})
        trained = time.perf_counter()

        result = {
            "experiment": config.experiment,
            **facts,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(states[0].params)),
            "runs": runs,
            "summary": {"test_accuracy": summarize([run["test"]["accuracy"] for run in runs])},
            "seconds": {
                "load": loaded - begin,
                "compile": compiled - loaded,
                "train": trained - compiled,
                "total": trained - begin,
                "epochs": epoch_seconds,
            },
            "device": {"platform": device.platform, "kind": device.device_kind, "cpu_count": os.cpu_count()},
            "commit": version,
        }
        if plots:
            logits = jax.jit(functools.partial(predict, parts.model, dtype=parts.dtype))(states[0], splits["test"][0])
            save_pictures(workdir, records, dataset, np.asarray(logits), jax.device_get(states[0].params))
        write_json(workdir / "result.json", result)
    return result, states


class Run(NamedTuple):
    """A finished run, read back."""

    config: Config
    result: dict[str, Any]  # of result.json
    parts: Parts
    state: TrainState


def load_run(workdir: str | os.PathLike, seed: int | None = None) -> Run:
    """Reads a finished run's network.

    Args:
      workdir: folder that `run` wrote.
      seed: which of the run's seeds; None for its first.

    Returns:
      The run.

    Raises:
      ConfigError: no such seed.
      DataError: the folder is missing, incomplete, or not of this network.
    """
    workdir = expanded(workdir)
    if not workdir.is_dir():
        raise DataError(f"--workdir={workdir}: no such folder; name one that an experiment wrote")
    if not (workdir / "result.json").exists():
        raise DataError(f"--workdir={workdir}: no finished run, as it holds no result.json; run the experiment again")
    try:
        result = read_json(workdir / "result.json")
        config = config_from_dict(result["config"])
        seeds = {run["seed"]: run["steps"] for run in result["runs"]}
        names, shape = result["dataset"]["class_names"], tuple(result["dataset"]["image_shape"])
        numbers = [*shape, *(number + 1 for pair in seeds.items() for number in pair)]
        if not seeds or len(shape) != 3 or not all(type(n) is int and 0 < n < 2**31 for n in numbers):
            raise ValueError("seeds, steps or image_shape")
        if not names or not all(isinstance(name, str) and name.isprintable() for name in names):
            raise ValueError("class_names")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{workdir / 'result.json'}: not a result of this version ({error!r:.100})") from None
    seed = next(iter(seeds)) if seed is None else seed
    if seed not in seeds:
        raise ConfigError(f"--run_seed={seed}: {workdir} has {', '.join(map(str, seeds))}")
    parts = make_parts(config, len(names), shape, seeds[seed])
    state = restore_state(workdir / "state" / f"seed-{seed}", jax.eval_shape(parts.init, jax.random.key(seed)))
    return Run(config, result, parts, state)
