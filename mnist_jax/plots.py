"""Plots of data and runs. Each function returns a matplotlib Figure; `save` writes it.

matplotlib is imported only when something is drawn.
"""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_jax.files import temp_path
from mnist_jax.types import Dataset, PyTree, Record

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


def _draw_image(axes: Axes, image: np.ndarray, title: str = "", **imshow_kwargs: Any) -> None:
    if image.shape[-1] not in (3, 4):
        image = image[..., 0]
    elif image.dtype != np.uint8:  # imshow clips the colors of float images to [0, 1]
        image = (image - image.min()) / max(np.ptp(image), 1e-12)
    axes.imshow(image, **({"cmap": "gray_r"} | imshow_kwargs))
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def image_grid(images: np.ndarray, titles: Sequence[str], columns: int, cmap: str = "gray_r") -> Figure:
    """Draws images in a grid.

    Args:
      images: [N, H, W, C] uint8 or float.
      titles: N titles.
      columns: images per row.
      cmap: matplotlib's colors for gray images; gray draws light digits on dark, as the network sees them.

    Returns:
      A Figure.
    """
    rows = math.ceil(len(images) / columns)
    lines = max((title.count("\n") + 1 for title in titles), default=1)
    figure = new_figure(1.3 * columns, (1.3 + 0.2 * lines) * rows)
    for axes, image, title in zip(figure.subplots(rows, columns, squeeze=False).flat, images, titles, strict=False):
        _draw_image(axes, image, title, cmap=cmap)
    for axes in figure.axes[len(images) :]:
        axes.set_axis_off()
    return figure


def class_grid(images: np.ndarray, labels: np.ndarray, class_names: Sequence[str], columns: int = 12) -> Figure:
    """Draws the first images of each class, one row per class.

    Args:
      images: [N, H, W, C] uint8 or float.
      labels: [N] int32.
      class_names: one per row.
      columns: images per row.

    Returns:
      A Figure.
    """
    figure = new_figure(0.7 * columns + 1, 0.75 * len(class_names))
    grid = figure.subplots(len(class_names), columns, squeeze=False)
    for label, (row, name) in enumerate(zip(grid, class_names, strict=True)):
        for axes in row:
            axes.set_axis_off()
        for axes, image in zip(row, images[labels == label][:columns], strict=False):
            _draw_image(axes, image)
        row[0].text(-0.2, 0.5, name, transform=row[0].transAxes, ha="right", va="center")
    return figure


def _draw_curves(axes: Axes, records: Sequence[Record], split: str, metric: str, color: str) -> None:
    by_seed: dict[int, dict[int, float]] = {}
    for record in records:
        if metric in record.get(split, {}):
            value = record[split][metric]
            by_seed.setdefault(record["seed"], {})[record["epoch"]] = float("nan") if value is None else value
    for curve in by_seed.values() if len(by_seed) > 1 else ():
        axes.plot(list(curve), list(curve.values()), color=color, alpha=0.25, linewidth=0.8)
    if epochs := list(dict.fromkeys(epoch for curve in by_seed.values() for epoch in curve)):
        label = f"{split}, mean of {len(by_seed)} seeds (faint: each)" if len(by_seed) > 1 else split
        means = [float(np.mean([curve[epoch] for curve in by_seed.values() if epoch in curve])) for epoch in epochs]
        axes.plot(epochs, means, color=color, marker=".", label=label)


