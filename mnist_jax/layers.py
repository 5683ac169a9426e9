"""What models are made of: ACTIVATIONS and INITIALIZERS by their Keras names, convolution, max-pooling.

On a CPU, XLA's convolution is slow inside a loop (https://github.com/jax-ml/jax/issues/12868), and so is its gradient
of max-pooling: here convolution is a matrix product over patches there, and max-pooling everywhere a maximum of slices.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.random import threefry_2x32

# https://keras.io/api/layers/activations/
ACTIVATIONS = {
    "celu": jax.nn.celu,
    "elu": jax.nn.elu,
    "exponential": jnp.exp,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "hard_silu": jax.nn.hard_silu,
    "hard_tanh": jax.nn.hard_tanh,
    "leaky_relu": functools.partial(jax.nn.leaky_relu, negative_slope=0.2),
    "linear": jax.nn.identity,
    "log_sigmoid": jax.nn.log_sigmoid,
    "log_softmax": jax.nn.log_softmax,
    "mish": jax.nn.mish,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "selu": jax.nn.selu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softmax": jax.nn.softmax,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "sparse_plus": jax.nn.sparse_plus,
    "sparse_sigmoid": jax.nn.sparse_sigmoid,
    "squareplus": jax.nn.squareplus,
    "swish": jax.nn.swish,
    "tanh": jnp.tanh,
}

_INIT = jax.nn.initializers
# https://keras.io/api/layers/initializers/
INITIALIZERS = {
    "constant": _INIT.constant(0.05),
    "glorot_normal": _INIT.glorot_normal(),
    "glorot_uniform": _INIT.glorot_uniform(),
    "he_normal": _INIT.he_normal(),
    "he_uniform": _INIT.he_uniform(),
    "lecun_normal": _INIT.lecun_normal(),
    "lecun_uniform": _INIT.lecun_uniform(),
    "normal": _INIT.normal(0.05),
    "ones": _INIT.ones,
    "orthogonal": _INIT.orthogonal(),
    "random_normal": _INIT.normal(0.05),
    "random_uniform": lambda *args: _INIT.uniform(0.1)(*args) - 0.05,
    "truncated_normal": _INIT.truncated_normal(0.05),
    "uniform": lambda *args: _INIT.uniform(0.1)(*args) - 0.05,
    "variance_scaling": _INIT.variance_scaling(1.0, "fan_in", "truncated_normal"),
    "zeros": _INIT.zeros,
}


def patches_convolution(image: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any) -> jax.Array:
    """Convolves by one matrix product: every patch of the image, as a row, times the kernel.

    Args:
      image: [B, H, W, C] float.
      kernel: [h, w, C, F] float.
      strides: two steps, in pixels.
      padding: 'SAME', 'VALID' or ((top, bottom), (left, right)) in pixels.

    Returns:
      [B, H', W', F], equal to lax.conv_general_dilated to rounding.

    Source: K. Chellapilla et al., High performance convolutional neural networks for document processing, 2006.
    """
    height, width, channels, filters = kernel.shape
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(image.shape[1:3], (height, width), strides, padding)
    image = jnp.pad(image, ((0, 0), *padding, (0, 0)))
    rows = (image.shape[1] - height) // strides[0] + 1
    columns = (image.shape[2] - width) // strides[1] + 1
    patches = jnp.concatenate(
        [
            image[:, y : y + rows * strides[0] : strides[0], x : x + columns * strides[1] : strides[1]]
            for y in range(height)
            for x in range(width)
        ],
        axis=-1,
    )
    product = patches.reshape(-1, height * width * channels) @ kernel.reshape(-1, filters)
    return product.reshape(len(image), rows, columns, filters)


def convolution(image: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any, **options) -> jax.Array:
    """Convolves by the way that is fast where the program will run, for nn.Conv(conv_general_dilated=convolution).

    Args:
      image: [B, H, W, C] float.
      kernel: [h, w, C, F] float.
      strides: two steps, in pixels.
      padding: as lax.conv_general_dilated takes it.
      **options: what else lax.conv_general_dilated takes; one that is not its default is left to it.

    Returns:
      [B, H', W', F].
    """
    xla = functools.partial(lax.conv_general_dilated, window_strides=strides, padding=padding, **options)
    dilations = (*(options.get("lhs_dilation") or ()), *(options.get("rhs_dilation") or ()))
    plain = image.ndim == 4 and options.get("feature_group_count", 1) == 1 and not any(d != 1 for d in dilations)
    if not plain or options.get("precision") is not None:
        return xla(image, kernel)
    patches = functools.partial(patches_convolution, strides=strides, padding=padding)
    return lax.platform_dependent(image, kernel, cpu=patches, default=xla)


def max_pool(image: jax.Array, size: int = 2) -> jax.Array:
    """Takes the largest value of each size x size window; a remainder at the right and lower edge is left out.

    Args:
      image: [B, H, W, C] float.
      size: side of the windows, and their step, in pixels.

    Returns:
      [B, H // size, W // size, C].
    """
    rows, columns = image.shape[1] // size * size, image.shape[2] // size * size
    windows = [image[:, y:rows:size, x:columns:size] for y in range(size) for x in range(size)]
    return functools.reduce(jnp.maximum, windows)


def dropout(key: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    """Sets a share of the values to zero, drawn at random, and scales up the others, so that the mean stays.

    It uses both words of each Threefry block, where jax.random uses one: half the work for the same distribution.

    Args:
      key: [] typed PRNG key, of JAX's default kind.
      x: float of any shape.
      rate: share to drop, in [0, 1).

    Returns:
      The same shape and dtype.

    Source: N. Srivastava et al., Dropout, JMLR 2014; J. Salmon et al., Parallel random numbers, 2011 (Threefry).
    """
    bits = threefry_2x32(jax.random.key_data(key), jnp.arange(x.size, dtype=jnp.uint32)).reshape(x.shape)
    kept = bits < jnp.uint32(min(round((1 - rate) * 2**32), 2**32 - 1))
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)
