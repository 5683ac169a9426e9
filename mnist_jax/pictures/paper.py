"""Removes the paper from a picture: how far each pixel is from the paper around it, whatever the light and the pen."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage


class Contrast(NamedTuple):
    """How far each pixel is from the paper around it."""

    ink: np.ndarray  # [h, w] float32: 0 is paper, 255 is black on white
    noise: float  # standard deviation of ink where there is only paper
    step: np.ndarray  # [h, w] float32: the largest difference among the 5x5 pixels around


def _slide(values: np.ndarray, window: int, reduce: np.ufunc) -> np.ndarray:
    """The largest (np.maximum) or smallest value of each window along the first axis, in log(window) passes."""
    size = 1
    while 2 * size <= window:
        values = reduce(values[:-size], values[size:])
        size *= 2
    return reduce(values[: size - window], values[window - size :]) if window > size else values


def _slide_square(values: np.ndarray, window: int, reduce: np.ufunc) -> np.ndarray:
    return _slide(_slide(values, window, reduce).swapaxes(0, 1), window, reduce).swapaxes(0, 1)


def estimate_paper(pixels: np.ndarray, window: int) -> np.ndarray:
    """What a picture looks like without dark marks narrower than a window (a gray-scale closing).

    Shadows, desks and borders are wider, or reach the edge of the picture: they stay as they are, edges included.

    Args:
      pixels: [h, w] or [h, w, C].
      window: odd, in pixels.

    Returns:
      The paper, of the same shape.

    Source: Gonzalez and Woods, Digital Image Processing, chapter 9 (closing, bottom-hat).
    """
    pad = window // 2
    around = [(2 * pad, 2 * pad), (2 * pad, 2 * pad), (0, 0)][: pixels.ndim]
    pixels = _slide_square(np.pad(pixels, around, "edge"), 2 * pad + 1, np.maximum)
    return _slide_square(pixels, 2 * pad + 1, np.minimum)


def estimate_noise(values: np.ndarray) -> float:
    """Standard deviation of noise, from the median difference of pixels three apart.

    Args:
      values: [h, w].

    Returns:
      The standard deviation.
    """
    apart = 3 if min(values.shape) > 40 else 1
    difference = np.abs(values[apart:, apart:] - values[:-apart, :-apart])[::2, ::2]
    return 1.4826 * float(np.median(difference)) / np.sqrt(2) if difference.size else 0.0


def _find_direction(pixels: np.ndarray, window: int) -> np.ndarray:
    """Weights of the channels, [C], by how much darker the ink is in each: yellow ink is dark in blue alone."""
    if pixels.shape[2] == 1:
        return np.ones(1, np.float32)
    stride = max(1, min(4, min(pixels.shape[:2]) // 40))
    small = ndimage.uniform_filter(pixels[..., :], (stride, stride, 1))[stride // 2 :: stride, stride // 2 :: stride]
    hat = estimate_paper(small, max(3, window // stride)) - small
    hat -= np.median(hat, axis=(0, 1))
    total = hat.sum(axis=-1)
    weights = np.clip(hat[total >= np.quantile(total, 0.98)].mean(axis=0), 0, None) ** 2 + 1e-3
    return (weights / weights.sum()).astype(np.float32)


def remove_paper(pixels: np.ndarray, window: int, is_dark: bool, zoom: float = 1.0) -> Contrast:
    """Measures how far each pixel is from the paper around it.

    Args:
      pixels: [h, w, C] float32, 0 to 255.
      window: wider than the ink's strokes, in pixels.
      is_dark: whether the ink is darker than the paper.
      zoom: by how much the pixels were enlarged.

    Returns:
      The contrast: for dark ink relative to the paper, so that a shadow does not change it.
    """
    pixels = pixels if is_dark else 255 - pixels
    gray = pixels @ _find_direction(pixels, window)
    stride = max(1, round(zoom))
    noise = estimate_noise(gray[::stride, ::stride])
    if noise > 3:
        gray = ndimage.gaussian_filter(gray, min(2.0, noise / 8) * max(1.0, zoom))
    paper = estimate_paper(gray, window)
    gain = 255 / np.maximum(paper, 0.4 * paper.max() + 1) if is_dark else np.float32(1)
    ink = (paper - gray) * gain
    ink -= np.median(ink[::2, ::2])
    padded = np.pad(gray, 2, "edge")
    step = (_slide_square(padded, 5, np.maximum) - _slide_square(padded, 5, np.minimum)) * gain
    return Contrast(ink, max(estimate_noise(ink[::stride, ::stride]), 1.0), step)


def lay_on_paper(pixels: np.ndarray) -> np.ndarray:
    """Makes a picture opaque: a card goes on with its own color, ink alone is laid on what contrasts with it.

    Args:
      pixels: [h, w, 4] uint8: red, green, blue, opacity.

    Returns:
      [h, w, 3] uint8.
    """
    opacity, colors = pixels[..., 3], pixels[..., :3]
    if opacity.min() == 255:
        return np.ascontiguousarray(colors)
    gray = colors @ np.array([0.299, 0.587, 0.114])
    solid = opacity >= max(1, min(250, 0.9 * opacity.max()))
    if not solid.any():
        return np.full_like(colors, 255)
    darkest, lightest = np.quantile(gray[solid], [0.02, 0.98])
    if lightest - darkest > 40 and solid.mean() > 0.2:  # there is paper and ink
        rim = ndimage.binary_dilation(~solid, iterations=3) & solid
        background = np.median(colors[rim if rim.any() else solid], axis=0)
        share = (ndimage.minimum_filter(opacity, 3) > 250)[..., None]  # its smooth rim would be a line
    else:
        background = np.full(3, 0.0 if np.median(gray[solid]) > 127 else 255.0)
        share = opacity[..., None] / 255
    return (colors * share + background * (1 - share)).round().astype(np.uint8)


def simplify_channels(pixels: np.ndarray) -> np.ndarray:
    """Makes a picture opaque, and gray where its channels are alike.

    Args:
      pixels: [h, w, 1], [h, w, 3] or [h, w, 4] uint8.

    Returns:
      [h, w, 1] or [h, w, 3] uint8.
    """
    pixels = lay_on_paper(pixels) if pixels.shape[2] == 4 else pixels
    is_gray = all((pixels[..., 0] == pixels[..., channel]).all() for channel in range(1, pixels.shape[2]))
    return np.ascontiguousarray(pixels[..., :1]) if is_gray else pixels
