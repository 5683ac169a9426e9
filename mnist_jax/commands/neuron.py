"""Trains one neuron to separate points of the plane, 1 if A x + B y > C, else 0: perceptron rule and gradient descent.

python -m mnist_jax neuron
python -m mnist_jax neuron --explain
python -m mnist_jax neuron --points=xor --hidden_size=2

Writes perceptron_rule.png and gradient_descent.png, or with --hidden_size network.png.
"""

import dataclasses
from typing import TYPE_CHECKING

from mnist_jax import cli
from mnist_jax.commands._output import OutputFlags
from mnist_jax.errors import ConfigError
from mnist_jax.fields import flag_field

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mnist_jax.lecture.neuron import Points


@dataclasses.dataclass(frozen=True)
class Flags(OutputFlags):
    """The flags of the command."""

    points: str = flag_field(
        "linear", "linear or xor, sampled at random, or a CSV file with the columns x,y,class", group="data"
    )
    num_points: int = flag_field(100, "points to sample", group="data", minimum=2, exclusive_maximum=1_000_001)
    seed: int = flag_field(7, "root of all randomness", minimum=0)
    learning_rate: float = flag_field(
        0.0, "step size; 0: 1 for gradient descent, otherwise 0.1", minimum=0, exclusive_maximum=1_000_001
    )
    epochs: int = flag_field(500, "passes over the points, at most", minimum=1, exclusive_maximum=1_000_001)
    hidden_size: int = flag_field(
        0, "train a network with so many hidden units; 0: one neuron", minimum=0, exclusive_maximum=1_000_001
    )
    explain: bool = flag_field(False, "write out one step of gradient descent in numbers", group="output")
    show: bool = flag_field(True, "show the plots if there is a screen", group="output")


def main(flags: Flags, positional: list[str]) -> None:
    """Runs the command.

    Args:
      flags: parsed flags.
      positional: must be empty.

    Raises:
      ConfigError: a wrong flag, no folder to write, or training diverged.
      DataError: an invalid CSV file.
    """
    cli.reject_positionals(positional)
    if not flags.explain:
        names = ("network",) if flags.hidden_size else ("perceptron_rule", "gradient_descent")
        flags.check_output(*(f"{name}.png" for name in names))
    import jax
    import numpy as np

    from mnist_jax.figures import save
    from mnist_jax.lecture import neuron

    if flags.points in ("linear", "xor"):
        points = neuron.sample_points(jax.random.key(flags.seed), flags.num_points, flags.points)
    else:
        points = neuron.read_points(flags.points)
    if flags.explain:
        line = np.array([0.5, -0.5, 0.1])
        print(neuron.explain_step(line, points.inputs[0], int(points.labels[0]), flags.learning_rate or 1.0))
        return
    figures, lines = _train_network(flags, points) if flags.hidden_size else _train_neuron(flags, points)
    folder = flags.make_output("neuron")
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png", flags.show)
    print(*lines, f"Results: {folder}", sep="\n")


def _train_network(flags: Flags, points: "Points") -> "tuple[dict[str, Figure], list[str]]":
    """Figures by name, and lines to print."""
    import jax
    import numpy as np

    from mnist_jax.lecture import neuron
    from mnist_jax.lecture.plots import decision_boundary

    key = jax.random.fold_in(jax.random.key(flags.seed), 1)
    decision_function = neuron.train_network(key, points, flags.hidden_size, flags.learning_rate or 0.1, flags.epochs)
    errors = int(((decision_function(points.inputs) > 0) != points.labels).sum())
    title = f"network 2-{flags.hidden_size}-2: {errors} errors in {len(points.labels)} points"
    figure = decision_boundary(points.inputs, points.labels, np.zeros((0, 3)), decision_function, title)
    return {"network": figure}, [title]


def _train_neuron(flags: Flags, points: "Points") -> "tuple[dict[str, Figure], list[str]]":
    """Figures by name, and lines to print."""
    import numpy as np

    from mnist_jax.lecture import neuron
    from mnist_jax.lecture.plots import decision_boundary

    figures, text, all_errors = {}, [], []
    for name, rule, default_learning_rate in (
        ("perceptron_rule", neuron.perceptron_rule, 0.1),
        ("gradient_descent", neuron.gradient_descent, 1.0),
    ):
        title = name.replace("_", " ")
        lines = rule(points, flags.learning_rate or default_learning_rate, flags.epochs)
        if not np.isfinite(lines).all():
            raise ConfigError(f"learning_rate={flags.learning_rate}: {title} diverged; choose a smaller one")
        a, b, c = lines[-1]
        errors = int((np.asarray(neuron.predict(lines[-1], points.inputs)) != points.labels).sum())
        all_errors.append(errors)
        text.append(
            f"{title}: A = {a:.4f}, B = {b:.4f}, C = {c:.4f} after {len(lines) - 1} epochs; "
            f"{errors} errors in {len(points.labels)} points"
        )
        title += f": {errors} errors in {len(points.labels)} points"
        figures[name] = decision_boundary(points.inputs, points.labels, lines[1:], title=title)
    if any(all_errors):
        if neuron.is_linearly_separable(points):
            text.append("A line separates these points: try more --epochs, or rescale the columns.")
        else:
            text.append("No line separates these points: try a small network with --hidden_size=2.")
    return figures, text


if __name__ == "__main__":
    cli.run_cli(__doc__, Flags(), main)
