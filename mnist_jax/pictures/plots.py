"""Draws how pictures became what the network saw."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mnist_jax.figures import new_figure
from mnist_jax.pictures.digits import Digit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = ("picture", "paper removed", "marks kept", "what the network saw")


def stages(digits: Sequence[Digit], titles: Sequence[str]) -> "Figure":
    """Draws a row for each digit: the picture, its ink, the marks kept, and what the network saw, light on dark.

    Args:
      digits: as found; of one that was left unchanged, only what the network saw is drawn.
      titles: one for each.

    Returns:
      The figure.
    """
    figure = new_figure(7.2, 1.9 * len(digits) + 0.3)
    rows = figure.subplots(len(digits), len(TITLES), squeeze=False)
    for number, (digit, title, row) in enumerate(zip(digits, titles, rows, strict=True)):
        for axes in row:
            axes.set_axis_off()
        for axes, name in zip(row, TITLES, strict=True):
            if number == 0:
                axes.set_title(name, fontsize=9)
        for axes, image in zip(row[-1 - len(digit.stages) :], (*digit.stages, digit.image), strict=True):
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        row[-1].text(1.06, 0.5, title, transform=row[-1].transAxes, va="center", fontsize=9)
    return figure
