"""Reads the digits in files, folders and standard input: pictures, and IDX files of images."""

import glob
import io
import os
import pathlib
import sys
from collections.abc import Iterable

import numpy as np

from mnist_jax.errors import DataError
from mnist_jax.files import expand_user
from mnist_jax.idx import DTYPES, read_idx
from mnist_jax.pictures.digits import Digit, read_digits
from mnist_jax.pictures.files import MAX_PIXELS, SUFFIXES, decode_picture

MAX_BYTES = 500_000_000

STANDARD_INPUT = "-"
_GZIP = b"\x1f\x8b"


def _read_idx_images(path: pathlib.Path, shape: tuple[int, int]) -> list[Digit]:
    images = read_idx(path, max_bytes=MAX_PIXELS)
    if images.ndim < 3:
        raise DataError(f"{path}: holds labels, not images")
    if images.dtype != np.uint8:
        raise DataError(f"{path}: holds images of {images.dtype}; those to read must be of bytes")
    if images.size == 0:
        raise DataError(f"{path}: holds no image")
    names = [f"{path}[{i}]" for i in range(len(images))]
    if images.shape[1:] == shape:
        border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
        if np.median(border) < 128:  # a data set's images: light on dark
            box = (0, 0, shape[1], shape[0])
            doubts = np.where(images.max(axis=(1, 2)) == images.min(axis=(1, 2)), "blank", "").tolist()
            rows = zip(images, names, doubts, strict=True)
            return [Digit(image, box, name=name, doubt=doubt) for image, name, doubt in rows]
    return [read_digits(image, shape, name, single=True)[0] for image, name in zip(images, names, strict=True)]


def read_pictures(path: str | os.PathLike[str], shape: tuple[int, int], single: bool = False) -> list[Digit]:
    """Reads the digits in a file and prepares them for a network.

    Args:
      path: a PNG, JPEG, WebP, BMP, TIFF or GIF picture, of a GIF its first frame; - for one on standard input; or an
        IDX file of images, gzipped or not.
      shape: (H, W) of the network's images.
      single: whether a picture shows one digit; the largest is taken then.

    Returns:
      The digits in reading order.

    Raises:
      DataError: missing, empty, not a picture, too large, or without a digit.
    """
    if not os.fspath(path):
        raise DataError("the name of a file is empty")
    name = os.fspath(path)
    try:
        if name == STANDARD_INPUT:
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise DataError(f"standard input: more than {MAX_BYTES} bytes")
            pixels, steps = decode_picture(io.BytesIO(content), "standard input")
        else:
            with open(path, "rb") as file:
                magic = file.read(3)
                file.seek(0)
                if magic.startswith(_GZIP) or (magic[:2] == b"\0\0" and magic[-1] in DTYPES):
                    return _read_idx_images(pathlib.Path(path), shape)
                pixels, steps = decode_picture(file, name)
    except IsADirectoryError:
        raise DataError(f"{path}: a folder that holds no picture ({', '.join(SUFFIXES)})") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror or error}") from None
    return [digit._replace(steps=(*steps, *digit.steps)) for digit in read_digits(pixels, shape, name, single)]


def expand_paths(names: Iterable[str]) -> list[str]:
    """Replaces folders by the pictures in them, and patterns such as *.png by what fits them.

    Args:
      names: files, folders, patterns, or - for standard input.

    Returns:
      Files, sorted within each folder and pattern; what does not exist is left, for a message.
    """
    paths = []
    for name in names:
        if name != STANDARD_INPUT and name and expand_user(name).is_dir():
            inside = sorted(path for path in expand_user(name).iterdir() if not path.name.startswith("."))
            found = [str(path) for path in inside if path.suffix.lower() in SUFFIXES]
            paths += found or [name]
        elif glob.has_magic(name) and not os.path.lexists(name):
            paths += sorted(glob.glob(name)) or [name]
        else:
            paths.append(name)
    return paths
