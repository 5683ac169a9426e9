"""Plots of data and runs. Each function returns a matplotlib Figure, which figures.save writes."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_jax.figures import draw_image, new_figure, save, set_size
from mnist_jax.first_layer import FirstLayer, Predict, find_first_layer
from mnist_jax.types import Dataset, PyTree, Record

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _longest_line(text: str) -> int:
    return max(map(len, text.split("\n")))


def image_grid(
    images: np.ndarray, titles: Sequence[str], columns: int, cmap: str = "gray_r", title: str = ""
) -> Figure:
    """Draws images in a grid.

    Args:
      images: [N, H, W, C] uint8 or float.
      titles: N titles.
      columns: images per row.
      cmap: matplotlib's colors for gray images; gray draws light digits on dark, as the network sees them.
      title: over the figure.

    Returns:
      A Figure.
    """
    rows = math.ceil(len(images) / columns)
    width = max([1.3, *(0.09 * _longest_line(text) for text in titles)])
    above = 0.2 * max((text.count("\n") + 1 for text in titles), default=0)
    height = 1.3 + above
    figure = new_figure(max(width * columns, 0.1 * _longest_line(title)) + 0.1, height * rows + 0.1 + 0.5 * bool(title))
    figure.suptitle(title)
    axes = figure.subplots()
    for number, (image, text) in enumerate(zip(images, titles, strict=False)):
        row, column = divmod(number, columns)
        draw_image(axes, image, (width * column, height * row + above, width, height - above), text, cmap=cmap)
    set_size(axes, width * columns, height * rows)
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
    names_width = 0.2 + 0.09 * max(map(_longest_line, class_names))
    figure = new_figure(0.75 * columns + names_width + 0.1, 0.75 * len(class_names) + 0.5)
    figure.suptitle("The first images of each class")
    axes = figure.subplots()
    for label, name in enumerate(class_names):
        axes.text(names_width - 0.1, 0.75 * (label + 0.5), name, ha="right", va="center")
        for column, image in enumerate(images[labels == label][:columns]):
            draw_image(axes, image, (names_width + 0.75 * column, 0.75 * label, 0.75, 0.75))
    set_size(axes, names_width + 0.75 * columns, 0.75 * len(class_names))
    return figure


def _draw_curves(axes: Axes, records: Sequence[Record], split: str, metric: str, style: Mapping[str, Any]) -> None:
    by_seed: dict[int, dict[int, float]] = {}
    for record in records:
        if metric in record.get(split, {}):
            value = record[split][metric]
            by_seed.setdefault(record["seed"], {})[record["epoch"]] = float("nan") if value is None else value
    label = split
    if len(by_seed) > 1:
        label = f"{split}, mean of {len(by_seed)} seeds"
        for number, curve in enumerate(by_seed.values()):
            each = "_" if number else f"{split}, each seed"  # a label with _ first is not listed
            axes.plot(list(curve), list(curve.values()), **style, alpha=0.35, linewidth=0.8, label=each)
    epochs = list(dict.fromkeys(epoch for curve in by_seed.values() for epoch in curve))
    if epochs:
        means = [float(np.mean([curve[epoch] for curve in by_seed.values() if epoch in curve])) for epoch in epochs]
        axes.plot(epochs, means, **style, marker=".", label=label)


def learning_curves(records: Sequence[Record], name: str = "") -> Figure:
    """Draws each metric of training and validation over the epochs: the mean over seeds, and each seed faintly.

    Args:
      records: lines of metrics.jsonl.
      name: of what was trained, for the title.

    Returns:
      A Figure with one panel per metric, two in a row.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    styles = {"train": {"color": "tab:blue"}, "validation": {"color": "tab:orange", "linestyle": "--"}}
    found = dict.fromkeys(name for record in records for split in styles for name in record.get(split, ()))
    metrics = [name for name in found if name not in ("count", "skipped")] or ["loss"]
    rows = math.ceil(len(metrics) / 2)
    figure = new_figure(9, 3.6 * rows + 0.6)
    figure.suptitle(f"Learning curves of {name}" if name else "Learning curves")
    labeled: dict[str, Artist] = {}
    for number, metric in enumerate(metrics, start=1):
        axes = figure.add_subplot(rows, 2, number)
        for split, style in styles.items():
            _draw_curves(axes, records, split, metric, style)
        axes.set(xlabel="epoch", ylabel="loss, mean per image" if metric == "loss" else metric.replace("_", " "))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if metric.endswith("accuracy"):
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(alpha=0.3)
        handles, labels = axes.get_legend_handles_labels()
        labeled |= zip(labels, handles, strict=True)
    if labeled:
        figure.legend(handles=labeled.values(), loc="outside lower center", ncols=len(labeled))
    return figure


