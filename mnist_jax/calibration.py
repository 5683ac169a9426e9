"""How far a network's probabilities can be trusted: calibration error, temperature, and the diagram of both.

Source: C. Guo et al., On calibration of modern neural networks, 2017.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from scipy import optimize
from scipy.special import log_softmax, softmax

from mnist_jax.figures import new_figure

BINS = 15  # as in the paper


def _bin(logits: np.ndarray, labels: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence and accuracy of each bin of the highest probability that is not empty, and how many are in it."""
    probabilities = softmax(np.asarray(logits, np.float64), axis=-1)
    confidence, is_right = probabilities.max(axis=-1), probabilities.argmax(axis=-1) == labels
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(number, minlength=bins)
    filled = count > 0
    sums = [np.bincount(number, values, minlength=bins) for values in (confidence, is_right)]
    return sums[0][filled] / count[filled], sums[1][filled] / count[filled], count[filled]


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Measures the mean distance of confidence from accuracy, over bins of the highest probability.

    Args:
      logits: [N, K].
      labels: [N] int.
      bins: of equal width.

    Returns:
      The mean over images, 0 to 1.

    >>> round(expected_calibration_error(np.log([[0.75, 0.25]] * 4), np.array([0, 0, 1, 1])), 4)
    0.25
    """
    confidence, accuracy, count = _bin(logits, labels, bins)
    return float(np.sum(count * np.abs(confidence - accuracy)) / np.sum(count))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Finds the number to divide logits by that makes the labels most likely; of images that nothing was trained on.

    Args:
      logits: [N, K].
      labels: [N] int.

    Returns:
      The temperature, between 0.01 and 100.

    >>> round(fit_temperature(np.log([[0.9, 0.1]] * 4), np.array([0, 0, 0, 1])), 3)  # ln 9 / ln 3
    2.0
    """
    logits = np.asarray(logits, np.float64)

    def loss(log_temperature: float) -> float:
        log_p = log_softmax(logits / np.exp(log_temperature), axis=-1)
        return -float(np.mean(np.take_along_axis(log_p, labels[:, None], axis=-1)))

    return float(np.exp(optimize.minimize_scalar(loss, bounds=np.log([0.01, 100.0]), method="bounded").x))


def reliability_diagram(logits: Mapping[str, np.ndarray], labels: np.ndarray) -> Figure:
    """Draws accuracy against confidence, on or under a diagonal.

    Args:
      logits: from a title to [N, K].
      labels: [N] int.

    Returns:
      The figure.
    """
    figure = new_figure(4.5, 4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for title, one in logits.items():
        confidence, accuracy, _ = _bin(one, labels, BINS)
        error = expected_calibration_error(one, labels)
        axes.plot(confidence, accuracy, "o-", label=f"{title}: calibration error {error:.4f}")
    axes.set(xlabel="confidence, the highest probability", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left", fontsize=8)
    return figure
