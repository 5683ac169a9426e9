"""Augmentations that ablate.py tries by name, and that the library does not keep: rows for its table."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from examples.mixup import mixup
from mnist_jax.config import Config
from mnist_jax.types import Augment, Batch


def erase(key: jax.Array, batch: Batch) -> Batch:
    """Blackens a square of 4 to 12 pixels in half of the images (Z. Zhong et al., Random erasing, 2020)."""
    count, height, width, _ = batch.image.shape
    chance, size, top, left = jax.random.uniform(key, (4, count, 1))
    size = 4 + 8 * size

    def is_in(length: int, start: jax.Array) -> jax.Array:
        offset = jnp.arange(length)[None] - start * (length - size)
        return (offset >= 0) & (offset < size) & (chance < 0.5)

    inside = is_in(height, top)[:, :, None] & is_in(width, left)[:, None, :]
    return batch._replace(image=jnp.where(inside[..., None], 0.0, batch.image))


def change_stroke_width(key: jax.Array, batch: Batch) -> Batch:
    """Moves each image by up to half toward its dilation or its erosion, of 3x3 pixels."""
    amount = jax.random.uniform(key, (batch.image.shape[0], 1, 1, 1), minval=-0.5, maxval=0.5)
    window = {"window_dimensions": (1, 3, 3, 1), "window_strides": (1, 1, 1, 1), "padding": "SAME"}
    thick = jax.lax.reduce_window(batch.image, -jnp.inf, jax.lax.max, **window)
    thin = jax.lax.reduce_window(batch.image, jnp.inf, jax.lax.min, **window)
    toward = jnp.where(amount > 0, thick, thin)
    return batch._replace(image=batch.image + jnp.abs(amount) * (toward - batch.image))


TRIED: dict[str, Callable[[Config], Augment]] = {
    "erasing": lambda _: erase,
    "stroke_width": lambda _: change_stroke_width,
    "mixup": lambda _: mixup,
}
