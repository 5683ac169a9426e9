"""Tells whether an image is like a digit at all: a small network, trained on MNIST's digits and on what are none.

benchmarks/likeness.py trains it; docs/predict.md says how well it does.
"""

import functools
import importlib.resources
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from mnist_jax.batches import pad_rows
from mnist_jax.config import Config
from mnist_jax.models import make_model
from mnist_jax.types import PyTree

WEIGHTS = importlib.resources.files("mnist_jax") / "likeness.npz"
BATCH = 64
CONFIG = Config(model="deep_cnn", filters=(8, 16, 32), kernel_size=5, hidden_sizes=(), norm="batch")


@functools.cache
def _compile() -> Callable[[PyTree, jax.Array], jax.Array]:
    model: Any = make_model(CONFIG, 2)
    return jax.jit(lambda variables, images: model.apply(variables, images[..., None] / 255.0, train=False))


@functools.cache
def _load() -> tuple[PyTree, float]:
    """The variables, and the threshold."""
    with WEIGHTS.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    threshold = float(arrays.pop("threshold"))
    return unflatten_dict({tuple(name.split("/")): array for name, array in arrays.items()}), threshold


def digit_logits(images: np.ndarray, variables: PyTree) -> np.ndarray:
    """How much more an image is like a digit than like anything else.

    Args:
      images: [N, 28, 28] uint8, light on dark, prepared as MNIST's.
      variables: of the network.

    Returns:
      [N] float32, the difference of the two logits.
    """
    batches = pad_rows(images, BATCH).reshape(-1, BATCH, *images.shape[1:])
    logits = np.concatenate([np.asarray(_compile()(variables, batch)) for batch in batches])[: len(images)]
    return logits[:, 1] - logits[:, 0]


def is_digit(images: np.ndarray) -> np.ndarray:
    """Tells which images are like a digit.

    Args:
      images: [N, 28, 28] uint8, light on dark, prepared as MNIST's.

    Returns:
      [N] bool: false for 1 % of MNIST's digits, and for most letters, scribbles and textures.
    """
    variables, threshold = _load()
    return digit_logits(images, variables) >= threshold
