"""What ablate.py tries by name and the library does not keep: augmentations, networks and optimizers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from examples.mixup import mixup
from mnist_jax.augment import AUGMENTATIONS
from mnist_jax.kernels import Padding, conv_im2col
from mnist_jax.models import DEEP_CNN_FIELDS, MODELS, DeepCNN, with_fields
from mnist_jax.optimizers import OPTIMIZERS
from mnist_jax.types import Batch, PyTree


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
    window = ((1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    thick = jax.lax.reduce_window(batch.image, -jnp.inf, jax.lax.max, *window)
    thin = jax.lax.reduce_window(batch.image, jnp.inf, jax.lax.min, *window)
    toward = jnp.where(amount > 0, thick, thin)
    return batch._replace(image=batch.image + jnp.abs(amount) * (toward - batch.image))


def shear(key: jax.Array, batch: Batch) -> Batch:
    """Moves each row of pixels sideways, by up to 0.2 pixels for each pixel that it is above or below the center."""
    count, height, width, _ = batch.image.shape
    slant = jax.random.uniform(key, (count, 1, 1), minval=-0.2, maxval=0.2)
    source = jnp.arange(width) + slant * (jnp.arange(height) - (height - 1) / 2)[:, None]
    left = jnp.floor(source).astype(jnp.int32)
    fraction = (source - left)[..., None]
    padded = jnp.pad(batch.image, ((0, 0), (0, 0), (width, width + 1), (0, 0)))

    def at(offset: int) -> jax.Array:
        return jnp.take_along_axis(padded, (left + width + offset)[..., None], axis=2)

    return batch._replace(image=at(0) * (1 - fraction) + at(1) * fraction)


class SqueezeExcite(DeepCNN):
    """Weighs the channels after each convolution by all of the image (J. Hu et al., 2018)."""

    @nn.nowrap
    def norm_act(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """Normalizes, activates and weighs."""
        x = super().norm_act(x, train, mask)
        squeezed = nn.relu(self.dense(x.mean(axis=(1, 2)), x.shape[-1] // 4))
        return x * nn.sigmoid(self.dense(squeezed, x.shape[-1]))[:, None, None]


class Residual(DeepCNN):
    """Adds to each convolution with as many channels as its input that input (K. He et al., 2016)."""

    @nn.nowrap
    def conv(self, x: jax.Array, filters: int, size: int, padding: str) -> jax.Array:
        """Convolves, and adds."""
        y = super().conv(x, filters, size, padding)
        return x + y if x.shape == y.shape else y


class DirectConvolution(DeepCNN):
    """Multiplies windows by kernels, where the library has Winograd's transforms on a CPU."""

    @nn.nowrap
    def conv(self, x: jax.Array, filters: int, size: int, padding: str) -> jax.Array:
        """Convolves."""
        use_bias = self.norm != "batch"
        options: dict[str, Any] = {"padding": padding, "use_bias": use_bias, "kernel_init": self.kernel_init}
        return nn.Conv(filters, (size, size), conv_general_dilated=_conv_by_windows, **options)(x)


def _conv_by_windows(
    image: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding, **_: object
) -> jax.Array:
    return conv_im2col(image, kernel, strides, padding)


class LookaheadState(NamedTuple):
    """Of lookahead."""

    fast: Any  # the state of Adam
    slow: PyTree  # parameters
    step: jax.Array  # [] int32


def lookahead(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Adam that goes back, every five steps, to the middle of where it was and is (M. Zhang et al., 2019)."""
    adam = optax.adam(learning_rate)

    def update(updates: PyTree, state: LookaheadState, params: PyTree) -> tuple[PyTree, LookaheadState]:
        updates, fast = adam.update(updates, state.fast, params)
        step = state.step + 1
        new = optax.apply_updates(params, updates)
        slow = jax.tree.map(lambda old, new: jnp.where(step % 5 == 0, (old + new) / 2, old), state.slow, new)
        new = jax.tree.map(lambda slow, new: jnp.where(step % 5 == 0, slow, new), slow, new)
        return jax.tree.map(jnp.subtract, new, params), LookaheadState(fast, slow, step)

    def init(params: PyTree) -> LookaheadState:
        return LookaheadState(adam.init(params), params, jnp.zeros((), jnp.int32))

    return optax.GradientTransformation(init, update)


def add_means() -> None:
    """Adds all of them to the library's tables."""
    augmentations = {"erasing": erase, "stroke_width": change_stroke_width, "mixup": mixup, "shear": shear}
    AUGMENTATIONS.update({name: lambda _, augment=augment: augment for name, augment in augmentations.items()})
    networks = {"squeeze_excite": SqueezeExcite, "residual": Residual, "direct_convolution": DirectConvolution}
    MODELS.update({name: with_fields(module, *DEEP_CNN_FIELDS) for name, module in networks.items()})
    OPTIMIZERS["lookahead"] = lookahead
