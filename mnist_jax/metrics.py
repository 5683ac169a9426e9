"""Metrics as sums with a count: merged exactly, divided once."""

import jax
import jax.numpy as jnp
import numpy as np

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


def confusion_matrix(labels: np.ndarray, answers: np.ndarray, classes: int) -> np.ndarray:
    """Counts what was taken for what.

    Args:
      labels: [N] int.
      answers: [N] int, what the network said.
      classes: number of classes.

    Returns:
      [classes, classes] int64; rows are labels, columns answers.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(labels * classes + answers, minlength=classes * classes).reshape(classes, classes)


def per_class(matrix: np.ndarray) -> list[dict[str, float | int | None]]:
    """Computes each class's precision and recall.

    Args:
      matrix: [classes, classes] int; rows are labels, columns answers.

    Returns:
      A dict a class: `precision` (share of its answers that are right), `recall` (share of its images that were found)
      and `count`; None where nothing was to be divided.

    >>> per_class(np.array([[1, 1], [0, 0]]))[1]
    {'precision': 0.0, 'recall': None, 'count': 0}
    """
    right, labelled, answered = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return [
        {
            "precision": float(right[i] / answered[i]) if answered[i] else None,
            "recall": float(right[i] / labelled[i]) if labelled[i] else None,
            "count": int(labelled[i]),
        }
        for i in range(len(matrix))
    ]
