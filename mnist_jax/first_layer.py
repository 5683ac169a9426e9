"""The weights of a network's first layer as images, found by what the network computes, not by names of its parts."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import numpy as np

from mnist_jax.types import Array, PyTree

Predict: TypeAlias = Callable[[PyTree, np.ndarray], Array]  # (params, images [N, H, W, 1] float32) -> logits [N, K]


class FirstLayer(NamedTuple):
    """The layer that multiplies the pixels."""

    weights: np.ndarray  # [units, h, w] float32: an image per unit or filter
    is_output: bool  # whether the units are the network's outputs, in their order; if not, large weights come first


def find_first_layer(predict: Predict, params: PyTree, image_shape: tuple[int, ...]) -> FirstLayer | None:
    """Finds the layer whose weights the pixels are multiplied by, in a network of any library.

    Where pixels are divided by some factors, multiplying its weights by the same factors makes up for it, and that of
    no other layer. The factors are powers of two and signs, which change no rounding.

    Args:
      predict: runs the network.
      params: its parameters. Kernels are [pixels, units] or [h, w, 1, filters], as in Linen, NNX and Haiku.
      image_shape: (H, W, C) of the images.

    Returns:
      The layer; None if no layer sees the pixels as they are, or if they have several channels.
    """
    height, width, channels = image_shape
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(4, *image_shape)).astype(np.float32)
    for i, kernel in enumerate(map(np.asarray, leaves) if channels == 1 else ()):
        if kernel.shape[:-1] == (height * width,):
            factors = rng.choice(np.array([-2, -1, 1, 2], np.float32), image_shape)
            scaled, weights = kernel * factors.reshape(-1, 1), kernel.T.reshape(-1, height, width)
        elif kernel.ndim == 4 and kernel.shape[2] == 1:
            factors = np.array(-2, np.float32)
            scaled, weights = kernel * factors, np.moveaxis(kernel[:, :, 0], -1, 0)
        else:
            continue
        changed = jax.tree.unflatten(structure, [*leaves[:i], scaled, *leaves[i + 1 :]])
        logits = np.asarray(predict(params, images))
        if not np.allclose(predict(changed, images / factors), logits, rtol=1e-3, atol=1e-4):
            continue
        if weights.shape == (logits.shape[-1], height, width):
            products = np.einsum("nhwc,khw->nk", images, weights)
            if np.allclose(products, logits - predict(params, 0 * images), rtol=0.05, atol=0.05):
                return FirstLayer(weights, is_output=True)
        largest = np.argsort(-np.linalg.norm(weights, axis=(1, 2)), kind="stable")
        return FirstLayer(weights[largest], is_output=False)
    return None
