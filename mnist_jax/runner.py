"""A whole run with its side effects: progress, evaluation, checkpoints and the result file. The only impure module."""

import dataclasses
import functools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mnist_jax import metrics
from mnist_jax.checkpoint import save_state
from mnist_jax.config import Config
from mnist_jax.data import load_dataset, split_validation
from mnist_jax.errors import ConfigError, DivergedError, lookup
from mnist_jax.losses import LOSSES
from mnist_jax.models import make_model
from mnist_jax.optimizers import make_optimizer
from mnist_jax.train import evaluate, init_state, make_eval_step, make_train_step, train_epoch
from mnist_jax.types import Hyperparams, TrainState


def write_json(path: pathlib.Path, *values: Any) -> None:
    """Writes a JSON file that appears whole or not at all: one value indented, or one value a line for .jsonl.

    Args:
      path: where to.
      *values: what to write.
    """
    indent = None if path.suffix == ".jsonl" else 2
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text("".join(json.dumps(value, indent=indent) + "\n" for value in values))
    aside.replace(path)


def _claim_workdir(workdir: pathlib.Path, overwrite: bool) -> None:
    try:
        if (workdir / "result.json").exists() and not overwrite:
            raise ConfigError(f"--workdir={workdir}: already holds a result; name another folder, or say --overwrite")
        workdir.mkdir(parents=True, exist_ok=True)
        for name in ("result.json", "metrics.jsonl"):
            (workdir / name).unlink(missing_ok=True)
        probe = workdir / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"--workdir={workdir}: can't be written: {error.strerror}; name another folder") from None


def _devices(name: str) -> Sequence[jax.Device]:
    try:
        if name:
            jax.config.update("jax_platforms", name)
        return jax.devices()
    except (RuntimeError, AssertionError):  # the latter where jax lacks the platform's plugin
        raise ConfigError(
            f"--platform={name}: JAX finds no such platform here; leave it out, or install jax for it"
        ) from None


