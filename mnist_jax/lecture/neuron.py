"""A neuron that separates points of the plane: the perceptron rule, gradient descent, and a small network for XOR."""

import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mnist_jax.errors import DataError, summarize_exception
from mnist_jax.files import read_text
from mnist_jax.models import Perceptron
from mnist_jax.types import Array, PyTree

MAX_COORDINATE = 1e6  # beyond it, float32 is too coarse
NUM_RESTARTS = 8  # a small network can get stuck in a local minimum: train several, keep the best


class Points(NamedTuple):
    """Labeled points of the plane."""

    inputs: np.ndarray  # [N, 2] float32, (x, y)
    labels: np.ndarray  # [N] int32, 0 or 1


def sample_points(key: jax.Array, num_points: int, kind: str = "linear") -> Points:
    """Samples points in the square from -1 to 1.

    Args:
      key: [] typed PRNG key.
      num_points: how many.
      kind: 'linear', separated by a random line with a margin on both sides, or 'xor', four clusters, with label 1
        where the signs of x and y differ.

    Returns:
      The points.
    """
    inputs_key, line_key = jax.random.split(key)
    inputs = jax.random.uniform(inputs_key, (4 * num_points, 2), minval=-1.0)
    if kind == "xor":
        centers = jnp.array([[0.6, 0.6], [-0.6, 0.6], [-0.6, -0.6], [0.6, -0.6]])
        inputs = jnp.tile(centers, (num_points, 1)) + 0.3 * inputs
        margin, labels = jnp.ones(len(inputs)), inputs[:, 0] * inputs[:, 1] < 0
    else:
        angle, offset = jax.random.uniform(line_key, (2,))
        normal = jnp.array([jnp.cos(2 * jnp.pi * angle), jnp.sin(2 * jnp.pi * angle)])
        distance = inputs @ normal - 0.6 * (offset - 0.5)
        margin, labels = jnp.abs(distance), distance > 0
    keep = np.flatnonzero(margin > 0.05)[:num_points]
    return Points(np.asarray(inputs)[keep], np.asarray(labels, np.int32)[keep])


def read_points(path: str | os.PathLike[str]) -> Points:
    """Reads points from a CSV file with the columns x, y and class; the first line may be a header.

    Args:
      path: the file.

    Returns:
      The points.

    Raises:
      DataError: the file or one of its rows is invalid; the message names the row.
    """
    try:
        rows = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or summarize_exception(error)
        raise DataError(f"points={path}: can't be read: {reason}") from None
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
            raise DataError(f"points={path}: row {number} is {row[:60]!r}; expected x,y,class as numbers") from None
        if label not in (0, 1) or not max(abs(x), abs(y)) <= MAX_COORDINATE:
            raise DataError(
                f"points={path}: row {number} is {row[:60]!r}; the class must be 0 or 1, x and y at most "
                f"{MAX_COORDINATE:g} in magnitude"
            )
        points.append((x, y, label))
    num_classes = len({label for *_, label in points})
    if num_classes < 2:
        raise DataError(f"points={path}: two classes are needed, its {len(points)} points have {num_classes}")
    array = np.array(points, np.float32)
    return Points(array[:, :2], array[:, 2].astype(np.int32))


def predict(line: Array, inputs: Array) -> Array:
    """Predicts the classes of points by the side of a line that they are on.

    Args:
      line: [3] float32, (A, B, C).
      inputs: [N, 2] float32.

    Returns:
      [N] int32, 1 where A x + B y > C, else 0.
    """
    return (inputs @ line[:2] > line[2]).astype(jnp.int32)


