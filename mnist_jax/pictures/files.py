"""Decodes picture files of any format and mode into arrays of a bounded size, through Pillow."""

import warnings
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from mnist_jax.errors import DataError, summarize_exception

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 50_000_000
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
