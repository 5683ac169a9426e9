"""The neuron that separates the plane, 1 where A x + B y > C: Rosenblatt's rule, gradient descent, a small network."""

import os
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mnist_jax.errors import DataError
from mnist_jax.files import read_text
from mnist_jax.models import Perceptron

MAX_COORDINATE = 1e6  # of a point: beyond it float32 is too coarse
RESTARTS = 8  # a small network may get stuck, so that many start at once and the best one counts


class Points(NamedTuple):
    """Labelled points of the plane."""

    position: np.ndarray  # [N, 2] float32
    label: np.ndarray  # [N] int32, 0 or 1


def draw_points(key: jax.Array, count: int, kind: str = "line") -> Points:
    """Draws points in the square from -1 to 1.

    Args:
      key: [] typed PRNG key.
      count: how many.
      kind: 'line', separated by a random line with a little room on both sides, or 'xor', around four corners, 1 where
        the signs differ.

    Returns:
      The points.
    """
    at, line = jax.random.split(key)
    position = jax.random.uniform(at, (4 * count, 2), minval=-1.0)
    if kind == "xor":
        corner = jnp.array([[0.6, 0.6], [-0.6, 0.6], [-0.6, -0.6], [0.6, -0.6]])
        position = jnp.tile(corner, (count, 1)) + 0.3 * position
        room, label = jnp.ones(len(position)), position[:, 0] * position[:, 1] < 0
    else:
        angle, offset = jax.random.uniform(line, (2,))
        normal = jnp.array([jnp.cos(2 * jnp.pi * angle), jnp.sin(2 * jnp.pi * angle)])
        distance = position @ normal - 0.6 * (offset - 0.5)
        room, label = jnp.abs(distance), distance > 0
    keep = np.flatnonzero(room > 0.05)[:count]
    return Points(np.asarray(position)[keep], np.asarray(label, np.int32)[keep])


def read_points(path: str | os.PathLike) -> Points:
    """Reads points from a CSV file: x, y, class a row; one line of headings may come first.

    Args:
      path: the file.

    Returns:
      The points.

    Raises:
      DataError: the file or one of its rows is wrong; the message names the row.
    """
    path = pathlib.Path(path)
    try:
        rows = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read: {getattr(error, 'strerror', None) or 'not text'}") from None
    points = []
    for number, row in enumerate(rows, start=1):
        cells = [cell.strip() for cell in row.split(",")]
        if cells == [""]:
            continue
        try:
            x, y, label = map(float, cells)
        except ValueError:
            if number == 1 and len(cells) == 3:
                continue
            raise DataError(f"{path}: row {number} is {row[:60]!r}, but must be x,y,class in numbers") from None
        if label not in (0, 1) or not max(abs(x), abs(y)) <= MAX_COORDINATE:
            raise DataError(
                f"{path}: row {number} is {row[:60]!r}; the class must be 0 or 1, x and y within {MAX_COORDINATE}"
            )
        points.append((x, y, label))
    if len({label for *_, label in points}) < 2:
        raise DataError(f"{path}: holds {len(points)} points of one class; two classes are needed")
    array = np.array(points, np.float32)
    return Points(array[:, :2], array[:, 2].astype(np.int32))


def answer(line: jax.Array, position: jax.Array) -> jax.Array:
    """Says which class a line gives to points.

    Args:
      line: [3] float32, (A, B, C).
      position: [N, 2] float32.

    Returns:
      [N] int32, 1 where A x + B y > C, else 0.
    """
    return (position @ line[:2] > line[2]).astype(jnp.int32)


def rosenblatt(points: Points, rate: float, epochs: int) -> np.ndarray:
    """Learns a line by the perceptron rule: only a wrong answer moves it, by rate * (label - answer) * input.

    Args:
      points: what to learn from, in this order.
      rate: the step's length.
      epochs: passes over the points, at most.

    Returns:
      [epochs + 1, 3] float32, (A, B, C) before the first epoch, all zero, and after each; it ends with the first epoch
      that leaves no error.

    Source: F. Rosenblatt, The perceptron, Psychological Review 65, 1958.
    """
    position, label = jnp.asarray(points.position), jnp.asarray(points.label)

    def correct(line, point):
        at, wanted = point
        error = wanted - answer(line, at[None])[0]
        return line + rate * error * jnp.append(at, -1.0), None

    def epoch(line, _):
        line, _ = jax.lax.scan(correct, line, (position, label))
        return line, (line, jnp.sum(answer(line, position) != label))

    lines, errors = jax.jit(lambda: jax.lax.scan(epoch, jnp.zeros(3), None, epochs)[1])()
    done = np.flatnonzero(errors == 0)
    lines = np.concatenate([np.zeros((1, 3), np.float32), lines])
    return lines[: done[0] + 2] if len(done) else lines


def logistic_loss(line: jax.Array, position: jax.Array, label: jax.Array) -> jax.Array:
    """Mean cross-entropy of a logistic neuron, p = sigmoid(A x + B y - C).

    Args:
      line: [3] float32, (A, B, C).
      position: [N, 2] float32.
      label: [N] int32, 0 or 1.

    Returns:
      [] float32, in nats.
    """
    return jnp.mean(optax.sigmoid_binary_cross_entropy(position @ line[:2] - line[2], label))


