"""Finds the digits of a picture: which marks belong together, and a closer look at each."""

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from mnist_jax.errors import DataError
from mnist_jax.pictures.lines import Line, Place
from mnist_jax.pictures.marks import LOWEST_EDGE, NEIGHBORS, Mark, find_ink, is_hole, is_sheet
from mnist_jax.pictures.normalize import find_box, is_prepared, measure_stroke, normalize
from mnist_jax.pictures.paper import remove_paper, simplify_channels

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the picture; right and bottom are exclusive
WIDE_SIDE = 384  # of the picture in which digits are looked for
CLOSE_SIDE = 112  # of a digit that is looked at again
SMALLEST = 10  # pixels; the longer side of a digit that is not in doubt
FAINTEST = 20.0  # of 255; its contrast
NO_DIGIT = "no digit found; it must show dark ink on lighter paper, or light ink on darker, a few pixels thick"


class Digit(NamedTuple):
    """A digit of a picture, prepared for a network."""

    image: np.ndarray  # [H, W] uint8, light on dark
    box: Box
    steps: tuple[str, ...] = ()  # what was done, in order; empty if the image is unchanged
    doubt: str = ""  # why it may be unlike what networks are trained on
    stages: tuple[np.ndarray, ...] = ()  # [h, w] uint8, light on dark: the picture, its ink, the marks kept
    name: str = ""  # of the file, with [i] for image i of an IDX file

    @property
    def height(self) -> int:
        """In pixels of the picture."""
        return self.box[3] - self.box[1]


class _View(NamedTuple):
    labels: np.ndarray  # [h, w], the number of each pixel's mark
    marks: list[Mark]
    lines: list[Line]


def _resize(pixels: np.ndarray, scale: float) -> np.ndarray:
    height, width = pixels.shape[:2]
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return np.asarray(image.resize(size, how), np.float32).reshape(size[1], size[0], -1)


def _view_page(pixels: np.ndarray) -> tuple[bool, _View]:
    """Looks at a picture as dark on light and as light on dark: whether it is the former, and its marks."""
    height, width = pixels.shape[:2]
    window = int(max(0.25 * max(height, width), 0.35 * min(height, width))) | 1
    views = {}
    for is_dark in (True, False):
        labels, marks, lines = find_ink(remove_paper(pixels, window, is_dark))
        views[is_dark] = _View(labels, [mark for mark in marks if mark.edge > LOWEST_EDGE], lines)
    ink = {dark: [mark for mark in views[dark].marks if not is_sheet(mark, views[not dark].marks)] for dark in views}
    ink = {dark: [mark for mark in ink[dark] if not is_hole(mark, ink[not dark])] for dark in views}
    strengths = {dark: sum(mark.strength for mark in ink[dark]) for dark in views}
    is_dark = strengths[True] >= strengths[False]
    return is_dark, views[is_dark]._replace(marks=ink[is_dark])


def _surround(marks: list[Mark]) -> Mark:
    """Marks as one, of the first one's label."""
    boxes = np.array([mark.box for mark in marks])
    box = int(boxes[:, 0].min()), int(boxes[:, 1].max()), int(boxes[:, 2].min()), int(boxes[:, 3].max())
    return marks[0]._replace(box=box)


def _gap(one: Mark, other: Mark) -> int:
    """Pixels between two boxes."""
    a, b = one.box, other.box
    return max(a[0] - b[1], b[0] - a[1], a[2] - b[3], b[2] - a[3], 0)


def _belong_together(one: Mark, other: Mark, height: int) -> bool:
    """Whether two marks are parts of one digit.

    They are above each other, or a small one overlaps a large one, or a flat one, which is no digit, is near.
    """
    a, b = one.box, other.box
    overlap = min(a[3], b[3]) - max(a[2], b[2])
    largest, smallest = max(height, one.size, other.size), min(one.size, other.size)
    if any(mark.box[3] - mark.box[2] > 1.6 * (mark.box[1] - mark.box[0]) for mark in (one, other)):
        return _gap(one, other) < 0.25 * largest
    is_part = smallest < 0.6 * largest and _gap(one, other) == 0
    gap = max(0, a[0] - b[1], b[0] - a[1])
    return gap < 0.2 * largest and overlap > (0 if is_part else 0.5) * min(a[3] - a[2], b[3] - b[2])


