"""Reads data sets in NumPy's .npz files: Keras's mnist.npz and MedMNIST's, and others with keys like theirs."""

import pathlib
import zipfile
import zlib

import numpy as np

from mnist_jax.errors import DataError, summarize_exception
from mnist_jax.idx import MAX_IDX_BYTES
from mnist_jax.readers.arrays import Arrays, join_splits

SPLITS = ("train", "validation", "test")
KEYS = (  # (images, labels) of each split
    (("x_train", "y_train"), ("x_val", "y_val"), ("x_test", "y_test")),  # Keras
    (("train_images", "train_labels"), ("val_images", "val_labels"), ("test_images", "test_labels")),  # MedMNIST
    (("images", "labels"), ("", ""), ("", "")),
    (("X", "y"), ("", ""), ("", "")),
)

# What zipfile and NumPy raise for a damaged file.
_DAMAGED = (OSError, ValueError, EOFError, KeyError, SyntaxError, RuntimeError, zipfile.BadZipFile, zlib.error)


def _read_arrays(path: pathlib.Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Some of a file's arrays; nothing is unpickled, and nothing larger than the limit is unpacked."""
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        if sum(sizes[f"{name}.npy"] for name in names) > MAX_IDX_BYTES:
            raise DataError(f"{path}: its arrays are more than {MAX_IDX_BYTES} bytes")
        for name in names:
            with archive.open(f"{name}.npy") as file:
                headers = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
                read_header = headers[np.lib.format.read_magic(file) != (1, 0)]
                shape, _, dtype = read_header(file)
                if dtype.hasobject or dtype.names:
                    raise DataError(f"{path}: {name} holds Python objects, which are not read; save it as numbers")
                if int(np.prod(shape, dtype=object)) * dtype.itemsize != sizes[f"{name}.npy"] - file.tell():
                    raise DataError(f"{path}: {name} does not hold the {shape} that its header states")
            with archive.open(f"{name}.npy") as file:
                arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays


def read_npz(path: pathlib.Path) -> Arrays:
    """Reads a data set of a .npz file.

    Args:
      path: the file, with the keys of Keras's mnist.npz (x_train, y_train, x_test, y_test) or MedMNIST's
        (train_images, train_labels, val_images, ...).

    Returns:
      The data; a validation split that the file has is used as it is.

    Raises:
      DataError: missing, damaged, or with other keys.

    Source: https://keras.io/api/datasets/mnist and https://medmnist.com.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = {name.removesuffix(".npy") for name in archive.namelist()}
        keys = next((keys for keys in KEYS if set(keys[0]) <= found), None)
        if keys is None:
            raise DataError(
                f"{path}: holds {', '.join(sorted(found))[:120] or 'nothing'}; it must hold x_train, y_train, x_test "
                "and y_test, or train_images, train_labels, test_images and test_labels"
            )
        splits = [pair for pair in keys if set(pair) <= found]
        arrays = _read_arrays(path, tuple(name for pair in splits for name in pair))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DataError:
        raise
    except _DAMAGED as error:
        raise DataError(f"{path}: not a .npz file of arrays ({summarize_exception(error)})") from None
    names = [name for name, pair in zip(SPLITS, keys, strict=True) if pair in splits]
    pairs = [(arrays[images], _to_labels(arrays[labels], path, labels)) for images, labels in splits]
    return join_splits(dict(zip(names, pairs, strict=True)), path.name)


def _to_labels(labels: np.ndarray, path: pathlib.Path, name: str) -> np.ndarray:
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: {name} is {labels.dtype} of shape {labels.shape}; labels are [N] or [N, 1] integers")
    return labels
