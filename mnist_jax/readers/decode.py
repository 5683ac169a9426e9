"""Decodes the pictures of a data set into one array, and says which ones can't be."""

import concurrent.futures
import io
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from mnist_jax.errors import DataError
from mnist_jax.idx import MAX_IDX_BYTES
from mnist_jax.pictures.files import decode_picture

Source = pathlib.Path | tuple[str, bytes]  # a file, or a name and the bytes of one


def _name(source: Source) -> str:
    return source[0] if isinstance(source, tuple) else str(source)


def _decode(source: Source, size: int) -> np.ndarray | DataError:
    from mnist_jax.pictures.paper import simplify_channels  # with scipy.ndimage, which most runs do not need

    try:
        if isinstance(source, tuple):
            pixels, _ = decode_picture(io.BytesIO(source[1]), source[0])
        else:
            with source.open("rb") as file:
                pixels, _ = decode_picture(file, str(source))
    except OSError as error:
        return DataError(f"{source}: can't be read: {error.strerror or error}")
    except DataError as error:
        return error
    pixels = simplify_channels(pixels)
    if not size or pixels.shape[:2] == (size, size):
        return pixels
    return resize(pixels, size)


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resizes a picture bilinearly.

    Args:
      pixels: [H, W, 1] or [H, W, 3] uint8.
      size: new height and width.

    Returns:
      [size, size, 1 or 3] uint8.
    """
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return np.atleast_3d(np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0)))


def decode_all(sources: Sequence[Source], size: int) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Decodes pictures: gray if all of them are, else RGB.

    Args:
      sources: files, or names and bytes.
      size: height and width to resize to; 0 leaves them as they are.

    Returns:
      [N, H, W, C] uint8; the rows of sources that could be read, [N]; remarks on the others.

    Raises:
      DataError: none can be read, their sizes differ, or they are too many to hold in memory.
    """
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = list(pool.map(lambda source: _decode(source, size), sources))
    rows = [row for row, one in enumerate(decoded) if not isinstance(one, DataError)]
    broken = [one for one in decoded if isinstance(one, DataError)]
    if not rows:
        raise broken[0] if broken else DataError("there are no pictures")
    pictures = [one for one in decoded if not isinstance(one, DataError)]
    for row, picture in zip(rows, pictures, strict=True):
        if picture.shape[:2] != pictures[0].shape[:2]:
            sizes = ["x".join(map(str, one.shape[1::-1])) for one in (pictures[0], picture)]
            raise DataError(
                f"{_name(sources[rows[0]])} has {sizes[0]} pixels, {_name(sources[row])} has {sizes[1]}; "
                "resize them all with image_size=28"
            )
    channels = max(picture.shape[2] for picture in pictures)
    if len(pictures) * pictures[0][..., 0].size * channels > MAX_IDX_BYTES:
        raise DataError(f"{len(pictures)} pictures of this size are more than {MAX_IDX_BYTES} bytes; use image_size=28")
    images = np.stack([np.broadcast_to(picture, (*picture.shape[:2], channels)) for picture in pictures])
    remarks = [f"{one}; it is left out" for one in broken[:3]]
    remarks += [f"{len(broken) - 3} more pictures can't be read and are left out"] * (len(broken) > 3)
    return images, np.array(rows), tuple(remarks)
