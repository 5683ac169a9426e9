"""Draws docs/accuracy.svg, what each network reaches and what it costs: python results/picture.py"""

import json
import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from table import GOALS, load_recipes

import mnist_jax as mj
from mnist_jax.config import config_from_dict
from mnist_jax.figures import new_figure

FOLDER = pathlib.Path(__file__).parent
COLORS = {"yes": "C3", "no": "C2", "not said": "0.5"}
# Where a name is written, in points from its point; those that are not here are to the right of it.
PLACES = {
    "perceptron_augmented": (6, -4),
    "cnn_tuned": (6, 4),
    "cnn_augmented": (-6, 0),
    "deep_cnn": (-6, 0),
    "deep_cnn_distilled": (6, 3),
    "LeCun 1998": (-6, 0),
    "Simard 2003": (-6, 0),
}
LABELS = {"parameters": "parameters", "multiply_adds": "multiply-adds an image", "seconds": "seconds of training"}


def count_multiply_adds(module: nn.Module) -> int:
    """Counts those of convolutions and dense layers for one image, as they are written, not as they are computed."""
    image = jnp.zeros((1, 28, 28, 1))

    def is_counted(layer: nn.Module, _: str) -> bool:
        return isinstance(layer, nn.Conv | nn.Dense)

    def init(image: jax.Array) -> dict[str, Any]:
        return module.init_with_output(jax.random.key(0), image, capture_intermediates=is_counted)[1]

    variables = jax.eval_shape(init, image)
    total = 0
    for layer, outputs in variables["intermediates"].items():
        kernel, (output,) = variables["params"][layer]["kernel"], outputs["__call__"]
        total += output.size * kernel.size // kernel.shape[-1]
    return total


def load_points() -> list[dict[str, Any]]:
    """What was trained here: test error in percent by name, and its costs."""
    return [
        {
            "name": one.name,
            "error": one.mean_error,
            "std": statistics.stdev(one.errors),
            "parameters": one.parameters,
            "multiply_adds": count_multiply_adds(mj.make_model(config_from_dict(one.config, mj.DistilledConfig()), 10)),
            "seconds": one.seconds,
        }
        for one in load_recipes(GOALS)
    ]


def _mark(axes: Axes, x: float, y: float, name: str, color: str) -> None:
    """Writes the name of a point beside it."""
    place = PLACES.get(name, (6, 0))
    side = "right" if place[0] < 0 else "left"
    axes.annotate(
        name, (x, y), xytext=place, textcoords="offset points", size=7, ha=side, va="center", color=color
    ).set_in_layout(False)


def draw(points: list[Mapping[str, Any]], published: list[Mapping[str, Any]]) -> Figure:
    """Draws the picture: a panel for each cost."""
    figure = new_figure(13, 4.5)
    panels = figure.subplots(1, 3, sharey=True)
    for axes, cost in zip(panels, LABELS, strict=True):
        for point in points:
            axes.errorbar(point[cost], point["error"], point["std"], fmt="o", color="C0", capsize=2)
            _mark(axes, point[cost], point["error"], point["name"], "C0")
        for point in published:
            if point.get(cost):
                color, error = COLORS[point["selected_on_test"]], 100 - point["accuracy"]
                axes.plot(point[cost], error, "s", color=color)
                _mark(axes, point[cost], error, point["mark"], color)
        axes.set(xscale="log", yscale="log", xlabel=LABELS[cost])
        axes.set_yticks([0.3, 0.5, 1, 2, 5], ["0.3", "0.5", "1", "2", "5"])
        axes.minorticks_off()
        axes.margins(x=0.45)
    panels[0].set_ylabel("test error, percent")
    return figure


if __name__ == "__main__":
    figure = draw(load_points(), json.loads((FOLDER / "published.json").read_text()))
    with rc_context({"svg.hashsalt": "accuracy"}):  # the same bytes from the same results
        figure.savefig(FOLDER.parent / "docs" / "accuracy.svg", metadata={"Date": None})
