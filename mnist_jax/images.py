"""Turns photos and scans of digits into images like MNIST's: grayscale, light on dark, cropped, centered by mass."""

import os
import pathlib
import warnings
from typing import NamedTuple

import numpy as np

from mnist_jax.errors import DataError, summarize_exception
from mnist_jax.idx import read_idx

MAX_PIXELS = 50_000_000


class Picture(NamedTuple):
    """An image for a network, and how it was preprocessed."""

    name: str  # the file, with [i] for image i of an IDX file
    image: np.ndarray  # [H, W] uint8, light on dark
    preprocessing_steps: tuple[str, ...]  # in order; empty if the image is unchanged


def _read_png_or_jpeg(path: pathlib.Path) -> tuple[np.ndarray, list[str]]:
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the DataError below is enough
            with Image.open(path, formats=("PNG", "JPEG")) as file:
                if file.width * file.height > MAX_PIXELS:
                    raise DataError(
                        f"{path}: {file.width}x{file.height} pixels are more than {MAX_PIXELS}; make it smaller"
                    )
                if (frames := getattr(file, "n_frames", 1)) > 1:
                    raise DataError(f"{path}: animated, with {frames} frames; save one of them as a still image")
                file.load()
                image: Image.Image = ImageOps.exif_transpose(file)
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"{path}: more than {MAX_PIXELS} pixels; make it smaller") from None
    except Exception as error:  # Pillow raises many types for a broken file
        raise DataError(f"{path}: can't be read as PNG or JPEG ({summarize_exception(error)})") from None
    steps = []
    if image.mode.startswith("I") or image.mode == "F":
        steps.append("converted from 16 to 8 bits")
        return (np.clip(np.asarray(image, np.float64), 0, 65535) / 257).round().astype(np.uint8), steps
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"), np.float64)
        grayscale = np.asarray(image.convert("L"), np.float64)
        is_light = alpha.sum() > 0 and (grayscale * alpha).sum() / alpha.sum() > 127
        background = "black" if is_light else "white"
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
        steps.append(f"placed on a {background} background")
    if image.mode not in ("L", "1"):
        steps.append("converted to grayscale")
    return np.asarray(image.convert("L")), steps


def _center_by_mass(foreground: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pads an image to a shape, with its center of mass as close to (H / 2, W / 2) as fits."""
    padded = np.zeros(shape)
    corner = []
    for axis in (0, 1):
        center = (foreground.sum(axis=1 - axis) * np.arange(foreground.shape[axis])).sum() / foreground.sum()
        start = round(shape[axis] / 2 - center)
        corner.append(min(max(start, 0), shape[axis] - foreground.shape[axis]))
    height, width = foreground.shape
    padded[corner[0] : corner[0] + height, corner[1] : corner[1] + width] = foreground
    return padded


def preprocess_digit(grayscale: np.ndarray, shape: tuple[int, int], name: str = "image") -> Picture:
    """Preprocesses a picture of one digit as MNIST's images were.

    A picture of the right shape that is light on dark is left as it is. Any other is inverted if its border is light,
    its background set to black, cropped to the digit, scaled so that the longer side is 20/28 of the image's, and
    moved so that the center of mass is at (H / 2, W / 2), as in MNIST.

    Args:
      grayscale: [h, w] uint8, of any size, dark on light or light on dark.
      shape: (H, W) of the network's images.
      name: of the Picture, and for error messages.

    Returns:
      A Picture.

    Raises:
      DataError: it is blank, or would be at that size.

    Source: http://yann.lecun.com/exdb/mnist/ (how the digits were normalized).
    """
    from PIL import Image

    border = np.concatenate([grayscale[0], grayscale[-1], grayscale[:, 0], grayscale[:, -1]])
    background = float(np.median(border))
    if grayscale.shape == shape and background < 128 and grayscale.max() > background:
        return Picture(name, np.ascontiguousarray(grayscale), ())
    steps = []
    foreground = grayscale.astype(np.float64)
    if background > 127:
        foreground, background = 255 - foreground, 255 - background
        steps.append("inverted")
    foreground = np.maximum(foreground - background, 0)
    if foreground.max() < 16:
        raise DataError(f"{name}: blank, all pixels are alike; it must show one digit on a plain background")
    foreground *= 255 / foreground.max()
    rows, columns = (np.flatnonzero((foreground > 64).any(axis=axis)) for axis in (1, 0))
    foreground = foreground[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = foreground.shape
    steps.append(f"cropped to {width}x{height}")
    scale = min(shape[0] / height, shape[1] / width) * 20 / 28
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = Image.fromarray(foreground.astype(np.float32)).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    foreground = np.clip(np.asarray(resized, np.float64), 0, None)
    if foreground.max() < 16:
        raise DataError(
            f"{name}: the digit is too faint at {shape[1]}x{shape[0]} pixels; draw thicker lines, or crop the picture"
        )
    foreground *= 255 / foreground.max()
    steps.append(f"centered by mass in {shape[1]}x{shape[0]}")
    return Picture(name, _center_by_mass(foreground, shape).round().astype(np.uint8), tuple(steps))


def read_pictures(path: str | os.PathLike[str], shape: tuple[int, int]) -> list[Picture]:
    """Reads the images of a file and preprocesses them for a network.

    Args:
      path: a PNG or JPEG image, or an IDX file of images, gzipped or not.
      shape: (H, W) of the network's images.

    Returns:
      A Picture for each image.

    Raises:
      DataError: missing, empty, not an image, too large, animated or blank.
    """
    if not os.fspath(path):
        raise DataError("the name of a file is empty")
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            magic = file.read(8)
    except IsADirectoryError:
        raise DataError(f"{path}: a folder; name the files in it, as in {path}/*.png") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from None
    if not magic:
        raise DataError(f"{path}: an empty file")
    if magic.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        grayscale, steps = _read_png_or_jpeg(path)
        picture = preprocess_digit(grayscale, shape, str(path))
        return [picture._replace(preprocessing_steps=(*steps, *picture.preprocessing_steps))]
    if magic.startswith((b"\x00\x00\x08", b"\x1f\x8b")):
        images = read_idx(path, max_bytes=MAX_PIXELS)
        if images.ndim != 3:
            raise DataError(f"{path}: holds labels, not images")
        if images.size == 0:
            raise DataError(f"{path}: holds no image")
        return [preprocess_digit(image, shape, f"{path}[{i}]") for i, image in enumerate(images)]
    raise DataError(f"{path}: neither PNG, JPEG nor IDX")
