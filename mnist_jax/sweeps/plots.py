"""Pictures of a sweep. Each function returns a matplotlib Figure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_jax.figures import new_figure
from mnist_jax.sweeps.space import Dimension, format_value
from mnist_jax.sweeps.table import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_BEST, _OTHER, _PRUNED = "tab:red", "tab:blue", "0.7"


def _is_log(dimension: Dimension) -> bool:
    if not dimension.values:
        return dimension.log
    values = dimension.values
    return dimension.is_numeric and min(values) > 0 and max(values) / min(values) >= 30


def _positions(dimension: Dimension, rows: Sequence[Row]) -> list[float]:
    """Where each row is on the axis of a dimension: its number, or the place of its choice."""
    if dimension.is_numeric:
        return [float(row.point[dimension.name]) for row in rows]
    return [float(dimension.values.index(row.point[dimension.name])) for row in rows]


def _set_log_ticks(axis: Axis, values: Sequence[float]) -> None:
    """Gives a logarithmic axis a few labels that do not overlap, also within one decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if max(values) < 30 * min(values) else (1.0,), numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _label_axis(axes: Axes, dimension: Dimension, values: Sequence[float]) -> None:
    axes.set_xlabel(dimension.name)
    if not dimension.is_numeric:
        axes.set_xticks(range(len(dimension.values)), [format_value(value)[:18] for value in dimension.values])
    elif _is_log(dimension):
        axes.set_xscale("log")
        _set_log_ticks(axes.xaxis, values)


def _scored(rows: Sequence[Row], states: Sequence[str] = ("COMPLETE",)) -> list[Row]:
    return [row for row in rows if row.state in states and row.mean is not None]


def _set_limits(axes: Axes, rows: Sequence[Row], minimize: bool) -> None:
    """Leaves the worst trials out of sight where they would hide the differences between the others."""
    means = np.array([row.mean for row in rows], float)
    best, worst = (means.min(), means.max()) if minimize else (means.max(), means.min())
    middle = float(np.median(means))
    if len(means) >= 4 and abs(worst - best) > 8 * abs(middle - best) > 0:
        edge = best + 4 * (middle - best)
        low, high = sorted((best - 0.6 * (middle - best), edge))
        axes.set_ylim(low, high)
        axes.set_title("trials far from the best are outside of this picture", fontsize=8, color="0.4")


