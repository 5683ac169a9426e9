"""Pictures of data and runs. matplotlib is imported only here, and only when a picture is drawn.

Each function returns a matplotlib Figure; `save` writes it.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mnist_jax.files import aside
from mnist_jax.metrics import confusion_matrix
from mnist_jax.types import Dataset


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: str | os.PathLike, show: bool = False) -> None:
    """Writes a picture, and shows it where asked and where there is a screen.

    Args:
      figure: of matplotlib.
      path: where to; the suffix says the format, such as .png or .svg.
      show: whether to open a window as well, and wait until it is closed.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(aside(path), dpi=120, format=path.suffix[1:])
    aside(path).replace(path)
    if show:
        from matplotlib import pyplot
        from matplotlib.backends import BackendFilter, backend_registry

        if pyplot.get_backend().lower() in backend_registry.list_builtin(BackendFilter.INTERACTIVE):
            manager = pyplot.figure().canvas.manager
            manager.canvas.figure = figure
            figure.set_canvas(manager.canvas)
            pyplot.show()


def _picture(axes: Any, image: np.ndarray, title: str = "", color: str = "black", **options: Any) -> None:
    axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, **({"cmap": "gray_r"} | options))
    axes.set_title(title, fontsize=9, color=color)
    axes.set_axis_off()


