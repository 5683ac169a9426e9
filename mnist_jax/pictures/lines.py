"""Removes printed lines, as of ruled or squared paper, and leaves the strokes that cross them."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

# Of the lines, in pixels up or down for one along; of equals the most level one is taken.
_SLANTS = sorted(np.linspace(-0.12, 0.12, 49).tolist(), key=abs)


class Line(NamedTuple):
    """A printed line, horizontal (axis 0: y = slope * x + top to bottom) or vertical (axis 1: x of y)."""

    axis: int
    slope: float
    top: float
    bottom: float


class Place(NamedTuple):
    """Where a part of a picture was cut out, and how it was scaled then."""

    scale: float = 1.0
    top: float = 0.0
    left: float = 0.0


WHOLE = Place()


def find_lines(mask: np.ndarray) -> list[Line]:
    """Finds printed lines: straight, thin, and from one edge of the picture to the other.

    Args:
      mask: [h, w] bool.

    Returns:
      The lines, for mask's own pixels.
    """
    lines = []
    for axis in (0, 1):
        height, width = mask.shape if axis == 0 else mask.shape[::-1]
        y, x = np.nonzero(mask if axis == 0 else mask.T)
        if len(y) < width / 2:
            continue
        counts = []
        for slope in _SLANTS:
            rows = np.round(y - slope * (x - width / 2)).astype(np.int32) + width
            counts.append(np.bincount(rows, minlength=height + 2 * width))
        peaks = [(count[count > 0.55 * width].astype(float) ** 2).sum() for count in counts]
        slope, count = _SLANTS[np.argmax(peaks)], counts[np.argmax(peaks)]
        bands, number = ndimage.label(count > 0.5 * width)
        for band in ndimage.find_objects(bands)[:number]:
            first, last = band[0].start - width, band[0].stop - 1 - width
            peak = count[band].max()
            beside = count[[band[0].start - 3, band[0].stop + 2]].max()  # a printed line has paper on both sides
            if peak <= 0.55 * width or last - first >= max(4, height / 30) or beside > 0.75 * peak:
                continue
            row = np.round(y - slope * (x - width / 2))
            along = x[(row >= first) & (row <= last)]
            if along.min() < 0.08 * width and along.max() > 0.92 * width:
                lines.append(Line(axis, slope, first - slope * width / 2, last - slope * width / 2))
    return lines


def remove_lines(mask: np.ndarray, lines: list[Line], place: Place) -> np.ndarray:
    """Removes printed lines from a mask; strokes that cross them stay.

    Args:
      mask: [h, w] bool.
      lines: as found in the whole picture.
      place: which part of it the mask shows.

    Returns:
      The mask without them.
    """
    mask = mask.copy()
    for axis, slope, top, bottom in lines:
        turned = mask if axis == 0 else mask.T  # a view
        start, along = (place.top, place.left) if axis == 0 else (place.left, place.top)
        height, width = turned.shape
        x = np.arange(width)
        at = slope * ((x + 0.5) / place.scale + along) - start
        first = np.floor((at + top) * place.scale - 1).astype(int)
        last = np.ceil((at + bottom + 1) * place.scale + 0.5).astype(int)
        above = turned[np.clip(first - 1, 0, height - 1), x] & (first > 0) & (first <= height)
        below = turned[np.clip(last + 1, 0, height - 1), x] & (last < height - 1) & (last >= -1)
        rows = np.arange(height)[:, None]
        turned &= ~((rows >= first) & (rows <= last) & ~(above | below))
    return mask