def confusion(matrix: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draws a confusion matrix, shaded by the number of mistakes.

    Args:
      matrix: [classes, classes] int; rows are labels, columns predictions.
      class_names: one per class.

    Returns:
      A Figure.
    """
    side = max(6, 2 + 0.5 * len(class_names))
    figure = new_figure(side, side)
    axes = figure.subplots()
    wrong = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    axes.imshow(wrong, cmap="Reds", vmax=max(wrong.max(initial=0), 1) * 1.5)
    ticks = range(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=90 if max(map(len, class_names)) > 2 else 0)
    axes.set_yticks(ticks, class_names)
    axes.set(xlabel="predicted class", ylabel="true class (label)")
    error = f"{100 * wrong.sum() / max(matrix.sum(), 1):.2f} %"
    figure.suptitle(f"Confusion matrix: {wrong.sum()} of {matrix.sum()} images ({error}) are mistakes, in red")
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
    predicted = [f"{i}: {class_names[predictions[i]]} ({100 * probabilities[i].max():.0f}%)" for i in wrong]
    titles = [f"{first}\nlabel {class_names[labels[i]]}" for first, i in zip(predicted, wrong, strict=True)]
    drawn = ", here those whose labels got the lowest probability" if len(wrong) < num_wrong else ""
    title = f"{num_wrong} mistakes in {len(labels)} images ({100 * num_wrong / len(labels):.2f} %){drawn};\n"
    title += "over each: its row in the data, the predicted class, its probability, and the label"
    return image_grid(images[wrong], titles, min(8, len(wrong)), title=title)


def filters(layer: FirstLayer, class_names: Sequence[str], count: int = 64) -> Figure:
    """Draws the weights of a first layer's units as images, all on one scale.

    Args:
      layer: as from find_first_layer.
      class_names: one per output, written over the units of a network without a hidden layer.
      count: how many units to draw at most.

    Returns:
      A Figure.
    """
    weights = layer.weights[:count]
    columns = min(5 if layer.is_output else 8, len(weights))
    rows = math.ceil(len(weights) / columns)
    above = 0.2 if layer.is_output else 0.0
    height = 1 + above
    figure = new_figure(max(columns, 5) + 1.5, height * rows + 0.8)
    title = f"Weights of {len(weights)} of the first layer's {len(layer.weights)} units, the largest first;\n"
    title += "noise is what they began with"
    of_classes = "The weights of each class's output:\nred pixels speak for the class, blue ones against it"
    figure.suptitle(of_classes if layer.is_output else title)
    axes = figure.subplots()
    largest = np.percentile(np.abs(weights), 99.5) or 1
    names = class_names if layer.is_output else [""] * count
    for number, (weight, name) in enumerate(zip(weights, names, strict=False)):
        row, column = divmod(number, columns)
        box = (column, height * row + above, 1, 1)
        draw_image(axes, weight[..., None], box, name, cmap="RdBu_r", vmin=-largest, vmax=largest)
    set_size(axes, columns, height * rows)
    figure.colorbar(axes.images[0], ax=axes, extend="both", aspect=30, label="weight")
    return figure


def save_run_plots(
    workdir: pathlib.Path,
    records: Sequence[Record],
    dataset: Dataset,
    logits: np.ndarray,
    params: PyTree,
    name: str = "",
    predict: Predict | None = None,
) -> None:
    """Writes the plots of a run: learning_curves.png and, for a classifier, confusion.png, mistakes.png, filters.png.

    Args:
      workdir: the run's folder.
      records: lines of metrics.jsonl.
      dataset: its test images and labels belong to `logits`.
      logits: [M, classes] float32; other shapes are no classification.
      params: the network's parameters.
      name: of what was trained, for a title.
      predict: runs the network on what it sees; filters.png is drawn where find_first_layer finds a layer by it.
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
    if predict and (layer := find_first_layer(predict, params, dataset.test_images.shape[1:])):
        save(filters(layer, names), workdir / "filters.png")