def gradient_descent(points: Points, rate: float, epochs: int) -> np.ndarray:
    """Learns a line by gradient descent on the logistic neuron's mean cross-entropy over all points.

    Args:
      points: what to learn from.
      rate: the step's length.
      epochs: steps.

    Returns:
      [epochs + 1, 3] float32, (A, B, C) before the first step, all zero, and after each.
    """
    position, label = jnp.asarray(points.position), jnp.asarray(points.label)

    def step(line, _):
        line = line - rate * jax.grad(logistic_loss)(line, position, label)
        return line, line

    lines = jax.jit(lambda: jax.lax.scan(step, jnp.zeros(3), None, epochs)[1])()
    return np.concatenate([np.zeros((1, 3), np.float32), lines])


def explain_step(line: np.ndarray, position: np.ndarray, label: int, rate: float) -> str:
    """Writes out one step of gradient descent on one point, in numbers.

    Args:
      line: [3] float, (A, B, C) before the step.
      position: [2] float.
      label: 0 or 1.
      rate: the step's length.

    Returns:
      Lines of text: forward, loss, backward (each derivative by the chain rule), optimise.
    """
    (a, b, c), (x, y) = map(float, line), map(float, position)
    z = a * x + b * y - c
    p = 1 / (1 + np.exp(-z))
    chosen = p if label else 1 - p
    by_p = -1 / p if label else 1 / (1 - p)
    slope = p * (1 - p)
    by_z = by_p * slope
    derivatives = {"A": by_z * x, "B": by_z * y, "C": -by_z}
    old = {"A": a, "B": b, "C": c}
    return "\n".join(
        [
            f"point     x = {x:.4f}, y = {y:.4f}, label {label}",
            f"forward   z = A x + B y - C = {a:.4f} * {x:.4f} + {b:.4f} * {y:.4f} - {c:.4f} = {z:.4f}",
            f"          p = 1 / (1 + exp(-z)) = {p:.4f}",
            f"loss      L = -log({'p' if label else '1 - p'}) = -log({chosen:.4f}) = {-np.log(chosen):.4f}",
            f"backward  dL/dp = {'-1 / p' if label else '1 / (1 - p)'} = {by_p:.4f}",
            f"          dp/dz = p (1 - p) = {slope:.4f}",
            f"          dL/dz = dL/dp * dp/dz = {by_z:.4f}",
            f"          dL/dA = dL/dz * x = {derivatives['A']:.4f}",
            f"          dL/dB = dL/dz * y = {derivatives['B']:.4f}",
            f"          dL/dC = dL/dz * -1 = {derivatives['C']:.4f}",
            *(
                f"{'optimise ' if name == 'A' else '         '} new {name} = {name} - rate * dL/d{name} = "
                f"{old[name]:.4f} - {rate:g} * {slope_of:.4f} = {old[name] - rate * slope_of:.4f}"
                for name, slope_of in derivatives.items()
            ),
        ]
    )


def separable(points: Points) -> bool:
    """Decides whether any line parts the two classes, by linear programming.

    Args:
      points: of both classes.

    Returns:
      Whether there is (A, B, C) with A x + B y > C just where the label is 1.
    """
    from scipy.optimize import linprog

    sign = np.where(points.label == 1, -1.0, 1.0)[:, None]
    position = points.position - points.position.mean(axis=0)
    position = position / np.maximum(np.abs(position).max(axis=0), 1e-12)
    rows = sign * np.concatenate([position, -np.ones((len(position), 1))], axis=1)
    return linprog(np.zeros(3), A_ub=rows, b_ub=-np.ones(len(rows)), bounds=(None, None)).status == 0


def train_network(key: jax.Array, points: Points, hidden: int, rate: float, epochs: int):
    """Trains a network with one hidden layer of tanh units on all points, by Adam, from several starts at once.

    Args:
      key: [] typed PRNG key.
      points: what to learn from.
      hidden: units of the hidden layer.
      rate: Adam's step length.
      epochs: steps.

    Returns:
      A function [N, 2] -> [N] float32, positive where the answer is 1: the start that ended with the lowest loss.
    """
    position, label = jnp.asarray(points.position), jnp.asarray(points.label)
    model, optimizer = Perceptron(classes=2, hidden=(hidden,), activation=jnp.tanh), optax.adam(rate)

    def loss_fn(params):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(model.apply(params, position), label))

    def step(carry, _):
        params, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(loss_fn)(params), opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    def run(key):
        params = model.init(key, position)
        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), None, epochs)
        return loss_fn(params), params

    losses, params = jax.jit(jax.vmap(run))(jax.random.split(key, RESTARTS))
    best = jax.tree.map(lambda leaf: leaf[jnp.argmin(losses)], params)

    def margin(position):
        logits = model.apply(best, jnp.asarray(position, jnp.float32))
        return np.asarray(logits[:, 1] - logits[:, 0])

    return margin
