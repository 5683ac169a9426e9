"""Reads data sets in CSV files of a label and pixels, as of Kaggle's Digit Recognizer."""

import pathlib
import re
import warnings

import numpy as np

from mnist_jax.errors import DataError, summarize_exception
from mnist_jax.idx import MAX_IDX_BYTES
from mnist_jax.readers.arrays import Arrays, Split, join_splits

LABELS = ("label", "labels", "class", "target", "y")
_MAX_HEADER = 1 << 20  # bytes


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"\s*[-+]?\d+(\.\d*)?([eE][-+]?\d+)?\s*", cell) is not None


def _read_rows(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Images and labels, None where the file has none."""
    try:
        if path.stat().st_size > MAX_IDX_BYTES:
            raise DataError(f"{path}: more than {MAX_IDX_BYTES} bytes")
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline(_MAX_HEADER).strip().split(",")
        header = None if all(map(_is_number, first)) else [cell.strip().strip('"').lower() for cell in first]
        with path.open(encoding="utf-8-sig") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a file without rows; the error below is enough
            rows = np.loadtxt(file, np.float32, delimiter=",", comments=None, skiprows=int(header is not None), ndmin=2)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not text; a CSV file of a label and pixels in each row is expected") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from None
    except ValueError as error:  # numpy says which row
        reason = summarize_exception(error).partition(";")[0]
        raise DataError(f"{path}: {reason} (rows are counted from 0, after the header)") from None
    if not rows.size:
        raise DataError(f"{path}: holds no row")
    width = rows.shape[1]
    column = next((i for i, name in enumerate(header or ()) if name in LABELS), None)
    if header is None and not _side(width) and _side(width - 1):
        column = 0
    if column is None:
        if not _side(width) and not _side(width - 1):
            raise DataError(f"{path}: has {width} columns; they must be a label and the pixels of a square image")
        return _to_images(rows, path), None
    labels = rows[:, column]
    if (labels != np.round(labels)).any() or np.abs(labels).max() > 2**24:
        row = int(np.argmax(labels != np.round(labels)))
        raise DataError(f"{path}: the label in row {row} is {labels[row]:g}; labels are integers")
    return _to_images(np.delete(rows, column, axis=1), path), labels.astype(np.int32)


def _read_labeled(path: pathlib.Path) -> Split:
    images, labels = _read_rows(path)
    if labels is None:
        raise DataError(f"{path}: has no labels; a file to train on needs a column named label")
    return images, labels


def _side(pixels: int) -> int:
    """Side of a square gray or RGB image of so many values; 0 where there is none."""
    for channels in (1, 3):
        side = round((pixels / channels) ** 0.5)
        if side > 1 and channels * side * side == pixels:
            return side
    return 0


def _to_images(pixels: np.ndarray, path: pathlib.Path) -> np.ndarray:
    side = _side(pixels.shape[1])
    if not side:
        raise DataError(f"{path}: has {pixels.shape[1]} pixels in a row; an image must be square")
    if not np.isfinite(pixels).all():
        row = int(np.argmin(np.isfinite(pixels).all(axis=1)))
        raise DataError(f"{path}: has a pixel that is no finite number in row {row}")
    images = pixels.reshape(len(pixels), side, side, -1)
    is_byte = (pixels == np.round(pixels)).all() and pixels.min() >= 0 and 1 < pixels.max() <= 255
    return images.astype(np.uint8) if is_byte else images


def read_csv(path: pathlib.Path) -> Arrays:
    """Reads a data set of CSV files: in each row a label and the pixels of a square image.

    Args:
      path: a file, with or without a header, of which a test split is drawn; or a folder with a file for training and
        one for testing, such as train.csv and test.csv, or mnist_train.csv and mnist_test.csv.

    Returns:
      The data. The label is the column of that name, or else the first one.

    Raises:
      DataError: missing, of rows that differ, or without labels.

    Source: https://www.kaggle.com/c/digit-recognizer/data.
    """
    if not path.is_dir():
        return join_splits({"train": _read_labeled(path)}, path.name)
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".csv")
    train, test = ([file for file in files if word in file.name.lower()] for word in ("train", "test"))
    if len(train) != 1 or len(test) > 1:
        names = ", ".join(file.name for file in files[:6]) or "no .csv file"
        raise DataError(f"{path}: must hold one file with train in its name and one with test; it holds {names}")
    splits = {"train": _read_labeled(train[0])}
    remarks = []
    for file in test:
        images, labels = _read_rows(file)
        if labels is None:
            remarks.append(f"{file.name} has no labels and is left out")
        else:
            splits["test"] = images, labels
    return join_splits(splits, train[0].name, remarks=tuple(remarks))
