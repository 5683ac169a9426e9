"""Plots of benchmark results. As in mnist_jax.plots, matplotlib is imported only when something is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_jax.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_throughput(cases: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws the images per second of each implementation, one panel of bars per case.

    Args:
      cases: results of benchmarks.compare.compare.

    Returns:
      A Figure.
    """
    columns = min(len(cases), 3)
    rows = -(-len(cases) // columns)
    figure = new_figure(max(5 * columns, 6), 2.6 * rows + 0.8)
    figure.suptitle("Throughput of each implementation, the median of its runs")
    for number, case in enumerate(cases, start=1):
        axes = figure.add_subplot(rows, columns, number)
        names = list(case["implementations"])[::-1]
        lengths = [case["implementations"][name]["images_per_second"] for name in names]
        axes.barh(names, lengths, color=["tab:orange" if name == "mnist_jax" else "tab:blue" for name in names])
        label = "_" * (number - 1) + "roofline: all matmuls at this machine's measured matmul rate"
        axes.axvline(case["roofline_images_per_second"], color="black", linestyle=":", label=label)
        axes.set_title(f"{case['model']} {case['dtype']} {case['task']}, batch size {case['batch_size']}", fontsize=10)
        axes.set_xlabel("images per second")
        axes.ticklabel_format(axis="x", style="plain")
        axes.locator_params(axis="x", nbins=6)
        axes.tick_params(axis="x", labelsize=8)
    figure.legend(loc="outside lower center")
    return figure


def plot_scaling(points_by_axis: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draws the seconds per epoch and the peak memory against size, with linear growth from the first point.

    Args:
      points_by_axis: results of benchmarks.scaling.measure_scaling.

    Returns:
      A Figure, for each axis with one panel of time and one of memory.
    """
    rows = -(-len(points_by_axis) // 4)
    figure = new_figure(14, 6 * rows)
    cells = figure.subfigures(rows, 4, squeeze=False).flat
    measures = (("seconds", "seconds per epoch", 1), ("peak_memory_bytes", "peak memory, MiB", 2**20))
    for cell, (name, points) in zip(cells, points_by_axis.items(), strict=False):
        model, size = name.replace("_size", " size").split(maxsplit=1)
        cell.suptitle(model)
        measured = [point for point in points if "seconds" in point]
        sizes = np.array([point["value"] for point in measured], float)
        for axes, (key, label, unit) in zip(cell.subplots(2), measures, strict=True):
            values = np.array([point[key] for point in measured]) / unit
            axes.loglog(sizes, values, "o-", label="measured")
            if len(sizes):
                axes.loglog(sizes, values[0] * sizes / sizes[0], ":", color="gray", label=f"proportional to {size}")
            axes.set_xticks(sizes, [f"{size:g}" for size in sizes], fontsize=7)
            axes.minorticks_off()
            axes.set_xlabel(size)
            axes.set_ylabel(label)
        cell.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure
