"""Tells which reader fits a file or folder."""

import pathlib

from mnist_jax.errors import DataError
from mnist_jax.readers.idx_folder import find_idx_files
from mnist_jax.readers.image_folder import is_image_folder


def suggest_prefix(path: pathlib.Path) -> str:
    """Finds the prefix that fits a file or folder.

    Args:
      path: that exists.

    Returns:
      Such as idx:, which is also for a folder that no reader fits; empty for a file that no reader fits.
    """
    by_suffix = {".npz": "npz:", ".csv": "csv:", ".parquet": "parquet:"}
    if path.is_file():
        return by_suffix.get(path.suffix.lower(), "")
    if next(path.rglob("*.parquet"), None):
        return "parquet:"
    if next(path.glob("*.csv"), None):
        return "csv:"
    try:
        find_idx_files(path)
        return "idx:"
    except DataError:
        return "images:" if is_image_folder(path) else "idx:"