def response(rows: Sequence[Row], dimensions: Sequence[Dimension], metric: str, minimize: bool) -> Figure:
    """Draws the objective against each hyperparameter: a point per trial, its seeds as a spread, the best one red.

    Args:
      rows: best first.
      dimensions: what varies.
      metric: name of the objective.
      minimize: whether less is better.
    """
    scored = _scored(rows)
    columns = min(3, len(dimensions))
    lines = -(-len(dimensions) // columns)
    figure = new_figure(4.4 * columns, 3.6 * lines)
    grid = np.ravel(figure.subplots(lines, columns, squeeze=False))
    for axes in grid[len(dimensions) :]:
        axes.set_axis_off()
    for axes, dimension in zip(grid, dimensions, strict=False):
        x = _positions(dimension, scored)
        for position, row in zip(x, scored, strict=True):
            color = _BEST if row is scored[0] else _OTHER
            spread = statistics.stdev(row.scores) if len(row.scores) > 1 else 0.0
            axes.errorbar(position, row.mean, spread or None, fmt="o", color=color, ms=4, capsize=2, lw=1)
            axes.plot([position] * len(row.scores), row.scores, ".", color=color, alpha=0.35, ms=3)
        _label_axis(axes, dimension, x)
        _set_limits(axes, scored, minimize)
        axes.set_ylabel(f"validation {metric}")
    figure.suptitle("Response to each hyperparameter: mean and standard deviation over seeds; the best trial in red")
    return figure


def heat_map(rows: Sequence[Row], dimensions: Sequence[Dimension], metric: str) -> Figure:
    """Draws the objective over two hyperparameters: cells of a grid, or points of a search.

    Args:
      rows: best first.
      dimensions: two.
      metric: name of the objective.
    """
    scored, (first, second) = _scored(rows), dimensions
    figure = new_figure(6.4, 4.8)
    axes = figure.subplots()
    if first.values and second.values:
        table = np.full((len(second.values), len(first.values)), np.nan)
        for row in scored:
            table[second.values.index(row.point[second.name]), first.values.index(row.point[first.name])] = row.mean
        image: Any = axes.imshow(table, aspect="auto", origin="lower")
        for (i, j), value in np.ndenumerate(table):
            if np.isfinite(value) and table.size <= 100:
                axes.text(j, i, f"{value:.4g}", ha="center", va="center", fontsize=7, color="white")
        axes.set_xticks(range(len(first.values)), [format_value(v)[:12] for v in first.values], rotation=30)
        axes.set_yticks(range(len(second.values)), [format_value(v)[:12] for v in second.values])
        axes.set_xlabel(first.name)
    else:
        x, y = (_positions(dimension, scored) for dimension in dimensions)
        image = axes.scatter(x, y, c=[row.mean or 0.0 for row in scored])
        _label_axis(axes, first, x)
        if not second.is_numeric:
            axes.set_yticks(range(len(second.values)), [format_value(value)[:18] for value in second.values])
        elif _is_log(second):
            axes.set_yscale("log")
            _set_log_ticks(axes.yaxis, y)
    axes.set_ylabel(second.name)
    figure.colorbar(image, label=f"validation {metric}")
    figure.suptitle(f"Validation {metric} over {first.name} and {second.name}")
    return figure


def parallel_coordinates(rows: Sequence[Row], dimensions: Sequence[Dimension], metric: str) -> Figure:
    """Draws a line per trial through its hyperparameters to its score; the best tenth in red.

    Args:
      rows: best first.
      dimensions: what varies.
      metric: name of the objective.
    """
    scored = _scored(rows)
    figure = new_figure(2.2 * (len(dimensions) + 1) + 1, 4.2)
    axes = figure.subplots()
    columns, labels = [], []
    for dimension in dimensions:
        x = np.array(_positions(dimension, scored))
        low, high = (x.min(), x.max()) if dimension.is_numeric else (0, len(dimension.values) - 1)
        columns.append(_unit(x, low, high, dimension.is_numeric and _is_log(dimension)))
        shown = (low, high) if dimension.is_numeric else (dimension.values[0], dimension.values[-1])
        labels.append((dimension.name, *(format_value(_short(value)) for value in shown)))
    means = np.array([row.mean for row in scored], float)
    columns.append(_unit(means, means.min(), means.max(), False))
    labels.append((metric, *(f"{value:.4g}" for value in (means.min(), means.max()))))
    for number, line in reversed([*enumerate(np.array(columns).T)]):
        is_best = number < max(1, len(scored) // 10)
        axes.plot(line, color=_BEST if is_best else _OTHER, alpha=0.9 if is_best else 0.25, lw=1.4 if is_best else 0.8)
    for place, (_, low, high) in enumerate(labels):
        axes.axvline(place, color="0.6", lw=0.8)
        axes.text(place, -0.06, low, ha="center", fontsize=8)
        axes.text(place, 1.03, high, ha="center", fontsize=8)
    axes.set_xticks(range(len(labels)), [name for name, *_ in labels])
    axes.set_ylim(-0.1, 1.1)
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    figure.suptitle("A line per trial, from its hyperparameters to its score; the best tenth in red")
    return figure


def _unit(x: np.ndarray, low: float, high: float, log: bool) -> np.ndarray:
    if high == low:
        return np.full(len(x), 0.5)
    return np.log(x / low) / np.log(high / low) if log else (x - low) / (high - low)


def _short(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) else value


def importance(values: dict[str, float]) -> Figure:
    """Draws how much of the difference between good and other trials each hyperparameter explains.

    Args:
      values: from names to importances that add up to 1.
    """
    figure = new_figure(6.4, 0.5 * len(values) + 1.2)
    axes = figure.subplots()
    ordered = sorted(values.items(), key=lambda item: item[1])
    axes.barh([name for name, _ in ordered], [value for _, value in ordered], color=_OTHER)
    axes.set_xlabel("importance")
    figure.suptitle("Importance of each hyperparameter (PED-ANOVA)")
    return figure


def learning_curves(rows: Sequence[Row], metric: str, minimize: bool) -> Figure:
    """Draws the mean objective of every trial after each epoch; those stopped early end where they were stopped.

    Args:
      rows: best first.
      metric: name of the objective.
      minimize: whether less is better.
    """
    figure = new_figure(7.2, 4.2)
    axes = figure.subplots()
    scored = _scored(rows, ("COMPLETE", "PRUNED"))
    for number, row in reversed([*enumerate(scored)]):
        points = [(epoch, value) for epoch, value in enumerate(row.history, start=1) if value is not None]
        color = _PRUNED if row.state == "PRUNED" else _BEST if number == 0 else _OTHER
        if points:
            marker = "." if row.state == "PRUNED" or len(points) == 1 else ""
            axes.plot(*zip(*points, strict=True), color=color, marker=marker, lw=1.6 if number == 0 else 0.8, alpha=0.8)
    _set_limits(axes, scored, minimize)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"validation {metric}, mean over seeds")
    pruned = "; gray: stopped early" if any(row.state == "PRUNED" for row in rows) else ""
    figure.suptitle(f"Learning curves of all trials; the best in red{pruned}")
    return figure


def epochs_saved(rows: Sequence[Row]) -> Figure:
    """Draws how many epochs each trial was trained for, in the order of the trials.

    Args:
      rows: of the sweep.
    """
    figure = new_figure(7.2, 3.2)
    axes = figure.subplots()
    ordered = sorted(rows, key=lambda row: row.number)
    full = [len(row.seeds) * row.config.epochs for row in ordered]
    colors = [_PRUNED if row.state == "PRUNED" else _OTHER for row in ordered]
    axes.bar([row.number for row in ordered], full, color="none", edgecolor="0.8", width=0.9)
    axes.bar([row.number for row in ordered], [row.epochs for row in ordered], color=colors, width=0.9)
    axes.set_xlabel("trial")
    axes.set_ylabel("epochs, all seeds")
    trained, total = sum(row.epochs for row in rows), sum(full)
    figure.suptitle(f"{trained:,} of {total:,} epochs were trained; stopping early saved {1 - trained / total:.0%}")
    return figure