def _group(marks: list[Mark]) -> list[list[Mark]]:
    """Makes digits of marks: large ones, with the small ones that lie near."""
    strongest = max(marks, key=lambda mark: mark.strength)
    marks = [mark for mark in marks if mark.level >= 0.4 * strongest.level]
    groups: list[list[Mark]] = []
    for mark in marks:
        if mark.size < 0.3 * strongest.size or mark.energy < 0.05 * strongest.energy:
            continue
        group = [mark]
        while near := [one for one in groups if _belong_together(_surround(group), _surround(one), strongest.size)]:
            groups = [one for one in groups if one not in near]
            group = sum(near, group)
        groups.append(group)
    tallest = max(_surround(group).size for group in groups)
    groups = [group for group in groups if _surround(group).size >= 0.45 * tallest]
    used = {mark.label for group in groups for mark in group}
    for mark in marks:
        gaps = [_gap(mark, _surround(group)) for group in groups]
        nearest = groups[int(np.argmin(gaps))]
        size = _surround(nearest).size
        if mark.label not in used and min(gaps) < 0.15 * size and mark.size > 0.1 * size:
            nearest.append(mark)
    return groups


def _look_closer(
    pixels: np.ndarray, mask: np.ndarray, corner: tuple[float, float], zoom: float, is_dark: bool, lines: list[Line]
) -> tuple[np.ndarray, float, tuple[np.ndarray, ...]]:
    """Looks again at one digit, larger, with a window for the paper that fits its strokes.

    Returns its ink, cropped, 0 to 255; the contrast of that ink; the stages, for people to look at.
    """
    height, width = pixels.shape[:2]
    top, left = corner
    side = max(mask.shape) / zoom
    margin = 0.3 * side + 2
    rows = slice(int(max(0, top - margin)), int(min(height, np.ceil(top + mask.shape[0] / zoom + margin))))
    columns = slice(int(max(0, left - margin)), int(min(width, np.ceil(left + mask.shape[1] / zoom + margin))))
    scale = min(CLOSE_SIDE / side, 4.0)
    crop = _resize(pixels[rows, columns], scale)
    stroke = measure_stroke(mask) / zoom * scale
    window = int(min(max(3 * stroke, 9), 0.9 * max(crop.shape[:2]))) | 1
    contrast = remove_paper(crop, window, is_dark, scale)
    labels, _, _ = find_ink(contrast, lines, Place(scale, rows.start, columns.start))
    seen = np.zeros_like(labels, bool)
    y, x = round((top - rows.start) * scale), round((left - columns.start) * scale)
    before = _resize(np.atleast_3d(255 * mask.astype(np.uint8)), scale / zoom).max(axis=2)
    before = before[: len(seen) - y, : seen.shape[1] - x]
    seen[y : y + before.shape[0], x : x + before.shape[1]] = before > 100
    kept = np.isin(labels, np.setdiff1d(labels[ndimage.binary_dilation(seen, NEIGHBORS, 2)], [0]))
    if not kept.any():
        kept = seen
    level = float(np.quantile(contrast.ink[kept], 0.75))
    ink = np.clip((contrast.ink - 0.2 * level) / max(0.75 * level, 1), 0, 1)
    foreground = 255 * ink * ndimage.binary_dilation(kept, NEIGHBORS)
    gray = 255 - crop.mean(axis=-1) if is_dark else crop.mean(axis=-1)
    without_paper = 255 * np.clip(contrast.ink / max(level, 1), 0, 1)
    stages = tuple(stage.astype(np.uint8) for stage in (gray, without_paper, foreground))
    is_ink = foreground > 64
    return foreground[find_box(is_ink)] if is_ink.any() else foreground, level, stages


