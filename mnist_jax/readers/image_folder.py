"""Reads data sets that lie as pictures in folders named after their classes."""

import pathlib
import re

import numpy as np

from mnist_jax.errors import DataError
from mnist_jax.pictures.files import SUFFIXES
from mnist_jax.readers.arrays import Arrays, group_splits, join_splits
from mnist_jax.readers.decode import decode_all

SPLITS = {  # names of folders -> split
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
MAX_PICTURES = 2_000_000


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Sorts 2 before 10."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def _folders(path: pathlib.Path) -> list[pathlib.Path]:
    inside = [one for one in path.iterdir() if one.is_dir() and not one.name.startswith(".")]
    return sorted(inside, key=lambda one: _natural(one.name))


def _list_pictures(folder: pathlib.Path) -> list[pathlib.Path]:
    inside = [one for one in folder.rglob("*") if one.suffix.lower() in SUFFIXES and not one.name.startswith(".")]
    return sorted(inside, key=lambda one: _natural(one.as_posix()))


def is_image_folder(path: pathlib.Path) -> bool:
    """Tells whether a folder has class sub-folders of pictures.

    Args:
      path: the folder.

    Returns:
      Whether it does.
    """
    return any(one.suffix.lower() in SUFFIXES for folder in _folders(path)[:20] for one in folder.rglob("*"))


def read_image_folder(path: pathlib.Path, image_size: int = 0) -> Arrays:
    """Reads pictures from class sub-folders.

    Args:
      path: holds CLASS/PICTURE, of which a test split is drawn, or train/CLASS/PICTURE, test/CLASS/PICTURE and perhaps
        val/CLASS/PICTURE.
      image_size: height and width to resize to; 0: as they are, all alike.

    Returns:
      The data; class names are the folders', in natural order.

    Raises:
      DataError: missing, without pictures, or of sizes that differ.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; dataset=images:FOLDER names one with a sub-folder for each class")
    roots = {SPLITS[folder.name.lower()]: folder for folder in _folders(path) if folder.name.lower() in SPLITS}
    if "train" not in roots:
        roots = {"train": path}
    names = sorted({folder.name for root in roots.values() for folder in _folders(root)}, key=_natural)
    files, labels, splits = [], [], []
    for split, root in roots.items():
        for label, name in enumerate(names):
            inside = _list_pictures(root / name) if (root / name).is_dir() else []
            files += inside
            labels += [label] * len(inside)
            splits += [split] * len(inside)
    if "train" not in splits:
        raise DataError(f"{path}: holds no pictures in class sub-folders, such as {path}/3/one.png")
    if len(files) > MAX_PICTURES:
        raise DataError(f"{path}: holds {len(files)} pictures; the limit is {MAX_PICTURES}")
    images, rows, remarks = decode_all(files, image_size)
    parts = group_splits(images, np.array(labels)[rows], np.array(splits)[rows])
    if "train" not in parts:
        raise DataError(f"{path}: none of its training pictures can be read")
    return join_splits(parts, path.name, tuple(names), remarks)
