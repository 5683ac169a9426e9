"""A complete run as one pure function, to jit and vmap: the train step, epoch and evaluation of every other run."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from mnist_jax.config import Hyperparams
from mnist_jax.errors import ArgumentError
from mnist_jax.evaluation import evaluate
from mnist_jax.experiment import Experiment
from mnist_jax.metrics import sum_over_steps
from mnist_jax.train import train_epoch
from mnist_jax.types import Array, Metrics, TrainState

Data: TypeAlias = Mapping[str, tuple[Array, Array]]  # split -> images [N, H, W, C], labels [N] or [N, K]


class Run(NamedTuple):
    """What a run computes; vmap adds an axis to every array."""

    state: TrainState  # after the last step
    history: dict[str, dict[str, jax.Array]]  # [split][metric]: [E] float32, after each epoch
    metrics: dict[str, dict[str, jax.Array]]  # [split][metric]: [] float32, of the final state


def _means(metrics: Metrics) -> dict[str, jax.Array]:
    return {name: mean.total / jnp.maximum(mean.count, 1) for name, mean in metrics.items()}


def make_run(experiment: Experiment) -> Callable[[jax.Array, Hyperparams, Data], Run]:
    """Makes a run of an experiment a pure function.

    Runs that have the same key share their batches, dropout masks and augmentations: map over the hyperparameters
    alone, and JAX computes what they share once.

    Args:
      experiment: its configuration has the values of what does not vary. `patience` must be 0, since a compiled program
        trains for a fixed number of epochs.

    Returns:
      A function (key, hparams, data) -> Run. hparams are values of traced fields; data are the splits by name, as in
      `experiment.splits`: it trains on "train" and is scored on all of them, on "validation" after each epoch too.

    Raises:
      ArgumentError: patience is not 0; from the function, data without "train".

    >>> experiment = Experiment(model="softmax", dataset="mnist5k", epochs=1)
    >>> data = {split: experiment.splits[split] for split in ("train", "validation")}
    >>> grid = jax.jit(jax.vmap(make_run(experiment), in_axes=(None, 0, None)))
    >>> grid(jax.random.key(7), {"learning_rate": jnp.array([1e-4, 1e-2])}, data).metrics["validation"]["loss"].shape
    (2,)
    """
    config = experiment.config
    if config.patience:
        raise ArgumentError(f"patience={config.patience}: a compiled run trains for all epochs; it must be 0")

    def run(key: jax.Array, hparams: Hyperparams, data: Data) -> Run:
        if "train" not in data:
            raise ArgumentError(f"data: has {', '.join(data) or 'nothing'}; it must have 'train'")
        parts = experiment.build(hparams)

        def epoch(state: TrainState, _: None) -> tuple[TrainState, dict[str, dict[str, jax.Array]]]:
            state, per_step = train_epoch(parts.train_step, state, *data["train"], batch_size=config.batch_size)
            record = {"train": _means(sum_over_steps(per_step))}
            if "validation" in data:
                record["validation"] = _means(evaluate(parts.eval_step, state, *data["validation"]))
            return state, record

        state, history = jax.lax.scan(epoch, parts.init(key), length=config.epochs)
        return Run(state, history, {name: _means(evaluate(parts.eval_step, state, *data[name])) for name in data})

    return run