def _reading_order(digits: list[Digit]) -> list[Digit]:
    """From left to right, row by row."""
    rows: list[list[Digit]] = []
    for digit in sorted(digits, key=lambda digit: digit.box[1]):
        middle = (digit.box[1] + digit.box[3]) / 2
        row = next((row for row in rows if row[0].box[1] <= middle <= row[0].box[3]), None)
        if row is None:
            rows.append([digit])
        else:
            row.append(digit)
    return [digit for row in rows for digit in sorted(row, key=lambda digit: digit.box[0])]


def _doubt(box: Box, level: float) -> str:
    width, height = box[2] - box[0], box[3] - box[1]
    if max(width, height) < SMALLEST:
        return f"only {width}x{height} pixels"
    if level < FAINTEST:
        return "very faint"
    return "wider than a digit" if width > 2 * height else ""


def find_digits(pixels: np.ndarray, shape: tuple[int, int]) -> list[Digit]:
    """Finds the digits of a picture.

    A picture that is like MNIST's images already is one digit, unchanged. Otherwise the paper is estimated and removed,
    printed lines, frames, borders and specks are dropped, marks that belong together are joined, and each digit is
    looked at again, larger, before it is cropped, scaled and centered as MNIST's were.

    Args:
      pixels: [h, w], [h, w, 1], [h, w, 3] or [h, w, 4] (red, green, blue, opacity), uint8.
      shape: (H, W) of the network's images.

    Returns:
      The digits in reading order; none where there is no ink.
    """
    pixels = simplify_channels(np.atleast_3d(pixels))
    if pixels.shape[2] == 1 and is_prepared(pixels[..., 0], shape):
        return [Digit(np.ascontiguousarray(pixels[..., 0]), (0, 0, shape[1], shape[0]))]
    height, width = pixels.shape[:2]
    zoom = min(1.0, WIDE_SIDE / max(height, width))
    is_dark, view = _view_page(_resize(pixels, zoom) if zoom < 1 else pixels.astype(np.float32))
    before = (("inverted",) if is_dark else ()) + (("removed printed lines",) if view.lines else ())
    lines = [line._replace(top=line.top / zoom, bottom=line.bottom / zoom) for line in view.lines]
    digits = []
    for group in _group(view.marks) if view.marks else []:
        top, bottom, left, right = _surround(group).box
        if max(bottom - top, right - left) < 5:
            continue
        mask = np.isin(view.labels[top:bottom, left:right], [mark.label for mark in group])
        ink, level, stages = _look_closer(pixels, mask, (top / zoom, left / zoom), zoom, is_dark, lines)
        if ink.max() < 64:
            continue
        box = round(left / zoom), round(top / zoom), round(right / zoom), round(bottom / zoom)
        size = f"cropped to {box[2] - box[0]}x{box[3] - box[1]}"
        steps = (*before, size, f"centered by mass in {shape[1]}x{shape[0]}")
        digits.append(Digit(normalize(ink, shape), box, steps, _doubt(box, level), stages))
    return _reading_order(digits)


def read_digits(pixels: np.ndarray, shape: tuple[int, int], name: str, single: bool = False) -> list[Digit]:
    """Finds the digits of a picture, of which there must be one.

    Args:
      pixels: as in find_digits.
      shape: (H, W) of the network's images.
      name: of the picture.
      single: whether it shows one digit; the largest is taken then.

    Returns:
      The digits in reading order, with the picture's name.

    Raises:
      DataError: there is none.
    """
    digits = [digit._replace(name=name) for digit in find_digits(pixels, shape)]
    if not digits:
        raise DataError(f"{name}: {NO_DIGIT}")
    return [max(digits, key=lambda digit: digit.height)] if single else digits


def preprocess_digit(pixels: np.ndarray, shape: tuple[int, int]) -> Digit:
    """Preprocesses a picture of one digit as MNIST's images were: the largest that find_digits finds.

    Args:
      pixels: as in find_digits.
      shape: (H, W) of the network's images.

    Returns:
      The digit.

    Raises:
      DataError: there is none.
    """
    return read_digits(pixels, shape, "picture", single=True)[0]
