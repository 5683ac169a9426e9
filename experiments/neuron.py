"""One perceptron that separates the plane: 1 if Ax + By > C, else 0; by Rosenblatt's rule and by gradient descent.

python -m experiments.neuron
python -m experiments.neuron --explain
python -m experiments.neuron --points=xor --hidden=2
"""

import dataclasses

from experiments import flags
from mnist_jax.config import choice
from mnist_jax.errors import ConfigError
from mnist_jax.files import expanded


@dataclasses.dataclass(frozen=True)
class Choices:
    points: str = choice("line", "line or xor, drawn from --seed, or a CSV file of x,y,class")
    count: int = choice(100, "points to draw")
    seed: int = choice(7, "root of all randomness")
    learning_rate: float = choice(0.0, "step length; 0: 0.1, for gradient descent 1, for --hidden 0.1 (Adam)")
    epochs: int = choice(500, "passes over the points, at most")
    hidden: int = choice(0, "units of a hidden layer: a small network instead of one neuron; 0 for none")
    explain: bool = choice(False, "write out one step of gradient descent in numbers")
    workdir: str = choice("runs/neuron", "folder for the pictures")
    show: bool = choice(True, "show the pictures where there is a screen")


def main(values, rest):
    flags.refuse(rest)
    most = {"seed": 2**31}
    for name, low in {"count": 2, "seed": 0, "epochs": 1, "hidden": 0, "learning_rate": 0}.items():
        if not low <= values[name].value < most.get(name, 1_000_001):
            raise ConfigError(
                f"--{name}={values[name].value}: must be at least {low}, and below {most.get(name, 1_000_001)}"
            )
    import jax
    import numpy as np

    from mnist_jax import neuron, plots

    key = jax.random.key(values.seed)
    drawn = values.points in ("line", "xor")
    points = neuron.draw_points(key, values.count, values.points) if drawn else neuron.read_points(values.points)
    workdir = expanded(values.workdir)
    rate = values.learning_rate

    if values.explain:
        line = np.array([0.5, -0.5, 0.1])
        print(neuron.explain_step(line, points.position[0], int(points.label[0]), rate or 1.0))
        return
    if values.hidden:
        margin = neuron.train_network(jax.random.fold_in(key, 1), points, values.hidden, rate or 0.1, values.epochs)
        errors = int(((margin(points.position) > 0) != points.label).sum())
        print(f"network 2-{values.hidden}-2: errors {errors} of {len(points.label)}")
        figure = plots.plane(points.position, points.label, np.zeros((0, 3)), margin)
        plots.save(figure, workdir / "network.png", values.show)
        print(f"Pictures: {workdir}")
        return
    left = []
    for name, title, rule, default in (
        ("rosenblatt", "Rosenblatt's rule", neuron.rosenblatt, 0.1),
        ("gradient_descent", "gradient descent", neuron.gradient_descent, 1.0),
    ):
        lines = rule(points, rate or default, values.epochs)
        if not np.isfinite(lines).all():
            raise ConfigError(f"--learning_rate={rate}: {title} diverged; choose a smaller one")
        a, b, c = lines[-1]
        left.append(int((np.asarray(neuron.answer(lines[-1], points.position)) != points.label).sum()))
        print(
            f"{title}: A = {a:.4f}, B = {b:.4f}, C = {c:.4f} after {len(lines) - 1} epochs; "
            f"errors {left[-1]} of {len(points.label)}"
        )
        plots.save(plots.plane(points.position, points.label, lines[1:]), workdir / f"{name}.png", values.show)
    if any(left):
        if neuron.separable(points):
            print("A line separates these points: try more --epochs, or columns of like scale.")
        else:
            print("No line separates these points; --hidden=2 tries a small network.")
    print(f"Pictures: {workdir}")


if __name__ == "__main__":
    flags.command(__doc__, (Choices(),), main)