def learning_curves(records: Sequence[Record], name: str = "") -> Figure:
    """Draws each metric of training and validation over the epochs: the mean over seeds, and each seed faintly.

    Args:
      records: lines of metrics.jsonl.
      name: of what was trained, for the title.

    Returns:
      A Figure with one panel per metric, two in a row.
    """
    splits = {"train": "tab:blue", "validation": "tab:orange"}
    found = dict.fromkeys(name for record in records for split in splits for name in record.get(split, ()))
    metrics = [name for name in found if name not in ("count", "skipped")] or ["loss"]
    rows = math.ceil(len(metrics) / 2)
    figure = new_figure(9, 3.6 * rows + 0.6)
    figure.suptitle(f"Learning curves{name and ': '}{name}")
    for number, metric in enumerate(metrics, start=1):
        axes = figure.add_subplot(rows, 2, number)
        for split, color in splits.items():
            _draw_curves(axes, records, split, metric, color)
        axes.set(xlabel="epoch", ylabel="loss, in nats" if metric == "loss" else metric.replace("_", " "))
        axes.locator_params(axis="x", integer=True)
        axes.grid(alpha=0.3)
    if handles := figure.axes[0].get_legend_handles_labels()[0]:
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def confusion(matrix: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draws a confusion matrix, shaded by the number of mistakes.

    Args:
      matrix: [classes, classes] int; rows are labels, columns predictions.
      class_names: one per class.

    Returns:
      A Figure.
    """
    side = 2 + 0.5 * len(class_names)
    figure = new_figure(side, side)
    axes = figure.subplots()
    wrong = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    axes.imshow(wrong, cmap="Reds", vmax=max(wrong.max(initial=0), 1) * 1.5)
    ticks = range(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=90 if max(map(len, class_names)) > 2 else 0)
    axes.set_yticks(ticks, class_names)
    axes.set(xlabel="predicted class", ylabel="true class (label)")
    axes.set_title(f"{wrong.sum()} of {matrix.sum()} images misclassified (red)")
    for row, column in np.ndindex(matrix.shape):
        if matrix[row, column]:
            weight = "bold" if row == column else "normal"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=8, fontweight=weight)
    return figure


def mistakes(
    images: np.ndarray, labels: np.ndarray, logits: np.ndarray, class_names: Sequence[str], count: int = 24
) -> Figure:
    """Draws the misclassified images whose labels got the lowest probability, with prediction and label.

    Args:
      images: [N, H, W, C] uint8 or float.
      labels: [N] int32.
      logits: [N, classes] float32.
      class_names: one per class.
      count: how many to draw at most.

    Returns:
      A Figure.
    """
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = exp / exp.sum(axis=-1, keepdims=True)
    predictions = probabilities.argmax(axis=-1)
    wrong = np.flatnonzero(predictions != labels)
    num_wrong = len(wrong)
    wrong = wrong[np.argsort(probabilities[wrong, labels[wrong]], kind="stable")][:count]
    if not len(wrong):
        figure = new_figure(4, 1)
        figure.text(0.5, 0.5, f"no mistakes in {len(labels)} images", ha="center")
        return figure
    titles = [
        f"{class_names[predictions[i]]} ({100 * probabilities[i, predictions[i]]:.0f}%)\nlabel {class_names[labels[i]]}"
        for i in wrong
    ]
    figure = image_grid(images[wrong], titles, columns=max(4, min(8, len(wrong))))
    of_all = f"{len(wrong)} of {num_wrong}" if len(wrong) < num_wrong else str(num_wrong)
    figure.suptitle(
        f"{of_all} mistakes in {len(labels)} images, the most wrong first:\npredicted class (its probability), label"
    )
    return figure


def first_layer(params: PyTree, image_shape: tuple[int, ...]) -> np.ndarray | None:
    """Gets the weights of a network's first layer as images of the pixels that they apply to.

    Args:
      params: a network's parameters.
      image_shape: (H, W, C) of the images.

    Returns:
      [units, h, w] float32; None if the first layer is neither a convolution nor dense, or if there are several
      channels. The units of a dense layer are sorted by the norm of their weights in the next layer.
    """
    height, width, channels = image_shape
    if not isinstance(params, Mapping) or channels != 1:
        return None
    if "Conv_0" in params:
        kernel = np.asarray(params["Conv_0"]["kernel"])
        return np.moveaxis(kernel[:, :, 0], -1, 0) if kernel.ndim == 4 and kernel.shape[2] == 1 else None
    is_dense = {name.split("_")[0] for name in params} <= {"Dense", "BatchNorm", "LayerNorm"}
    if not is_dense or "Dense_0" not in params:  # in other networks, a layer of another kind comes before Dense_0
        return None
    kernel = np.asarray(params["Dense_0"]["kernel"])
    if len(kernel) != height * width:
        return None
    if "Dense_1" in params:
        kernel = kernel[:, np.argsort(-np.linalg.norm(params["Dense_1"]["kernel"], axis=-1), kind="stable")]
    return np.moveaxis(kernel.reshape(height, width, -1), -1, 0)


def filters(weights: np.ndarray, titles: Sequence[str] = (), count: int = 64) -> Figure:
    """Draws the weights of units as images, positive ones in red and negative ones in blue, all on one scale.

    Args:
      weights: [units, h, w] float32, as from first_layer.
      titles: one over each unit, such as the class that it stands for; empty for none.
      count: how many units to draw at most.

    Returns:
      A Figure.
    """
    drawn = weights[:count]
    columns = min(5 if titles else 8, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    figure = new_figure(max(columns, 4) + 1, rows * (1.2 if titles else 1) + 0.6)
    figure.suptitle(f"Weights of {len(drawn)} of the first layer's {len(weights)} units")
    grid = figure.subplots(rows, columns, squeeze=False)
    largest = np.percentile(np.abs(drawn), 99.5) or 1
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, weight, title in zip(grid.flat, drawn, titles or [""] * count, strict=False):
        _draw_image(axes, weight[..., None], title, cmap="RdBu_r", vmin=-largest, vmax=largest)
    figure.colorbar(grid[0, 0].images[0], ax=grid, extend="both", label="weight of a pixel")
    return figure


def save_run_plots(
    workdir: pathlib.Path,
    records: Sequence[Record],
    dataset: Dataset,
    logits: np.ndarray,
    params: PyTree,
    name: str = "",
) -> None:
    """Writes the plots of a run: learning_curves.png and, for a classifier, confusion.png, mistakes.png, filters.png.

    Args:
      workdir: the run's folder.
      records: lines of metrics.jsonl.
      dataset: its test images and labels belong to `logits`.
      logits: [M, classes] float32; other shapes are no classification.
      params: the network's parameters; filters.png is drawn where first_layer finds pixels.
      name: of what was trained, for a title.
    """
    save(learning_curves(records, name), workdir / "learning_curves.png")
    names, labels = dataset.class_names, dataset.test_labels
    if logits.ndim != 2 or logits.shape[-1] != len(names):
        return
    from sklearn.metrics import confusion_matrix

    labels = labels.argmax(axis=-1) if labels.ndim == 2 else labels
    matrix = confusion_matrix(labels, logits.argmax(axis=-1), labels=range(len(names)))
    save(confusion(matrix, names), workdir / "confusion.png")
    save(mistakes(dataset.test_images, labels, logits, names), workdir / "mistakes.png")
    weights = first_layer(params, dataset.test_images.shape[1:])
    if weights is not None:
        is_only_layer = len(weights) == len(names) and "Dense_1" not in params and "Conv_0" not in params
        save(filters(weights, names if is_only_layer else ()), workdir / "filters.png")
