"""Finds connected marks of ink, and which of them are frames, holes or the sheet itself."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from mnist_jax.pictures.lines import WHOLE, Line, Place, find_lines, remove_lines
from mnist_jax.pictures.paper import Contrast

LOWEST_CONTRAST = 9.0  # of 255: less is no ink
LOWEST_EDGE = 0.9
NEIGHBORS = np.ones((3, 3), bool)


class Mark(NamedTuple):
    """Connected ink."""

    label: int  # its number in the array of labels
    box: tuple[int, int, int, int]  # top, bottom, left, right; bottom and right are exclusive
    area: int  # in pixels
    energy: float  # sum of its contrast
    level: float  # contrast that a fifth of it exceeds
    edge: float  # share of its outline where the picture itself has a step; 1 for ink, less for a rest of paper

    @property
    def size(self) -> int:
        """The longer side of its box."""
        return max(self.box[1] - self.box[0], self.box[3] - self.box[2])

    @property
    def strength(self) -> float:
        """Energy times level, discounted steeply where the outline is not real."""
        return self.energy * self.level * self.edge**8

    def holds(self, other: "Mark") -> bool:
        """Whether the other's box lies in its own."""
        (top, bottom, left, right), inner = self.box, other.box
        return top <= inner[0] and inner[1] <= bottom and left <= inner[2] and inner[3] <= right


def _measure_edge(mask: np.ndarray, step: np.ndarray, level: float) -> float:
    ring = ndimage.binary_dilation(mask, NEIGHBORS) & ~mask
    return float((step[ring] > 0.35 * level).mean()) if ring.any() else 0.0


def find_marks(mask: np.ndarray, contrast: Contrast, limit: int = 60) -> tuple[np.ndarray, list[Mark]]:
    """Finds connected ink.

    Args:
      mask: [h, w] bool, where ink is.
      contrast: of the same pixels.
      limit: how many to return at most.

    Returns:
      The number of each pixel's mark, [h, w], and the marks, the one of most energy first.
    """
    labels, count = ndimage.label(mask, NEIGHBORS)
    if not count:
        return labels, []
    areas = np.bincount(labels[mask], minlength=count + 1)
    energies = np.bincount(labels[mask], contrast.ink[mask], minlength=count + 1)
    boxes = ndimage.find_objects(labels)
    marks = []
    for label in np.argsort(-energies)[:limit]:
        if areas[label] < 3:
            continue
        rows, columns = boxes[label - 1]
        around = slice(max(0, rows.start - 1), rows.stop + 1), slice(max(0, columns.start - 1), columns.stop + 1)
        own = labels[around] == label
        level = float(np.quantile(contrast.ink[around][own], 0.8, method="lower"))
        edge = _measure_edge(own & (contrast.ink[around] > 0.5 * level), contrast.step[around], level)
        box = rows.start, rows.stop, columns.start, columns.stop
        marks.append(Mark(int(label), box, int(areas[label]), float(energies[label]), level, edge))
    return labels, marks


def _frames(labels: np.ndarray, outer: Mark, inner: Mark) -> bool:
    """Whether the outer mark has ink on all four sides of the inner one, or is a thin corner round it."""
    if not outer.holds(inner) or outer is inner:
        return False
    top, bottom, left, right = inner.box
    y, x = (top + bottom) // 2, (left + right) // 2
    sides = labels[y, :left], labels[y, right:], labels[:top, x], labels[bottom:, x]
    height, width = outer.box[1] - outer.box[0], outer.box[3] - outer.box[2]
    return all((side == outer.label).any() for side in sides) or outer.area < 0.1 * height * width


def _is_border(labels: np.ndarray, mark: Mark) -> bool:
    """Whether it lies along an edge of the picture."""
    return any((edge == mark.label).mean() > 0.3 for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]))


def drop_frames(labels: np.ndarray, marks: list[Mark]) -> list[Mark]:
    """Drops marks along an edge of the picture, and frames drawn round others.

    Args:
      labels: [h, w], the number of each pixel's mark.
      marks: of the picture.

    Returns:
      The others.
    """
    return [
        mark
        for mark in marks
        if not _is_border(labels, mark)
        and not any(
            other.size > 0.2 * mark.size and other.level > 0.4 * mark.level and _frames(labels, mark, other)
            for other in marks
        )
    ]


def is_sheet(mark: Mark, others: Iterable[Mark]) -> bool:
    """Whether a mark is rather the sheet: solid, with ink on it.

    Args:
      mark: of one polarity.
      others: marks of the other polarity.

    Returns:
      Whether it is.
    """
    top, bottom, left, right = mark.box
    height, width = bottom - top, right - left
    is_solid = mark.area > 0.7 * height * width and min(height, width) > 0.4 * max(height, width)
    return is_solid and any(
        mark.holds(other)
        and other.size > 0.15 * mark.size
        and other.energy > 0.004 * mark.energy
        and other.level > 0.4 * mark.level
        for other in others
    )


def is_hole(mark: Mark, others: Iterable[Mark]) -> bool:
    """Whether a mark is rather the paper inside or between strokes.

    Args:
      mark: of one polarity.
      others: marks of the other polarity.

    Returns:
      Whether it is.
    """
    return any(other.holds(mark) and other.level > 0.5 * mark.level and not is_sheet(other, [mark]) for other in others)


def _find_unframed(
    contrast: Contrast, threshold: float, lines: list[Line], place: Place
) -> tuple[np.ndarray, list[Mark]]:
    labels, marks = find_marks(remove_lines(contrast.ink > threshold, lines, place), contrast)
    return labels, drop_frames(labels, marks)


def find_ink(
    contrast: Contrast, lines: list[Line] | None = None, place: Place = WHOLE
) -> tuple[np.ndarray, list[Mark], list[Line]]:
    """Finds the ink of a picture: connected marks well above the noise, and near the strongest one's contrast.

    Args:
      contrast: what remove_paper returned.
      lines: printed lines, where they are known; None to look for them.
      place: which part of the picture with the lines this is.

    Returns:
      The number of each pixel's mark, [h, w]; the marks, without frames, the one of most energy first; the lines.
    """
    lowest = max(4.5 * contrast.noise, LOWEST_CONTRAST)
    lines = find_lines(contrast.ink > lowest) if lines is None else lines
    labels, marks = _find_unframed(contrast, lowest, lines, place)
    strongest = max(marks, key=lambda mark: mark.strength, default=None)
    if strongest and 0.4 * strongest.level > lowest:
        labels, marks = _find_unframed(contrast, 0.4 * strongest.level, lines, place)
    return labels, marks, lines
