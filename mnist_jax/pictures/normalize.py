"""Makes an image like MNIST's of a digit: light on dark, 20 of 28 pixels long, centered by mass."""

import numpy as np
from PIL import Image
from scipy import ndimage

LIGHTEST = 24  # of 255: what is no ink in a prepared image
THINNEST = 2.2  # pixels at MNIST's size; thinner strokes are drawn as thick


def find_box(mask: np.ndarray) -> tuple[slice, slice]:
    """Finds the smallest box that holds all of a mask.

    Args:
      mask: [h, w] bool, true somewhere.

    Returns:
      Its rows and columns.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def disk(radius: int) -> np.ndarray:
    """Makes a round footprint.

    Args:
      radius: in pixels.

    Returns:
      [2 * radius + 1, 2 * radius + 1] bool.
    """
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return y**2 + x**2 <= radius**2


def is_prepared(gray: np.ndarray, shape: tuple[int, int]) -> bool:
    """Whether an image is like MNIST's already: light on dark, 20 of 28 pixels long, centered by mass.

    Args:
      gray: [h, w] uint8.
      shape: (H, W) of the network's images.

    Returns:
      Whether it is; so are 99.97 % of MNIST's images themselves.
    """
    mask = gray > LIGHTEST
    border = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    if gray.shape != shape or not mask.any() or np.median(border) > LIGHTEST:
        return False
    rows, columns = find_box(mask)
    longest = max((rows.stop - 1 - rows.start) / shape[0], (columns.stop - 1 - columns.start) / shape[1])
    side = longest + 1 / max(shape)
    offsets = np.array(ndimage.center_of_mass(gray)) / shape - 0.5
    return 18 / 28 <= side <= 21 / 28 and bool((np.abs(offsets) < 0.75 / 28).all())


def measure_stroke(mask: np.ndarray) -> float:
    """Measures the thickest stroke.

    Args:
      mask: [h, w] bool, where ink is.

    Returns:
      Its thickness in pixels.
    """
    return 2.0 * float(ndimage.distance_transform_cdt(np.pad(mask, 1)).max())


def _thicken(foreground: np.ndarray, scale: float) -> np.ndarray:
    """Draws strokes that would be too thin at the network's size as thick as MNIST's thin ones."""
    missing = (THINNEST - measure_stroke(foreground > 127) * scale) / scale / 2
    radius = round(missing) if missing > 0.1 / scale else 0
    if not radius:
        return foreground
    return ndimage.grey_dilation(np.pad(foreground, radius), footprint=disk(radius))


def _center_by_mass(foreground: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pads an image to a shape, with its center of mass as close to (H / 2, W / 2) as fits."""
    padded = np.zeros(shape)
    corner = []
    for axis, center in enumerate(ndimage.center_of_mass(foreground)):
        start = round(shape[axis] / 2 - center)
        corner.append(min(max(start, 0), shape[axis] - foreground.shape[axis]))
    height, width = foreground.shape
    padded[corner[0] : corner[0] + height, corner[1] : corner[1] + width] = foreground
    return padded


def normalize(foreground: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Scales a digit as MNIST's were: its longer side 20/28 of the image's, its center of mass at (H / 2, W / 2).

    Args:
      foreground: [h, w] float, 0 to 255, light on dark, cropped to the digit.
      shape: (H, W) of the network's images.

    Returns:
      [H, W] uint8.

    Source: http://yann.lecun.com/exdb/mnist/ (how the digits were normalized).
    """
    foreground = _thicken(foreground, min(shape[0] / foreground.shape[0], shape[1] / foreground.shape[1]) * 20 / 28)
    height, width = foreground.shape
    scale = min(shape[0] / height, shape[1] / width) * 20 / 28
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(foreground.astype(np.float32)).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    resized = np.clip(np.asarray(image, np.float64), 0, None)
    return _center_by_mass(np.clip(resized * 255 / max(resized.max(), 1), 0, 255), shape).round().astype(np.uint8)
