"""What every reader returns, and what several need: splits drawn once, labels from 0."""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

Split: TypeAlias = tuple[np.ndarray, np.ndarray]  # images [N, ...] and labels [N]
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


def group_splits(images: np.ndarray, labels: np.ndarray, splits: np.ndarray) -> dict[str, Split]:
    """Groups images by the split that each belongs to.

    Args:
      images: [N, ...].
      labels: [N] int.
      splits: [N] str, names of splits.

    Returns:
      Images and labels by name, for the names that occur.
    """
    masks = {str(name): splits == name for name in np.unique(splits)}
    return {name: (images[mask], labels[mask]) for name, mask in masks.items()}


def join_splits(
    splits: Mapping[str, Split], name: str, class_names: tuple[str, ...] | None = None, remarks: tuple[str, ...] = ()
) -> Arrays:
    """Makes one data set of the splits that a file has; where it has no test split, one is drawn.

    Args:
      splits: images and labels by "train", "validation" and "test"; those that are missing or empty are not there.
      name: of the file, for the remark on a split that was drawn.
      class_names: None: the labels themselves.
      remarks: for people.

    Returns:
      The data, validation images after the training images.
    """
    images, labels = splits["train"]
    if "test" not in splits or not len(splits["test"][1]):
        return Arrays(*split_stratified(images, labels), class_names, remarks=(*remarks, f"{name} {DRAWN}"))
    validation = splits.get("validation")
    if validation:
        images, labels = (np.concatenate(pair) for pair in zip(splits["train"], validation, strict=True))
    return Arrays(images, labels, *splits["test"], class_names, len(validation[1]) if validation else 0, remarks)


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
