"""Which rows go where: the validation split, and the batches of an epoch or an evaluation."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax.errors import ConfigError
from mnist_jax.types import Dataset


def num_batches(count: int, batch_size: int) -> int:
    """Counts the batches that hold some examples, the last one perhaps not full.

    Args:
      count: number of examples.
      batch_size: examples per batch.

    Returns:
      count / batch_size, rounded up.

    >>> num_batches(630, 100)
    7
    """
    return -(-count // batch_size)


def split_validation(count: int, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Chooses the lecture's validation images.

    Args:
      count: number of training images.
      fraction: fraction to hold out, in [0, 1).

    Returns:
      Rows to train on and rows to validate on, int64. They are those, in that order, of scikit-learn's
      train_test_split(test_size=fraction, random_state=42): 54,000 and 6,000 of 60,000 for 0.1.

    >>> [len(rows) for rows in split_validation(60000, 0.1)]
    [54000, 6000]
    """
    num_held_out = int(np.ceil(count * fraction))
    order = np.random.RandomState(42).permutation(count)
    return order[num_held_out:], order[:num_held_out]


def split_dataset(dataset: Dataset, fraction: float, rows: str = "random") -> tuple[np.ndarray, np.ndarray]:
    """Chooses the validation images: those that the data set holds out itself, or else a fraction.

    MNIST's training images lie in the order of their writers, about a hundred images each, two sources taking turns. So
    its last images are by other people than those before, as its test images are; random ones are by the same people.

    Args:
      dataset: the data set.
      fraction: fraction to hold out, where it holds out none, in [0, 1).
      rows: "random" for the lecture's choice, that of split_validation, or "last" for the last images, as in Keras.

    Returns:
      Rows to train on and rows to validate on, int64.

    Raises:
      ConfigError: the last images lack half of the classes, since the data set is sorted by them.
    """
    count = len(dataset.train_labels)
    if not dataset.num_validation and rows == "random":
        return split_validation(count, fraction)
    num_held_out = dataset.num_validation or math.ceil(count * fraction)
    if not dataset.num_validation:
        _check_unsorted(dataset, num_held_out)
    return np.split(np.arange(count), [count - num_held_out])  # type: ignore[return-value]


def _check_unsorted(dataset: Dataset, num_held_out: int) -> None:
    labels = dataset.train_labels if dataset.train_labels.ndim == 1 else dataset.train_labels.argmax(axis=-1)
    held_out, known = (len(np.unique(part)) for part in (labels[len(labels) - num_held_out :], labels))
    if num_held_out >= 4 * known and 2 * held_out <= known:
        raise ConfigError(
            f"validation_rows=last: the last {num_held_out} images are of {held_out} of the {known} classes, since "
            f"{dataset.name} is sorted by class; use random"
        )


def pad_rows(array: np.ndarray, multiple: int) -> np.ndarray:
    """Appends rows of zeros until their number is a multiple.

    Args:
      array: [N, ...].
      multiple: of which the number of rows shall be.

    Returns:
      [M, ...] of the same dtype.

    >>> pad_rows(np.ones(3, np.uint8), 4)
    array([1, 1, 1, 0], dtype=uint8)
    """
    return np.concatenate([array, np.zeros((-len(array) % multiple, *array.shape[1:]), array.dtype)])


def batch_indices(rows: jax.Array, batch_size: int) -> tuple[jax.Array, jax.Array]:
    """Cuts rows into batches; the last one is padded with row 0, masked.

    Args:
      rows: [N] int32.
      batch_size: rows per batch.

    Returns:
      [S, batch_size] int32 rows and [S, batch_size] bool mask, S = num_batches(N, batch_size).
    """
    steps = num_batches(rows.shape[0], batch_size)
    padding = steps * batch_size - rows.shape[0]
    mask = jnp.arange(steps * batch_size) < rows.shape[0]
    return jnp.pad(rows, (0, padding)).reshape(steps, batch_size), mask.reshape(steps, batch_size)


def shuffled_batch_indices(key: jax.Array, count: int, batch_size: int) -> tuple[jax.Array, jax.Array]:
    """Draws the order of one epoch.

    Args:
      key: [] typed PRNG key of this epoch.
      count: number of training images.
      batch_size: images per step.

    Returns:
      [S, batch_size] int32 rows, each image once, and the mask of the padding.
    """
    return batch_indices(jax.random.permutation(key, count).astype(jnp.int32), batch_size)
