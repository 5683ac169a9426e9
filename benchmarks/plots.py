"""Plots of benchmark results."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure


def plot_throughput(cases: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws the images per second of each implementation, one panel of bars per case.

    Args:
      cases: results of benchmarks.compare.compare.

    Returns:
      A Figure.
    """
    columns = min(len(cases), 6)
    rows = -(-len(cases) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.6 * rows), layout="constrained")
    for number, case in enumerate(cases, start=1):
        axes = figure.add_subplot(rows, columns, number)
        names = list(case["implementations"])
        heights = [case["implementations"][name]["images_per_second"] for name in names]
        axes.bar(names, heights, color=["tab:orange" if name == "mnist_jax" else "tab:blue" for name in names])
        axes.axhline(
            case["roofline_images_per_second"],
            color="black",
            linestyle=":",
            label="all matmuls at the measured peak rate",
        )
        axes.set_title(f"{case['model']} {case['dtype']} {case['task']}, batch {case['batch_size']}", fontsize=9)
        axes.set_ylabel("images/s")
        axes.tick_params(axis="x", rotation=60)
        axes.legend(fontsize=8)
    return figure


def plot_scaling(points_by_axis: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draws the seconds per epoch and the peak memory against size, with linear growth from the first point.

    Args:
      points_by_axis: results of benchmarks.scaling.measure_scaling.

    Returns:
      A Figure, for each axis with one panel of time and one of memory.
    """
    rows = -(-len(points_by_axis) // 4)
    figure = Figure(figsize=(14, 6 * rows), layout="constrained")
    cells = figure.subfigures(rows, 4, squeeze=False).flat
    measures = (("seconds", "seconds per epoch", 1), ("peak_memory_bytes", "peak memory, MiB", 2**20))
    for cell, (name, points) in zip(cells, points_by_axis.items(), strict=False):
        measured = [point for point in points if "seconds" in point]
        sizes = np.array([point["value"] for point in measured], float)
        for axes, (key, label, unit) in zip(cell.subplots(2), measures, strict=True):
            values = np.array([point[key] for point in measured]) / unit
            axes.loglog(sizes, values, "o-")
            if len(sizes):
                axes.loglog(sizes, values[0] * sizes / sizes[0], ":", color="gray", label="linear")
                axes.legend(fontsize=8)
            axes.set_xticks(sizes, [f"{size:g}" for size in sizes], fontsize=7)
            axes.minorticks_off()
            axes.set_xlabel(name)
            axes.set_ylabel(label)
    return figure
