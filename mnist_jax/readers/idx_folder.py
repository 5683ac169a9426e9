"""Finds the four IDX files of a data set by what they are, however they were unpacked or renamed."""

import pathlib
import re
import string
from typing import Any

import numpy as np

from mnist_jax.errors import DataError
from mnist_jax.idx import IDX_FILES, read_idx
from mnist_jax.readers.arrays import Arrays

MAX_DEPTH = 3
MAX_FILES = 1000
_NOT_IDX = (".png", ".jpg", ".jpeg", ".csv", ".txt", ".md", ".json", ".npz", ".parquet", ".zip", ".mat", ".pt")
_EMNIST_NAMES = {  # https://www.nist.gov/itl/products-and-services/emnist-dataset: the mapping files
    "letters": tuple(string.ascii_uppercase),  # labels from 1
    "balanced": tuple(string.digits + string.ascii_uppercase + "abdefghnqrt"),
    "bymerge": tuple(string.digits + string.ascii_uppercase + "abdefghnqrt"),
    "byclass": tuple(string.digits + string.ascii_uppercase + string.ascii_lowercase),
}


def _part_of(path: pathlib.Path, root: pathlib.Path) -> str | None:
    """Which of the four arrays a file holds, by its name or that of the folder that it was unpacked into."""
    for name in (path.name.lower(), path.relative_to(root).as_posix().lower()):
        kind = "images" if "image" in name else "labels" if "label" in name else None
        split = "train" if "train" in name else "test" if re.search(r"test|t10k", name) else None
        if kind and split and path.suffix.lower() not in _NOT_IDX:
            return f"{split}_{kind}"
    return None


def _list_files(root: pathlib.Path) -> list[pathlib.Path]:
    files, folders = [], [root]
    for _ in range(MAX_DEPTH + 1):
        inside = [path for folder in folders for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        files += [path for path in inside if path.is_file()]
        folders = [path for path in inside if path.is_dir()]
        if len(files) > MAX_FILES:
            break
    return files[:MAX_FILES]


def find_idx_files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Finds the four files of a data set.

    Args:
      folder: that holds them, or a folder and what the names begin with, such as emnist/emnist-letters.

    Returns:
      From train_images, train_labels, test_images and test_labels to paths.

    Raises:
      DataError: one is missing, or there are two that may be meant.
    """
    root, prefix = (folder, "") if folder.is_dir() else (folder.parent, folder.name.lower())
    files = _list_files(root) if root.is_dir() and (folder.is_dir() or prefix) else []
    files = [path for path in files if path.name.lower().startswith(prefix)]
    if not folder.is_dir() and not files:
        raise DataError(f"{folder}: no such folder; dataset=idx:FOLDER names one that holds four IDX files")
    candidates: dict[str, list[pathlib.Path]] = {part: [] for part in IDX_FILES}
    for path in files:
        if part := _part_of(path, root):
            candidates[part].append(path)
    found = {}
    for part, paths in candidates.items():
        plain = {path for path in paths if path.suffix != ".gz"}
        paths = [path for path in paths if path.suffix != ".gz" or path.with_suffix("") not in plain]
        if not paths:
            names = ", ".join(path.name for path in files[:6]) or "nothing"
            raise DataError(
                f"{folder}: {IDX_FILES[part]} (or {IDX_FILES[part]}.gz) is missing; the folder needs "
                f"{', '.join(IDX_FILES.values())}, it holds {names}"
            )
        if len(paths) > 1:
            one, other = (path.relative_to(root) for path in paths[:2])
            raise DataError(
                f"{folder}: holds two files of {part.replace('_', ' ')}, {one} and {other}; remove one, or name what "
                f"the files' names begin with, as in dataset=idx:{root}/{re.split('train|test|t10k', one.name)[0]}"
            )
        found[part] = paths[0]
    return found


def to_image_array(images: np.ndarray, path: pathlib.Path) -> np.ndarray:
    """Makes uint8 of integers from 0 to 255; floats are left as they are.

    Args:
      images: [N, H, W] or [N, H, W, C].
      path: for the message.

    Returns:
      The images, uint8 or float32.

    Raises:
      DataError: other integers.
    """
    if np.issubdtype(images.dtype, np.floating):
        return images.astype(np.float32)
    if images.dtype != np.uint8 and images.size and not 0 <= images.min() <= images.max() <= 255:
        raise DataError(
            f"{path}: its pixels are integers from {images.min()} to {images.max()}; they must be from 0 to 255, "
            "or floats"
        )
    return images.astype(np.uint8, copy=False)


def read_idx_folder(folder: pathlib.Path) -> Arrays:
    """Reads the four IDX files of a data set.

    Args:
      folder: that holds them, or a folder and what the names begin with.

    Returns:
      The data; EMNIST's images upright, QMNIST's labels from the first column of its matrix.

    Raises:
      DataError: a file is missing, damaged, or does not fit the others.
    """
    paths = find_idx_files(folder)
    arrays: dict[str, Any] = {part: read_idx(path) for part, path in paths.items()}
    remarks = []
    for part, path in paths.items():
        array, is_image = arrays[part], part.endswith("images")
        if is_image != (array.ndim > 2):
            wanted = 3 if is_image else 1
            raise DataError(f"{path}: holds {array.ndim} dimensions, {part} have {wanted}; are the files swapped?")
        if not is_image and not np.issubdtype(array.dtype, np.integer):
            raise DataError(f"{path}: holds {array.dtype}; labels are integers")
        arrays[part] = to_image_array(array, path) if is_image else array[:, 0] if array.ndim == 2 else array
    name = paths["train_images"].name.lower()
    class_names = None
    if name.startswith("emnist-"):
        remarks.append("EMNIST's images lie on their side, and are turned upright")
        for part in ("train_images", "test_images"):
            arrays[part] = np.ascontiguousarray(arrays[part].swapaxes(1, 2))
        kind = name.split("-")[1]
        class_names = _EMNIST_NAMES.get(kind)
        if kind == "letters":
            remarks.append("EMNIST's letters are labeled from 1, and are numbered from 0 here")
            for part in ("train_labels", "test_labels"):
                arrays[part] = arrays[part].astype(np.int32) - 1
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if len(images) != len(labels):
            raise DataError(f"{paths[f'{split}_labels']}: {len(labels)} labels for {len(images)} images")
        if images.size == 0:
            raise DataError(f"{paths[f'{split}_images']}: holds no image")
        if class_names and not 0 <= labels.min() <= labels.max() < len(class_names):
            raise DataError(
                f"{paths[f'{split}_labels']}: labels are from {labels.min()} to {labels.max()}, "
                f"there are {len(class_names)} classes"
            )
    if arrays["train_images"].shape[1:] != arrays["test_images"].shape[1:]:
        raise DataError(f"{paths['test_images']}: its images differ in size from the training images")
    return Arrays(**arrays, class_names=class_names, remarks=tuple(remarks))
