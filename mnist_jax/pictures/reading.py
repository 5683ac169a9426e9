"""Reads pictures from files: PNG, JPEG, WebP, BMP, TIFF and GIF through Pillow, and IDX files of images."""

import glob
import io
import os
import pathlib
import sys
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from mnist_jax.errors import DataError, summarize_exception
from mnist_jax.files import expand_user
from mnist_jax.idx import read_idx
from mnist_jax.pictures.digits import NO_DIGIT, Digit, find_digits

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 50_000_000
MAX_BYTES = 500_000_000
WIDEST = 2048  # pixels; larger pictures are reduced as soon as they are decoded
SUFFIXES = {  # of the files of a folder that are read -> Pillow's name
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".gif": "GIF",
}
STANDARD_INPUT = "-"
_IDX_TYPES = (b"\x08", b"\x09", b"\x0b", b"\x0c", b"\x0d", b"\x0e")
_GZIP = b"\x1f\x8b"
_HEIC = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftyphevc", b"ftypavif")


def _reduce(image: "Image.Image") -> "Image.Image":
    factor = -(-max(image.size) // WIDEST)
    return image.reduce(factor) if factor > 1 else image


def to_pixels(image: "Image.Image") -> tuple[np.ndarray, list[str]]:
    """Turns a PIL image of any mode into an array, upright and of a bounded size.

    Args:
      image: the image.

    Returns:
      [h, w, C] uint8 with 1 channel (gray), 3 (red, green, blue) or 4 (and opacity); what was done.
    """
    from PIL import Image, ImageOps

    steps = []
    if image.mode.startswith("I") or image.mode == "F":
        steps.append("converted from 16 to 8 bits")
        values = np.asarray(image)
        values = np.clip(values, 0, 65535).astype(np.uint16) if values.dtype != np.uint16 else values
        orientation = image.getexif()
        image = Image.fromarray((values >> 8).astype(np.uint8))
        image.info["exif"] = orientation.tobytes()
    elif "A" in image.getbands() or "transparency" in image.info:
        steps.append("laid on paper")
        image = image if image.mode == "RGBA" else image.convert("RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return np.atleast_3d(np.asarray(ImageOps.exif_transpose(_reduce(image)))), steps


def _decode(file: BinaryIO, name: str) -> tuple[np.ndarray, list[str]]:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the DataError below is enough
            with Image.open(file, formats=sorted(set(SUFFIXES.values()))) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"{name}: {image.width}x{image.height} pixels are more than {MAX_PIXELS}; make it smaller"
                    )
                frames = getattr(image, "n_frames", 1)
                image.draft(None, (WIDEST, WIDEST))  # a JPEG is decoded at a fraction of its size
                image.load()
                pixels, steps = to_pixels(image)
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"{name}: more than {MAX_PIXELS} pixels; make it smaller") from None
    except Exception as error:  # Pillow raises many types for a broken file
        raise DataError(f"{name}: can't be read as a picture ({summarize_exception(error)})") from None
    return pixels, [f"first of {frames} frames", *steps] if frames > 1 else steps


def decode_picture(file: BinaryIO, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decodes a picture: upright, its longer side at most 2048 pixels or halved until it is.

    Args:
      file: open for reading, at its start.
      name: for error messages.

    Returns:
      [h, w, C] uint8 with 1 channel (gray), 3 (red, green, blue) or 4 (and opacity); what was done.

    Raises:
      DataError: empty, not a picture, damaged, or too large.
    """
    magic = file.read(16)
    file.seek(0)
    if not magic:
        raise DataError(f"{name}: an empty file")
    if magic[4:12] in _HEIC:
        raise DataError(f"{name}: HEIC or AVIF can't be read; save it as JPEG or PNG, as in: magick {name} digit.jpg")
    known = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"GIF8")
    if not magic.startswith(known):
        raise DataError(f"{name}: neither PNG, JPEG, WebP, BMP, TIFF, GIF nor IDX")
    pixels, steps = _decode(file, name)
    return pixels, tuple(steps)


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
    digits = []
    for image, name in zip(images, names, strict=True):
        found = find_digits(image, shape)
        if not found:
            raise DataError(f"{name}: {NO_DIGIT}")
        digits.append(max(found, key=lambda digit: digit.height)._replace(name=name))
    return digits


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
                if magic.startswith(_GZIP) or (magic[:2] == b"\0\0" and magic[2:] in _IDX_TYPES):
                    return _read_idx_images(pathlib.Path(path), shape)
                pixels, steps = decode_picture(file, name)
    except IsADirectoryError:
        raise DataError(f"{path}: a folder that holds no picture ({', '.join(SUFFIXES)})") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror or error}") from None
    digits = find_digits(pixels, shape)
    if not digits:
        raise DataError(f"{name}: {NO_DIGIT}")
    if single:
        digits = [max(digits, key=lambda digit: digit.height)]
    return [digit._replace(name=name, steps=(*steps, *digit.steps)) for digit in digits]


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
