"""What models are made of: ACTIVATIONS and INITIALIZERS by their Keras names, products, convolution, max-pooling.

On a CPU, XLA's gradients of convolution and of max-pooling are slow (https://github.com/jax-ml/jax/issues/12868): here
convolution that is differentiated is matrix products there, over patches or in Winograd's way, and max-pooling that is
differentiated is everywhere a maximum of slices. Where a network computes in bfloat16, its products take bfloat16 and
give float32, in which all else is computed.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
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


def unpromoted(inputs: jax.Array, kernel: jax.Array, bias: jax.Array | None, dtype: Any = None) -> tuple[Any, ...]:
    """Leaves dtypes as they are, for nn.Dense(promote_dtype=unpromoted): the kernel's says how a layer multiplies.

    Args:
      inputs: of any shape and float dtype.
      kernel: the same.
      bias: the same.
      dtype: not used.

    Returns:
      The three.
    """
    return inputs, kernel, bias


def _by_rows(a: jax.Array, b: jax.Array) -> jax.Array:
    """[m, k] @ [k, n], rounded to bfloat16 and laid out by rows: XLA's CPU kernels are fast (twice float32's) only so,
    while it would rather leave an operand transposed than copy it."""
    narrow = (with_layout_constraint(x.astype(jnp.bfloat16), Layout(major_to_minor=(0, 1))) for x in (a, b))
    return lax.dot(*narrow, preferred_element_type=jnp.float32)


@jax.custom_vjp
def _narrow_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """[m, k] @ [k, n] of float32, in products of bfloat16 summed in float32; so is its gradient."""
    return _by_rows(a, b)


def _narrow_product_forward(a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    return _by_rows(a, b), (a, b)


def _narrow_product_backward(saved: tuple[jax.Array, jax.Array], slope: jax.Array) -> tuple[jax.Array, jax.Array]:
    a, b = saved
    return _by_rows(slope, b.T), _by_rows(a.T, slope)


_narrow_product.defvjp(_narrow_product_forward, _narrow_product_backward)


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Multiplies matrices; by a bfloat16 one into float32, by the way that is fast where the program will run.

    Args:
      a: [m, k] float.
      b: [k, n] float.

    Returns:
      [m, n], float32 where b is bfloat16, and then with a derivative in reverse mode only.

    Source: P. Micikevicius et al., Mixed precision training, 2018.

    >>> product(jnp.ones((2, 3)), jnp.ones((3, 1), jnp.bfloat16)).dtype
    dtype('float32')
    """
    if b.dtype != jnp.bfloat16:
        return a @ b

    def by_rows(a: jax.Array, b: jax.Array) -> jax.Array:
        return _narrow_product(a.astype(jnp.float32), b.astype(jnp.float32))

    def by_xla(a: jax.Array, b: jax.Array) -> jax.Array:
        return (a.astype(b.dtype) @ b).astype(jnp.float32)

    return lax.platform_dependent(a, b, cpu=by_rows, default=by_xla)


def dense_product(inputs: jax.Array, kernel: jax.Array, dimension_numbers: Any, precision: Any = None) -> jax.Array:
    """Multiplies by `product`, for nn.Dense(dot_general=dense_product).

    Args:
      inputs: [..., k] float.
      kernel: [k, n] float.
      dimension_numbers: of nn.Dense, which are always these.
      precision: as lax.dot_general takes it; one that is not the default is left to it.

    Returns:
      [..., n], float32 where the kernel is bfloat16.
    """
    if precision is not None:
        return lax.dot_general(inputs, kernel, dimension_numbers, precision=precision)
    return product(inputs.reshape(-1, inputs.shape[-1]), kernel).reshape(*inputs.shape[:-1], -1)


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
    flat = patches.reshape(-1, height * width * channels) @ kernel.reshape(-1, filters)
    return flat.reshape(len(image), rows, columns, filters)


def apart(image: jax.Array) -> list[jax.Array]:
    """Takes an image apart into its even and odd rows and columns.

    It copies the image where four strided slices would not, but its gradient is `together`, and theirs is slow.

    Args:
      image: [B, 2 h, 2 w, C].

    Returns:
      Four of [B, h, w, C]: the upper left pixel of each 2x2 window, the upper right, the lower left, the lower right.
    """
    batch, height, width, channels = image.shape
    windows = image.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return lax.split(windows.reshape(batch, height // 2, width // 2, -1), [channels] * 4, axis=3)


def together(parts: Sequence[jax.Array]) -> jax.Array:
    """Undoes `apart`.

    Args:
      parts: four of [B, h, w, C].

    Returns:
      [B, 2 h, 2 w, C].
    """
    batch, height, width, channels = parts[0].shape
    windows = jnp.concatenate(parts, axis=3).reshape(batch, height, width, 2, 2, channels)
    return windows.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels)


# F(2x2, 3x3): the transforms of a tile of 4x4 pixels, of a 3x3 kernel, and of the product into 2x2 pixels.
_TILE = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))


def _transform(matrix: Sequence[Sequence[float]], square: Sequence[Sequence[jax.Array]]) -> list[list[jax.Array]]:
    """matrix @ square @ matrix.T, where the square's entries are arrays."""

    def combine(row, entries):
        return functools.reduce(jnp.add, [factor * x for factor, x in zip(row, entries, strict=True) if factor])

    half = [[combine(row, column) for row in matrix] for column in zip(*square, strict=True)]
    return [[combine(row, [column[i] for column in half]) for row in matrix] for i in range(len(matrix))]


