"""Plots of the neuron. As in mnist_jax.plots, matplotlib is imported only when something is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_jax.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MAX_EARLIER_LINES = 20


def _draw_line(axes: Axes, line: np.ndarray, **style: Any) -> None:
    a, b, c = line
    norm = a * a + b * b
    if norm > 0:
        foot = a * c / norm, b * c / norm
        axes.axline(foot, (foot[0] - b, foot[1] + a), **style)


def decision_boundary(
    inputs: np.ndarray,
    labels: np.ndarray,
    lines: np.ndarray,
    decision_function: Callable[[np.ndarray], np.ndarray] | None = None,
    title: str = "",
) -> Figure:
    """Draws points of two classes and the line that separates them, with some lines of earlier epochs faintly.

    Args:
      inputs: [N, 2] float.
      labels: [N] int, 0 or 1.
      lines: [epochs, 3] float, (A, B, C) of A x + B y = C after each epoch; may be empty.
      decision_function: [N, 2] -> [N] float, positive for class 1: shades the plane by a network's predictions.
      title: over the figure.

    Returns:
      A Figure.
    """
    figure = new_figure(5, 6)
    axes = figure.subplots()
    low, high = inputs.min(axis=0), inputs.max(axis=0)
    margin = 0.1 * np.maximum(high - low, 1e-6)
    (left, bottom), (right, top) = low - margin, high + margin
    if decision_function is not None:
        x, y = np.meshgrid(np.linspace(left, right, 200), np.linspace(bottom, top, 200))
        values = decision_function(np.stack([x.ravel(), y.ravel()], axis=-1)).reshape(x.shape)
        axes.contourf(x, y, values > 0, levels=[-0.5, 0.5, 1.5], colors=["tab:blue", "tab:orange"], alpha=0.2)
    for label, marker, color in ((0, "o", "tab:blue"), (1, "^", "tab:orange")):
        x, y = inputs[labels == label].T
        axes.scatter(x, y, marker=marker, color=color, s=18, zorder=3, label=f"class {label}")
    every = max(math.ceil(len(lines) / MAX_EARLIER_LINES), 1)
    earlier = lines[:-1][::every]
    which = "after earlier epochs" + (f" (1 of {every})" if every > 1 else "")
    for i, line in enumerate(earlier):
        _draw_line(axes, line, color="gray", linewidth=1, alpha=0.3 + 0.6 * i / len(earlier), label="_" * i + which)
    if len(lines):
        _draw_line(axes, lines[-1], color="black", linewidth=2, label="after the last epoch")
        a, b, c = lines[-1]
        is_outside = len({a * x + b * y > c for x in (left, right) for y in (bottom, top)}) == 1
        title += "\n(the last line lies outside of this plot)" * is_outside
    axes.set(xlim=(left, right), ylim=(bottom, top), xlabel="x", ylabel="y", title=title)
    if 0.8 < (right - left) / (top - bottom) < 1.25:
        axes.set_aspect("equal")
    areas = None if decision_function is None else "colored areas: the class that is predicted"
    figure.legend(loc="outside lower center", ncols=2, title=areas)
    return figure
