"""Pictures that people bring, made into what a network knows: grey, light on dark, cropped, centred by mass."""

import os
import pathlib
import warnings
from typing import NamedTuple

import numpy as np

from mnist_jax.data import read_idx
from mnist_jax.errors import DataError, first_line

MAX_PIXELS = 50_000_000


class Picture(NamedTuple):
    """One image for a network, and what was done to it."""

    name: str  # the file, with [i] for image i of an IDX file
    image: np.ndarray  # [H, W] uint8, light on dark
    done: tuple[str, ...]  # in order; empty where it is as it was


def _read_picture(path: pathlib.Path) -> tuple[np.ndarray, list[str]]:
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a broken picture is told in one line, by us
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"{path}: {image.width}x{image.height} pixels are more than {MAX_PIXELS}; shrink it"
                    )
                if getattr(image, "n_frames", 1) > 1:
                    raise DataError(f"{path}: animated, with {image.n_frames} frames; save one of them as a still")
                image.load()
                image = ImageOps.exif_transpose(image)
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"{path}: more than {MAX_PIXELS} pixels; shrink it") from None
    except Exception as error:  # Pillow raises many kinds for a broken file
        raise DataError(f"{path}: can't be read as PNG or JPEG ({first_line(error)})") from None
    done = []
    if image.mode.startswith("I") or image.mode == "F":
        done.append("16 bits to 8")
        return (np.clip(np.asarray(image, np.float64), 0, 65535) / 257).round().astype(np.uint8), done
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"), np.float64)
        grey = np.asarray(image.convert("L"), np.float64)
        light = alpha.sum() > 0 and (grey * alpha).sum() / alpha.sum() > 127
        ground = Image.new("RGBA", image.size, "black" if light else "white")
        image = Image.alpha_composite(ground, image)
        done.append(f"laid on {'black' if light else 'white'}")
    if image.mode not in ("L", "1"):
        done.append("made grey")
    return np.asarray(image.convert("L")), done


def prepare(grey: np.ndarray, shape: tuple[int, int], name: str = "image") -> Picture:
    """Makes a picture of one digit into an image as MNIST's were made.

    Args:
      grey: [h, w] uint8, of any size, dark on light or light on dark.
      shape: (H, W) of the images that the network knows.
      name: what to call it.

    Returns:
      A Picture. One of the right size and light on dark is left as it is. Otherwise it is inverted if its border is
      light, its ground made black, cropped to the digit, scaled so that the longer side is 20/28 of the frame's, and
      moved so that its centre of mass is at (H / 2, W / 2), where MNIST's are.

    Raises:
      DataError: it is blank, or would be at that size.

    Source: http://yann.lecun.com/exdb/mnist/ (how the digits were normalised).
    """
    from PIL import Image

    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ground = float(np.median(border))
    done = []
    if grey.shape == shape and ground < 128 and grey.max() > ground:
        return Picture(name, np.ascontiguousarray(grey), ())
    ink = grey.astype(np.float64)
    if ground > 127:
        ink, ground = 255 - ink, 255 - ground
        done.append("inverted")
    ink = np.maximum(ink - ground, 0)
    if ink.max() < 16:
        raise DataError(f"{name}: blank, its pixels are all alike; it must show one digit on a plain ground")
    ink *= 255 / ink.max()
    rows, columns = (np.flatnonzero((ink > 64).any(axis=axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    done.append(f"cropped to {ink.shape[1]}x{ink.shape[0]}")

    ratio = min(shape[0] / ink.shape[0], shape[1] / ink.shape[1]) * 20 / 28
    size = [max(1, round(side * ratio)) for side in ink.shape]
    small = Image.fromarray(ink.astype(np.float32)).resize(size[::-1], Image.Resampling.BICUBIC, reducing_gap=3.0)
    ink = np.clip(np.asarray(small, np.float64), 0, None)
    if ink.max() < 16:
        raise DataError(
            f"{name}: its digit is too faint at {shape[1]}x{shape[0]} pixels; draw thicker lines, or crop it"
        )
    ink *= 255 / ink.max()
    total = ink.sum()
    framed = np.zeros(shape)
    corner = []
    for axis in (0, 1):
        centre = (ink.sum(axis=1 - axis) * np.arange(ink.shape[axis])).sum() / total
        start = round(shape[axis] / 2 - centre)
        corner.append(min(max(start, 0), shape[axis] - ink.shape[axis]))
    framed[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]] = ink
    done.append(f"centred by mass into {shape[1]}x{shape[0]}")
    return Picture(name, framed.round().astype(np.uint8), tuple(done))


def read_pictures(path: str | os.PathLike, shape: tuple[int, int]) -> list[Picture]:
    """Reads the images of one file, prepared for a network.

    Args:
      path: a PNG or JPEG image, or an IDX file of images, gzipped or not.
      shape: (H, W) of the images that the network knows.

    Returns:
      A Picture for each image.

    Raises:
      DataError: missing, empty, not an image, too large, animated or blank.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from None
    if not start:
        raise DataError(f"{path}: an empty file")
    if start.startswith(b"\x89PNG") or start.startswith(b"\xff\xd8\xff"):
        grey, done = _read_picture(path)
        picture = prepare(grey, shape, str(path))
        return [picture._replace(done=(*done, *picture.done))]
    if start.startswith((b"\x00\x00\x08", b"\x1f\x8b")):
        images = read_idx(path, MAX_PIXELS)
        if images.ndim != 3:
            raise DataError(f"{path}: holds labels, not images")
        if images.size == 0:
            raise DataError(f"{path}: holds no image")
        return [prepare(image, shape, f"{path}[{i}]") for i, image in enumerate(images)]
    raise DataError(f"{path}: neither PNG, JPEG nor IDX")