class Progress:
    """Reports a run: a bar on a terminal, a line an epoch elsewhere, nothing when quiet. It changes no number."""

    def __init__(self, epochs: int, quiet: bool, stream: Any = None):
        self.stream = stream or sys.stderr
        self.quiet, self.epochs, self.bar = quiet, epochs, None
        if not quiet and self.stream.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=epochs, unit="epoch", file=self.stream)

    def epoch(self, record: dict[str, Any], images_per_second: float) -> None:
        """Reports one epoch.

        Args:
          record: a line of metrics.jsonl.
          images_per_second: training speed.
        """
        facts = {"loss": f"{record['train']['loss']:.4f}", "accuracy": f"{record['train']['accuracy']:.4f}"}
        if "validation" in record:
            facts["val_accuracy"] = f"{record['validation']['accuracy']:.4f}"
        facts["images/s"] = f"{images_per_second:,.0f}"
        if self.bar is not None:
            self.bar.set_postfix(facts)
            self.bar.update()
        elif not self.quiet:
            told = "  ".join(f"{name} {value}" for name, value in facts.items())
            print(f"seed {record['seed']}  epoch {record['epoch']}/{self.epochs}  {told}", file=self.stream, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        if self.bar is not None:
            self.bar.close()


def _commit() -> str | None:
    """The commit of the checkout that this package runs from; None where it is installed without one."""
    root = pathlib.Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        told = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return told.stdout.strip()


def _versions() -> dict[str, str]:
    import importlib.metadata

    names = ("mnist_jax", "jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def summarize(scores: Sequence[float]) -> dict[str, float | None]:
    """Mean, sample standard deviation, extremes and number of some scores.

    Args:
      scores: one a seed.

    Returns:
      `std` is None for a single score.

    >>> summarize([0.5, 1.0])["mean"]
    0.75
    """
    return {
        "mean": statistics.fmean(scores),
        "std": statistics.stdev(scores) if len(scores) > 1 else None,
        "min": min(scores),
        "max": max(scores),
        "n": len(scores),
    }


def run(
    config: Config, workdir: str | os.PathLike, *, overwrite: bool = False, quiet: bool = False, platform_name: str = ""
) -> tuple[dict[str, Any], list[TrainState]]:
    """Trains and scores a network for each seed, and writes what came of it.

    Writes into workdir: config.json, metrics.jsonl (a line an epoch), state/seed-N (orbax), result.json (last).

    Args:
      config: what to run.
      workdir: folder to write, made if missing.
      overwrite: whether a result that is there may be replaced.
      quiet: whether to report no progress.
      platform_name: cpu, gpu or tpu; empty for JAX's own choice.

    Returns:
      What result.json holds, and each seed's final state.

    Raises:
      ConfigError, DataError: before anything is written.
      DivergedError: the loss became NaN or infinite; config.json and the good epochs' metrics stay.
    """
    begin = time.perf_counter()
    workdir = pathlib.Path(workdir).expanduser()
    optimizer = make_optimizer(config, Hyperparams(config.learning_rate))
    loss_fn = lookup(LOSSES, "loss", config.loss)
    make_model(config, classes=1)  # refuses a wrong name before the data is read
    device = _devices(platform_name)[0]
    dataset = load_dataset(config.dataset, config.data_dir)
    train_rows, validation_rows = split_validation(len(dataset.train_images), config.validation_fraction)
    if config.batch_size > len(train_rows):
        raise ConfigError(f"--batch_size={config.batch_size}: larger than the {len(train_rows)} training images")
    _claim_workdir(workdir, overwrite)
    write_json(workdir / "config.json", dataclasses.asdict(config))
    splits = {
        "train": (dataset.train_images[train_rows], dataset.train_labels[train_rows]),
        "validation": (dataset.train_images[validation_rows], dataset.train_labels[validation_rows]),
        "test": (dataset.test_images, dataset.test_labels),
    }
    splits = {name: jax.device_put(arrays, device) for name, arrays in splits.items() if len(arrays[1])}
    model = make_model(config, len(dataset.class_names))
    loaded = time.perf_counter()

    init = jax.jit(lambda key: init_state(model, optimizer, key, splits["train"][0][:1]))
    states = [init(jax.random.key(config.seed + i)) for i in range(config.num_seeds)]
    train_step = make_train_step(model, optimizer, loss_fn)
    epoch_fn = functools.partial(train_epoch, train_step, batch_size=config.batch_size)
    epoch_fn = jax.jit(epoch_fn, donate_argnums=0).lower(states[0], *splits["train"]).compile()
    eval_fn = functools.partial(evaluate, make_eval_step(model, loss_fn))
    eval_fns = {name: jax.jit(eval_fn).lower(states[0], *arrays).compile() for name, arrays in splits.items()}
    compiled = time.perf_counter()

    def score(name: str, state: TrainState) -> dict[str, float]:
        return metrics.compute(jax.device_get(eval_fns[name](state, *splits[name])))

    records, runs = [], []
    steps_per_epoch = -(-len(train_rows) // config.batch_size)
    for i, seed in enumerate(range(config.seed, config.seed + config.num_seeds)):
        progress = Progress(config.epochs, quiet)
        try:
            for epoch in range(1, config.epochs + 1):
                tick = time.perf_counter()
                states[i], per_step = jax.block_until_ready(epoch_fn(states[i], *splits["train"]))
                took = time.perf_counter() - tick
                bad = np.flatnonzero(~np.isfinite(np.asarray(per_step.loss)))
                if len(bad):
                    raise DivergedError(
                        f"seed {seed}: the loss became {per_step.loss[bad[0]]} in epoch {epoch}, at step "
                        f"{(epoch - 1) * steps_per_epoch + bad[0] + 1}; try a smaller --learning_rate than "
                        f"{config.learning_rate} (the epochs before are in {workdir / 'metrics.jsonl'})"
                    )
                train_metrics = metrics.compute(jax.device_get(metrics.merge(per_step)))
                record = {"seed": seed, "epoch": epoch, "step": epoch * steps_per_epoch, "train": train_metrics}
                if "validation" in splits and config.eval_every and epoch % config.eval_every == 0:
                    record["validation"] = score("validation", states[i])
                record["seconds"] = round(took, 4)
                records.append(record)
                write_json(workdir / "metrics.jsonl", *records)
                progress.epoch(record, len(train_rows) / took)
        finally:
            progress.close()
        save_state(workdir / "state" / f"seed-{seed}", states[i])
        scores = {name: score(name, states[i]) for name in splits}
        runs.append({"seed": seed, "steps": int(states[i].step), **scores})
    trained = time.perf_counter()

    result = {
        "experiment": config.experiment,
        "dataset": {"name": dataset.name, "sha256": dataset.sha256},
        "config": dataclasses.asdict(config),
        "runs": runs,
        "summary": {"test_accuracy": summarize([run["test"]["accuracy"] for run in runs])},
        "seconds": {
            "load": loaded - begin,
            "compile": compiled - loaded,
            "train": trained - compiled,
            "total": trained - begin,
        },
        "versions": _versions(),
        "device": {"platform": device.platform, "kind": device.device_kind, "cpu_count": os.cpu_count()},
        "commit": _commit(),
    }
    write_json(workdir / "result.json", result)
    return result, states
