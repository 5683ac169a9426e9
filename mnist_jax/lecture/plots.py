"""Plots of the neuron. As in mnist_jax.plots, matplotlib is imported only when something is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mnist_jax.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def decision_boundary(
    inputs: np.ndarray,
    labels: np.ndarray,
    lines: np.ndarray,
    decision_function: Callable[[np.ndarray], np.ndarray] | None = None,
    title: str = "",
) -> Figure:
    """Draws points of two classes and the line that separates them, with the lines of earlier epochs faintly.

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
        axes.scatter(x, y, marker=marker, color=color, s=18, label=f"class {label}")
    for i, (a, b, c) in enumerate(lines):
        last = i == len(lines) - 1
        color, width, alpha = ("black", 2, 1) if last else ("gray", 1.5, 0.15 + 0.4 * i / len(lines))
        name = "line after the last epoch" if last else "after earlier epochs" if i == len(lines) - 2 else None
        norm = a * a + b * b
        if norm > 0:
            foot = a * c / norm, b * c / norm
            axes.axline(foot, (foot[0] - b, foot[1] + a), color=color, linewidth=width, alpha=alpha, label=name)
    if len(lines):
        a, b, c = lines[-1]
        sides = {a * x + b * y > c for x in (left, right) for y in (bottom, top)}
        title += "\n(the last line lies outside of this plot)" * (len(sides) == 1)
    axes.set(xlim=(left, right), ylim=(bottom, top), xlabel="x", ylabel="y", title=title)
    figure.legend(loc="outside lower center", ncols=2)
    return figure