def perceptron_rule(points: Points, learning_rate: float, epochs: int) -> np.ndarray:
    """Learns a line by the perceptron rule: each misclassified point adds learning_rate * (label - prediction) * input.

    Args:
      points: the training data, visited in this order.
      learning_rate: the step size.
      epochs: passes over the points, at most.

    Returns:
      [epochs + 1, 3] float32, (A, B, C) before the first epoch (zeros) and after each one, up to the first epoch that
      leaves no errors.

    Source: F. Rosenblatt, The perceptron, Psychological Review 65, 1958.
    """
    inputs, labels = jnp.asarray(points.inputs), jnp.asarray(points.labels)

    def update(line: jax.Array, point: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        x, label = point
        error = label - predict(line, x[None])[0]
        return line + learning_rate * error * jnp.append(x, -1.0), None

    def epoch(line: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        line, _ = jax.lax.scan(update, line, (inputs, labels))
        return line, (line, jnp.sum(predict(line, inputs) != labels))

    lines, errors = jax.jit(lambda: jax.lax.scan(epoch, jnp.zeros(3), None, epochs)[1])()
    converged = np.flatnonzero(errors == 0)
    lines = np.concatenate([np.zeros((1, 3), np.float32), lines])
    return lines[: converged[0] + 2] if len(converged) else lines


def logistic_loss(line: Array, inputs: Array, labels: Array) -> jax.Array:
    """Computes the mean cross-entropy of a logistic neuron, p = sigmoid(A x + B y - C).

    Args:
      line: [3] float32, (A, B, C).
      inputs: [N, 2] float32.
      labels: [N] int32, 0 or 1.

    Returns:
      [] float32, in nats.
    """
    return jnp.mean(optax.sigmoid_binary_cross_entropy(inputs @ line[:2] - line[2], labels))


def gradient_descent(points: Points, learning_rate: float, epochs: int) -> np.ndarray:
    """Learns a line by gradient descent on the logistic neuron's mean cross-entropy over all points.

    Args:
      points: the training data.
      learning_rate: the step size.
      epochs: number of steps.

    Returns:
      [epochs + 1, 3] float32, (A, B, C) before the first step (zeros) and after each one.
    """
    inputs, labels = jnp.asarray(points.inputs), jnp.asarray(points.labels)

    def step(line: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        line = line - learning_rate * jax.grad(logistic_loss)(line, inputs, labels)
        return line, line

    lines = jax.jit(lambda: jax.lax.scan(step, jnp.zeros(3), None, epochs)[1])()
    return np.concatenate([np.zeros((1, 3), np.float32), lines])


def explain_step(line: np.ndarray, point: np.ndarray, label: int, learning_rate: float) -> str:
    """Writes out one step of gradient descent on one point, in numbers.

    Args:
      line: [3] float, (A, B, C) before the step.
      point: [2] float, (x, y).
      label: 0 or 1.
      learning_rate: the step size.

    Returns:
      Lines of text: forward, loss, backward (each derivative by the chain rule), optimize.
    """
    (a, b, c), (x, y) = map(float, line), map(float, point)
    z = a * x + b * y - c
    p = 1 / (1 + np.exp(-z))
    likelihood = p if label else 1 - p
    dloss_dp = -1 / p if label else 1 / (1 - p)
    dp_dz = p * (1 - p)
    dloss_dz = dloss_dp * dp_dz
    grads = {"A": dloss_dz * x, "B": dloss_dz * y, "C": -dloss_dz}
    old = {"A": a, "B": b, "C": c}
    return "\n".join(
        [
            f"point     x = {x:.4f}, y = {y:.4f}, label {label}",
            f"forward   z = A x + B y - C = {a:.4f} * {x:.4f} + {b:.4f} * {y:.4f} - {c:.4f} = {z:.4f}",
            f"          p = 1 / (1 + exp(-z)) = {p:.4f}",
            f"loss      L = -log({'p' if label else '1 - p'}) = -log({likelihood:.4f}) = {-np.log(likelihood):.4f}",
            f"backward  dL/dp = {'-1 / p' if label else '1 / (1 - p)'} = {dloss_dp:.4f}",
            f"          dp/dz = p (1 - p) = {dp_dz:.4f}",
            f"          dL/dz = dL/dp * dp/dz = {dloss_dz:.4f}",
            f"          dL/dA = dL/dz * x = {grads['A']:.4f}",
            f"          dL/dB = dL/dz * y = {grads['B']:.4f}",
            f"          dL/dC = dL/dz * -1 = {grads['C']:.4f}",
            *(
                f"{'optimize' if name == 'A' else '':9} new {name} = {name} - learning_rate * dL/d{name} = "
                f"{old[name]:.4f} - {learning_rate:g} * {grad:.4f} = {old[name] - learning_rate * grad:.4f}"
                for name, grad in grads.items()
            ),
        ]
    )


def is_linearly_separable(points: Points) -> bool:
    """Decides by linear programming whether a line separates the two classes.

    Args:
      points: of both classes.

    Returns:
      Whether there is (A, B, C) with A x + B y > C exactly where the label is 1.
    """
    from scipy.optimize import linprog

    sign = np.where(points.labels == 1, -1.0, 1.0)[:, None]
    inputs = points.inputs - points.inputs.mean(axis=0)
    inputs = inputs / np.maximum(np.abs(inputs).max(axis=0), 1e-12)
    rows = sign * np.concatenate([inputs, -np.ones((len(inputs), 1))], axis=1)
    return bool(linprog(np.zeros(3), A_ub=rows, b_ub=-np.ones(len(rows)), bounds=(None, None)).status == 0)


def train_network(
    key: jax.Array, points: Points, hidden_size: int, learning_rate: float, epochs: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Trains a network with one hidden layer of tanh units on all points with Adam, from several initializations.

    Args:
      key: [] typed PRNG key.
      points: the training data.
      hidden_size: units of the hidden layer.
      learning_rate: Adam's.
      epochs: number of steps.

    Returns:
      The decision function of the network with the lowest final loss: [N, 2] -> [N] float32, positive for class 1.
    """
    inputs, labels = jnp.asarray(points.inputs), jnp.asarray(points.labels)
    model = Perceptron(num_classes=2, hidden_sizes=(hidden_size,), activation=jnp.tanh)
    optimizer = optax.adam(learning_rate)

    def loss_fn(params: PyTree) -> jax.Array:
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(model.apply(params, inputs), labels))

    def step(carry: tuple[PyTree, optax.OptState], _: None) -> tuple[tuple[PyTree, optax.OptState], None]:
        params, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(loss_fn)(params), opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    def train(key: jax.Array) -> tuple[jax.Array, PyTree]:
        params = model.init(key, inputs)
        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), None, epochs)
        return loss_fn(params), params

    losses, params = jax.jit(jax.vmap(train))(jax.random.split(key, NUM_RESTARTS))
    best = jax.tree.map(lambda leaf: leaf[jnp.argmin(losses)], params)

    def decision_function(inputs: np.ndarray) -> np.ndarray:
        logits = np.asarray(model.apply(best, jnp.asarray(inputs, jnp.float32)))
        return logits[:, 1] - logits[:, 0]

    return decision_function