def pictures(images: np.ndarray, titles: Sequence[str], columns: int) -> Any:
    """Draws images side by side.

    Args:
      images: [N, H, W, C] uint8.
      titles: N words.
      columns: images in a row.

    Returns:
      A Figure.
    """
    rows = -(-len(images) // columns)
    figure = _figure(1.3 * columns, 1.5 * rows)
    for axes, image, title in zip(figure.subplots(rows, columns, squeeze=False).flat, images, titles, strict=False):
        _picture(axes, image, title)
    for axes in figure.axes[len(images) :]:
        axes.set_axis_off()
    return figure


def class_sheet(images: np.ndarray, labels: np.ndarray, class_names: Sequence[str], columns: int = 12) -> Any:
    """Draws the first images of each class, a row a class.

    Args:
      images: [N, H, W, C] uint8.
      labels: [N] int32.
      class_names: what the rows are called.
      columns: images in a row.

    Returns:
      A Figure.
    """
    figure = _figure(0.7 * columns + 1, 0.75 * len(class_names))
    grid = figure.subplots(len(class_names), columns, squeeze=False)
    for label, (row, name) in enumerate(zip(grid, class_names, strict=True)):
        chosen = images[labels == label][:columns]
        for axes in row:
            axes.set_axis_off()
        for axes, image in zip(row, chosen, strict=False):
            _picture(axes, image)
        row[0].text(-0.2, 0.5, name, transform=row[0].transAxes, ha="right", va="center")
    return figure


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def learning_curves(records: Sequence[dict[str, Any]]) -> Any:
    """Draws loss and accuracy of training and validation over the epochs; several seeds faintly, their mean strongly.

    Args:
      records: lines of metrics.jsonl.

    Returns:
      A Figure.
    """
    figure = _figure(9, 3.6)
    for axes, measure in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split, color in (("train", "tab:blue"), ("validation", "tab:orange")):
            curves: dict[int, list[tuple[int, float]]] = {}
            for record in records:
                if split in record:
                    curves.setdefault(record["seed"], []).append((record["epoch"], _number(record[split][measure])))
            for curve in curves.values() if len(curves) > 1 else ():
                axes.plot(*zip(*curve, strict=True), color=color, alpha=0.25, linewidth=0.8)
            by_epoch: dict[int, list[float]] = {}
            for epoch, value in (point for curve in curves.values() for point in curve):
                by_epoch.setdefault(epoch, []).append(value)
            if by_epoch:
                means = [float(np.mean(values)) for values in by_epoch.values()]
                axes.plot(list(by_epoch), means, color=color, marker=".", label=split)
        axes.set(xlabel="epoch", ylabel=measure)
        axes.grid(alpha=0.3)
        if records:
            axes.legend()
    return figure


def confusion(matrix: np.ndarray, class_names: Sequence[str]) -> Any:
    """Draws a confusion matrix; the shade shows the mistakes, not the many that are right.

    Args:
      matrix: [classes, classes] int; rows are labels, columns what the network said.
      class_names: what they are called.

    Returns:
      A Figure.
    """
    side = 2 + 0.5 * len(class_names)
    figure = _figure(side, side)
    axes = figure.subplots()
    wrong = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    axes.imshow(wrong, cmap="Reds", vmax=max(wrong.max(initial=0), 1) * 1.5)
    ticks = range(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=90 if max(map(len, class_names)) > 2 else 0)
    axes.set_yticks(ticks, class_names)
    axes.set(xlabel="predicted", ylabel="label")
    for row, column in np.ndindex(matrix.shape):
        if matrix[row, column]:
            bold = "bold" if row == column else "normal"
            axes.text(column, row, int(matrix[row, column]), ha="center", va="center", fontsize=8, fontweight=bold)
    return figure


def mistakes(
    images: np.ndarray, labels: np.ndarray, logits: np.ndarray, class_names: Sequence[str], count: int = 24
) -> Any:
    """Draws the worst mistakes: the wrong answers that the network was surest of, with its answer and the label.

    Args:
      images: [N, H, W, C] uint8.
      labels: [N] int32.
      logits: [N, classes] float32.
      class_names: what the classes are called.
      count: how many to draw at most.

    Returns:
      A Figure.
    """
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probability = shifted / shifted.sum(axis=-1, keepdims=True)
    answer = probability.argmax(axis=-1)
    wrong = np.flatnonzero(answer != labels)
    wrong = wrong[np.argsort(probability[wrong, labels[wrong]], kind="stable")][:count]
    titles = [
        f"{class_names[answer[i]]} ({100 * probability[i, answer[i]]:.0f} %)\nlabel {class_names[labels[i]]}"
        for i in wrong
    ]
    if not len(wrong):
        figure = _figure(4, 1)
        figure.text(0.5, 0.5, f"no mistake in {len(labels)} images", ha="center")
        return figure
    return pictures(images[wrong], titles, columns=min(8, len(wrong)))


def first_layer(params: Any, shape: tuple[int, int, int]) -> np.ndarray | None:
    """Finds what the units of a network's first layer look for.

    Args:
      params: a network's parameters.
      shape: (H, W, C) of the images.

    Returns:
      [units, h, w] float32, the weights of each unit as an image of the pixels it sees; None where the first layer is
      neither a convolution nor dense. A dense layer's units come in the order of their weight in the next layer.
    """
    height, width, channels = shape
    layer = params.get("Conv_0") or params.get("Dense_0")
    if layer is None or channels != 1:
        return None
    kernel = np.asarray(layer["kernel"])
    if kernel.ndim == 4:
        return np.moveaxis(kernel[:, :, 0], -1, 0)
    if len(kernel) != height * width:
        side = round(len(kernel) ** 0.5)
        return np.moveaxis(kernel.reshape(side, side, -1), -1, 0) if side * side == len(kernel) else None
    if "Dense_1" in params:
        kernel = kernel[:, np.argsort(-np.linalg.norm(params["Dense_1"]["kernel"], axis=-1), kind="stable")]
    return np.moveaxis(kernel.reshape(height, width, -1), -1, 0)


def filters(weights: np.ndarray, count: int = 64) -> Any:
    """Draws what units look for: red adds to their activation, blue takes away.

    Args:
      weights: [units, h, w] float32, such as first_layer gives.
      count: how many to draw at most.

    Returns:
      A Figure.
    """
    weights = weights[:count]
    columns = min(8, len(weights))
    rows = -(-len(weights) // columns)
    figure = _figure(columns, rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, weight in zip(grid.flat, weights, strict=False):
        top = np.abs(weight).max() or 1
        _picture(axes, weight[..., None], cmap="RdBu_r", vmin=-top, vmax=top)
    return figure


def plane(points: np.ndarray, labels: np.ndarray, lines: np.ndarray, above: Any = None) -> Any:
    """Draws points of two classes and the line that separates them, with its way over the epochs.

    Args:
      points: [N, 2] float.
      labels: [N] int, 0 or 1.
      lines: [epochs, 3] float, (A, B, C) of Ax + By = C after each epoch; empty for none.
      above: [N, 2] -> [N] float, positive where the answer is 1, to shade a network's answer; None for no shade.

    Returns:
      A Figure.
    """
    figure = _figure(5, 5)
    axes = figure.subplots()
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.1 * np.maximum(high - low, 1e-6)
    (left, bottom), (right, top) = low - margin, high + margin
    if above is not None:
        x, y = np.meshgrid(np.linspace(left, right, 200), np.linspace(bottom, top, 200))
        shade = above(np.stack([x.ravel(), y.ravel()], axis=-1)).reshape(x.shape)
        axes.contourf(x, y, shade > 0, levels=[-0.5, 0.5, 1.5], colors=["tab:blue", "tab:orange"], alpha=0.2)
    for label, marker, color in ((0, "o", "tab:blue"), (1, "^", "tab:orange")):
        axes.scatter(*points[labels == label].T, marker=marker, color=color, s=18, label=str(label))
    for i, (a, b, c) in enumerate(lines):
        last = i == len(lines) - 1
        style = {"color": "black", "linewidth": 2} if last else {"color": "gray", "alpha": 0.15 + 0.4 * i / len(lines)}
        norm = a * a + b * b
        if norm > 0:
            axes.axline((a * c / norm, b * c / norm), (a * c / norm - b, b * c / norm + a), **style)
    axes.set(xlim=(left, right), ylim=(bottom, top), xlabel="x", ylabel="y")
    axes.legend(title="class", loc="upper right")
    return figure


def save_pictures(
    workdir: pathlib.Path, records: Sequence[dict[str, Any]], dataset: Dataset, logits: np.ndarray, params: Any
) -> None:
    """Writes the pictures of a run: learning_curves.png, confusion.png, mistakes.png and, where there are, filters.png.

    Args:
      workdir: the run's folder.
      records: lines of metrics.jsonl.
      dataset: its test images are those that `logits` are of.
      logits: [M, classes] float32.
      params: the network's parameters.
    """
    matrix = confusion_matrix(dataset.test_labels, logits.argmax(axis=-1), len(dataset.class_names))
    save(learning_curves(records), workdir / "learning_curves.png")
    save(confusion(matrix, dataset.class_names), workdir / "confusion.png")
    save(mistakes(dataset.test_images, dataset.test_labels, logits, dataset.class_names), workdir / "mistakes.png")
    weights = first_layer(params, dataset.test_images.shape[1:])
    if weights is not None:
        save(filters(weights), workdir / "filters.png")


def speeds(rows: Sequence[dict[str, Any]]) -> Any:
    """Draws the images a second of each contestant, a group of bars a row.

    Args:
      rows: of benchmarks.compare.compare.

    Returns:
      A Figure.
    """
    columns = min(len(rows), 6)
    lines = -(-len(rows) // columns)
    figure = _figure(3.2 * columns, 3.6 * lines)
    for number, row in enumerate(rows):
        axes = figure.add_subplot(lines, columns, number + 1)
        names = list(row["contestants"])
        heights = [row["contestants"][name]["images_per_second"] for name in names]
        axes.bar(names, heights, color=["tab:orange" if name == "ours" else "tab:blue" for name in names])
        axes.axhline(row["floor_images_per_second"], color="black", linestyle=":", label="floor")
        axes.set_title(f"{row['model']} {row['precision']} {row['task']}, batch {row['batch_size']}", fontsize=9)
        axes.set_ylabel("images/s")
        axes.tick_params(axis="x", rotation=60)
        axes.legend(fontsize=8)
    return figure


def growth(axes_told: dict[str, list[dict[str, Any]]]) -> Any:
    """Draws seconds an epoch and peak memory against size, with the straight line through the first point.

    Args:
      axes_told: of benchmarks.growth.measure_growth.

    Returns:
      A Figure.
    """
    rows = -(-len(axes_told) // 4)
    figure = _figure(14, 6 * rows)
    panels = figure.subfigures(rows, 4, squeeze=False).flat
    for panel, (name, points) in zip(panels, axes_told.items(), strict=False):
        pair = panel.subplots(2)
        points = [point for point in points if "seconds" in point]
        sizes = np.array([point["value"] for point in points], float)
        for axes, figure_of, unit in zip(
            pair, ("seconds", "peak_memory_bytes"), ("seconds an epoch", "peak memory, MiB"), strict=True
        ):
            values = np.array([point[figure_of] for point in points]) / (1 if figure_of == "seconds" else 2**20)
            axes.loglog(sizes, values, "o-")
            if len(sizes):
                axes.loglog(sizes, values[0] * sizes / sizes[0], ":", color="gray", label="linear")
                axes.legend(fontsize=8)
            axes.set_xticks(sizes, [f"{size:g}" for size in sizes], fontsize=7)
            axes.minorticks_off()
            axes.set_xlabel(name)
            axes.set_ylabel(unit)
    return figure
