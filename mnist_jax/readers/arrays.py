"""What every reader returns, and what several need: splits drawn once, labels from 0."""

from typing import NamedTuple

import numpy as np

TEST_FRACTION = 0.2
DRAWN = "has no test split; one image in five of each class, drawn once, is used as the test split"


class Arrays(NamedTuple):
    """A data set as a file holds it."""

    train_images: np.ndarray  # [N, H, W] or [N, H, W, C]
    train_labels: np.ndarray  # [N] int
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...] | None = None  # None: the labels themselves
    num_validation: int = 0  # how many of the training images, the last ones, the file holds out for validation
    remarks: tuple[str, ...] = ()  # for people


def split_stratified(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draws a test split, always the same one, that has a fifth of each class.

    Args:
      images: [N, ...].
      labels: [N] int.

    Returns:
      Training images and labels, test images and labels, in the order that they had.
    """
    random = np.random.RandomState(42)
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        is_test[rows[: max(1, round(TEST_FRACTION * len(rows))) if len(rows) > 1 else 0]] = True
    if not is_test.any():
        is_test[-1:] = len(labels) > 1
    return images[~is_test], labels[~is_test], images[is_test], labels[is_test]


def compact_labels(arrays: Arrays) -> Arrays:
    """Numbers labels from 0 without gaps; class names keep the original numbers.

    Args:
      arrays: without class names.

    Returns:
      The same data with them.
    """
    known = np.unique(np.concatenate([arrays.train_labels, arrays.test_labels]))
    train_labels, test_labels = (np.searchsorted(known, labels) for labels in (arrays.train_labels, arrays.test_labels))
    return arrays._replace(train_labels=train_labels, test_labels=test_labels, class_names=tuple(map(str, known)))
