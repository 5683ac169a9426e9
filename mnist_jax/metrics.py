"""Metrics as sums with a count: merged exactly, divided once."""

import jax
import jax.numpy as jnp

from mnist_jax.types import Metrics


def from_logits(loss: jax.Array, logits: jax.Array, label: jax.Array, mask: jax.Array) -> Metrics:
    """Sums one batch.

    Args:
      loss: [B] float32, per example.
      logits: [B, classes] float32.
      label: [B] int32.
      mask: [B] bool; False rows count for nothing, whatever they hold.

    Returns:
      Metrics of scalars.
    """
    hit = jnp.argmax(logits, axis=-1) == label
    return Metrics(
        count=jnp.sum(mask, dtype=jnp.int32),
        loss=jnp.sum(jnp.where(mask, loss, 0.0)),
        correct=jnp.sum(hit & mask, dtype=jnp.int32),
    )


def merge(steps: Metrics) -> Metrics:
    """Adds up metrics of several steps.

    Args:
      steps: Metrics of [S] arrays.

    Returns:
      Metrics of scalars.
    """
    return Metrics(*(jnp.sum(field, axis=0, dtype=field.dtype) for field in steps))


def compute(metrics: Metrics) -> dict[str, float]:
    """Divides the sums by the count, once.

    Args:
      metrics: Metrics of scalars.

    Returns:
      `count`, and mean `loss` and `accuracy` (0 to 1); these are NaN where nothing was counted.

    >>> compute(Metrics(count=4, loss=2.0, correct=3))
    {'count': 4, 'loss': 0.5, 'accuracy': 0.75}
    """
    count = int(metrics.count)
    if not count:
        return {"count": 0, "loss": float("nan"), "accuracy": float("nan")}
    return {"count": count, "loss": float(metrics.loss) / count, "accuracy": int(metrics.correct) / count}