def winograd_convolution(image: jax.Array, kernel: jax.Array, padding: Any) -> jax.Array:
    """Convolves with 3x3 kernels in steps of one pixel, with 16 products where patches need 36.

    Args:
      image: [B, H, W, C] float.
      kernel: [3, 3, C, F] float.
      padding: 'SAME', 'VALID' or ((top, bottom), (left, right)) in pixels.

    Returns:
      [B, H', W', F], equal to lax.conv_general_dilated to rounding (1e-6 of the largest value in float32); float32
      where the kernel is bfloat16.

    Source: A. Lavin and S. Gray, Fast algorithms for convolutional neural networks, 2015.
    """
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(image.shape[1:3], (3, 3), (1, 1), padding)
    rows, columns = (size + sum(pads) - 2 for size, pads in zip(image.shape[1:3], padding, strict=True))
    tiles = [-(-size // 2) for size in (rows, columns)]
    multiply = _narrow_product if kernel.dtype == jnp.bfloat16 else jnp.matmul
    wide = jnp.promote_types(kernel.dtype, jnp.float32)
    even = [(low, high + size % 2) for (low, high), size in zip(padding, (rows, columns), strict=True)]
    parts = apart(jnp.pad(image.astype(wide), ((0, 0), *even, (0, 0))))
    pixels = [
        [parts[2 * (y % 2) + x % 2][:, y // 2 : y // 2 + tiles[0], x // 2 : x // 2 + tiles[1]] for x in range(4)]
        for y in range(4)
    ]
    kernels = _transform(_KERNEL, kernel.astype(wide))
    shape = (len(image), *tiles, kernel.shape[3])
    products = [
        [multiply(tile.reshape(-1, kernel.shape[2]), kernels[a][b]).reshape(shape) for b, tile in enumerate(row)]
        for a, row in enumerate(_transform(_TILE, pixels))
    ]
    return together([part for row in _transform(_OUTPUT, products) for part in row])[:, :rows, :columns]


def convolution(image: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any, **options) -> jax.Array:
    """Convolves by the way that is fast where the program will run, for nn.Conv(conv_general_dilated=convolution).

    On a CPU that is Winograd's for 3x3 kernels of many channels; for others patches where it is differentiated, and
    XLA's where it is not.

    Args:
      image: [B, H, W, C] float.
      kernel: [h, w, C, F] float; its dtype says in which to multiply.
      strides: two steps, in pixels.
      padding: as lax.conv_general_dilated takes it.
      **options: what else nn.Conv gives lax.conv_general_dilated, in its order of axes; groups, dilations or a
        precision that are not the defaults are left to it.

    Returns:
      [B, H', W', F], float32 where the kernel is narrower.
    """
    wide = jnp.promote_types(kernel.dtype, jnp.float32)

    def by_xla(image: jax.Array, kernel: jax.Array) -> jax.Array:
        image = image.astype(kernel.dtype)
        return lax.conv_general_dilated(image, kernel, strides, padding, **options).astype(wide)

    dilations = (*(options.get("lhs_dilation") or ()), *(options.get("rhs_dilation") or ()))
    plain = image.ndim == 4 and options.get("feature_group_count", 1) == 1 and not any(d != 1 for d in dilations)
    if not plain or options.get("precision") is not None:
        return by_xla(image, kernel)
    enough = min(kernel.shape[2:]) >= 16  # channels and filters, for the products to outweigh the transforms
    is_small = enough and kernel.shape[:2] == (3, 3) and tuple(strides) == (1, 1)

    if is_small:
        by_winograd = functools.partial(winograd_convolution, padding=padding)
        return lax.platform_dependent(image, kernel, cpu=by_winograd, default=by_xla)

    def by_patches(image: jax.Array, kernel: jax.Array) -> jax.Array:
        return patches_convolution(image.astype(wide), kernel.astype(wide), strides, padding)

    undifferentiated = jax.custom_jvp(lambda image, kernel: by_xla(image.astype(wide), kernel.astype(wide)))
    undifferentiated.defjvp(lambda pair, changes: jax.jvp(by_patches, pair, changes))
    return lax.platform_dependent(image, kernel, cpu=undifferentiated, default=by_xla)


def _quarters(image: jax.Array) -> list[jax.Array]:
    """What `apart` gives, an odd last row or column left out: as slices, which are faster where a maximum is taken."""
    rows, columns = (side // 2 * 2 for side in image.shape[1:3])
    return [image[:, y:rows:2, x:columns:2] for y in (0, 1) for x in (0, 1)]


@jax.custom_jvp
def max_pool(image: jax.Array) -> jax.Array:
    """Takes the largest value of each 2x2 window; an odd last row or column is left out.

    Its derivative is jnp.max's: values that are the largest together share it.

    Args:
      image: [B, H, W, C] float.

    Returns:
      [B, H // 2, W // 2, C].
    """
    return lax.reduce_window(image, jnp.array(-jnp.inf, image.dtype), lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


@max_pool.defjvp
def _max_pool_jvp(primals, tangents):
    parts, changes = _quarters(*primals), _quarters(*tangents)
    largest = functools.reduce(jnp.maximum, parts)
    are_largest = [part == largest for part in parts]
    change = sum(jnp.where(mask, change, 0) for mask, change in zip(are_largest, changes, strict=True))
    return largest, change / sum(mask.astype(largest.dtype) for mask in are_largest)


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
