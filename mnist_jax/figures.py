"""Figures of matplotlib, which is imported only when something is drawn: new ones, images in them, and their files."""

from __future__ import annotations

import os
import pathlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_jax.files import temp_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Makes an empty figure of a width and height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: str | os.PathLike[str], show: bool = False) -> None:
    """Writes a figure to a file, and shows it if asked to and if there is a screen.

    Args:
      figure: what to write.
      path: the file; its suffix is the format, such as .png or .svg.
      show: whether to open a window as well, and wait until it is closed.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a file or class with a name in another script
        figure.savefig(temp_path(path), dpi=120, format=path.suffix[1:])
    temp_path(path).replace(path)
    if show:
        from matplotlib import pyplot
        from matplotlib.backends.registry import BackendFilter, backend_registry

        has_screen = pyplot.get_backend().lower() in backend_registry.list_builtin(BackendFilter.INTERACTIVE)
        if has_screen and (manager := pyplot.figure().canvas.manager):
            manager.canvas.figure = figure
            figure.set_canvas(manager.canvas)
            pyplot.show()


def draw_image(
    axes: Axes, image: np.ndarray, box: tuple[float, float, float, float], title: str = "", **imshow_kwargs: Any
) -> None:
    """Draws an image in a panel that several share: with a panel each, laying them out takes several times as long.

    Args:
      axes: the panel; see set_size.
      image: [H, W, C] uint8 or float.
      box: left, top, width and height in inches; the image is as large as that allows, in its middle.
      title: over the image.
      imshow_kwargs: as of Axes.imshow.
    """
    if image.shape[-1] not in (3, 4):
        image = image[..., 0]
    elif image.dtype != np.uint8:  # imshow clips the colors of float images to [0, 1]
        image = (image - image.min()) / max(np.ptp(image), 1e-12)
    left, top, width, height = box
    scale = 0.92 * min(width / image.shape[1], height / image.shape[0])
    center, middle = left + width / 2, top + height / 2
    half_width, half_height = scale * image.shape[1] / 2, scale * image.shape[0] / 2
    extent = (center - half_width, center + half_width, middle + half_height, middle - half_height)
    axes.imshow(image, extent=extent, **({"cmap": "gray_r"} | imshow_kwargs))
    axes.text(center, middle - half_height - 0.03, title, ha="center", va="bottom", fontsize=9)


def set_size(axes: Axes, width: float, height: float) -> None:
    """Gives a panel of images its width and height in inches, and removes its frame."""
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
