"""METRICS, the table of metrics (logits, batch) -> Mean, and how they are merged and divided."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mnist_jax.config import Config
from mnist_jax.errors import ArgumentError, get_entry
from mnist_jax.types import Batch, LossFn, Mean, Metric, Metrics


def _classes(name: str, logits: jax.Array, batch: Batch) -> jax.Array:
    """[B] int: the labels' classes; of soft labels, the most probable."""
    if batch.label.shape == logits.shape and jnp.issubdtype(batch.label.dtype, jnp.floating):
        return jnp.argmax(batch.label, axis=-1)
    if batch.label.shape == logits.shape[:-1] and jnp.issubdtype(batch.label.dtype, jnp.integer):
        return batch.label
    raise ArgumentError(
        f"{name}: logits of shape {logits.shape} need integer labels of shape {logits.shape[:-1]} or float ones of "
        f"shape {logits.shape}; these are {batch.label.dtype} of shape {batch.label.shape}"
    )


def accuracy(logits: jax.Array, batch: Batch) -> Mean:
    """Counts the examples whose largest logit is the label's.

    Args:
      logits: [B, K] float32.
      batch: its labels are [B] int, or [B, K] float: soft labels, of which the largest counts.

    Returns:
      A Mean of scalars, 0 to 1.
    """
    return Mean.of(jnp.argmax(logits, axis=-1) == _classes("accuracy", logits, batch), batch.mask)


def top_5_accuracy(logits: jax.Array, batch: Batch) -> Mean:
    """Counts the examples whose label is among the five largest logits.

    Args:
      logits: [B, K] float32.
      batch: as for accuracy.

    Returns:
      A Mean of scalars, 0 to 1.
    """
    _, top = jax.lax.top_k(logits, min(5, logits.shape[-1]))
    classes = _classes("top_5_accuracy", logits, batch)
    return Mean.of(jnp.any(top == classes[:, None], axis=-1), batch.mask)


RESERVED = ("loss", "count", "skipped")  # keys of a record beside the metrics
METRICS: dict[str, Metric] = {"accuracy": accuracy, "top_5_accuracy": top_5_accuracy}


def make_metrics(config: Config) -> dict[str, Metric]:
    """Looks up the metrics that a configuration names.

    Args:
      config: its `metrics` are names in METRICS.

    Returns:
      The metrics by name.

    Raises:
      ConfigError: no such metric.
    """
    return {name: get_entry(METRICS, "metrics", name) for name in config.metrics}


def batch_metrics(loss: LossFn, metrics: Mapping[str, Metric], outputs: object, batch: Batch) -> Metrics:
    """Measures one batch.

    Args:
      loss: (outputs, batch) -> [B].
      metrics: by name.
      outputs: of the network: [B, K] logits, or a tuple that begins with them; the loss sees all, metrics the logits.
      batch: what the network saw.

    Returns:
      The loss and each metric, of scalars.

    Raises:
      ArgumentError: the loss is not one number per example.
    """
    logits = outputs[0] if isinstance(outputs, tuple) else outputs
    per_example = loss(outputs, batch)
    shape = getattr(per_example, "shape", None)
    if shape != batch.label.shape[:1]:
        returned = type(per_example).__name__ if shape is None else f"shape {shape}"
        raise ArgumentError(
            f"loss: returned {returned} for a batch of {batch.label.shape[0]}; it must return one number per example, "
            "not their mean, so that masked examples can be left out"
        )
    measured = {name: metric(logits, batch) for name, metric in metrics.items()}
    for name, mean in measured.items():
        if name in RESERVED:
            raise ArgumentError(f"metrics: {name!r} is the name of something else; choose another one")
        if not isinstance(mean, Mean):
            raise ArgumentError(f"metrics: {name} returned a {type(mean).__name__}; it must return a Mean (Mean.of)")
    return {"loss": Mean.of(per_example, batch.mask), **measured}


def sum_over_steps(per_step: Metrics) -> Metrics:
    """Adds up metrics of several steps.

    Args:
      per_step: of [S] arrays.

    Returns:
      Metrics of scalars.
    """
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0, dtype=leaf.dtype), per_step)


def compute(metrics: Metrics) -> dict[str, float]:
    """Divides each metric's total by its count.

    Args:
      metrics: of scalars.

    Returns:
      The mean of each, and `count`, the number of examples; a mean is NaN where nothing was counted.

    >>> compute({"loss": Mean(2.0, 4), "accuracy": Mean(3, 4)})
    {'count': 4, 'loss': 0.5, 'accuracy': 0.75}
    """
    means = {
        name: float(mean.total) / int(mean.count) if int(mean.count) else float("nan") for name, mean in metrics.items()
    }
    return {"count": int(metrics["loss"].count), "loss": means.pop("loss"), **means}
