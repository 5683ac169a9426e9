"""Operations with a faster implementation on a CPU than XLA's: convolution, max-pooling and dropout.

lax.platform_dependent picks ours on a CPU and XLA's elsewhere when a program is lowered.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.random import threefry2x32_p, threefry_2x32

from mnist_jax.fields import is_traced
from mnist_jax.matmul import bf16_matmul
from mnist_jax.sharding import has_mesh

Padding: TypeAlias = str | Sequence[tuple[int, int]]  # 'SAME', 'VALID' or ((top, bottom), (left, right)) in pixels


def conv_im2col(image: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding) -> jax.Array:
    """Convolves by one matrix product (im2col): every patch of the image, as a row, times the kernel.

    Args:
      image: [B, H, W, C] float.
      kernel: [h, w, C, F] float.
      strides: vertical and horizontal, in pixels.
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
    return flat.reshape(image.shape[0], rows, columns, filters)


def space_to_depth(image: jax.Array) -> Sequence[jax.Array]:
    """Splits an image into its even and odd rows and columns.

    Unlike four strided slices it copies the image, but its gradient is `depth_to_space`, and theirs is slow on a CPU.

    Args:
      image: [B, 2 h, 2 w, C].

    Returns:
      Four of [B, h, w, C]: the upper left pixel of each 2x2 window, the upper right, the lower left, the lower right.
    """
    batch, height, width, channels = image.shape
    windows = image.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return lax.split(windows.reshape(batch, height // 2, width // 2, -1), [channels] * 4, axis=3)


def depth_to_space(parts: Sequence[jax.Array]) -> jax.Array:
    """Inverts `space_to_depth`.

    Args:
      parts: four of [B, h, w, C].

    Returns:
      [B, 2 h, 2 w, C].
    """
    batch, height, width, channels = parts[0].shape
    windows = jnp.concatenate(parts, axis=3).reshape(batch, height, width, 2, 2, channels)
    return windows.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels)


# F(2x2, 3x3): the transforms of a 4x4 input tile, of a 3x3 kernel, and of their product into 2x2 output pixels.
_TILE = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))


def _transform(matrix: Sequence[Sequence[float]], square: Iterable[Iterable[jax.Array]]) -> list[list[jax.Array]]:
    """matrix @ square @ matrix.T, where the square's entries are arrays."""

    def combine(row: Sequence[float], entries: Sequence[jax.Array]) -> jax.Array:
        return functools.reduce(jnp.add, [factor * x for factor, x in zip(row, entries, strict=True) if factor])

    half = [[combine(row, column) for row in matrix] for column in zip(*square, strict=True)]
    return [[combine(row, [column[i] for column in half]) for row in matrix] for i in range(len(matrix))]


def conv_winograd_3x3(image: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """Convolves with 3x3 kernels at stride 1, with 16 multiplications where im2col needs 36 (Winograd's F(2x2, 3x3)).

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
    tiles = [math.ceil(size / 2) for size in (rows, columns)]
    multiply = bf16_matmul if kernel.dtype == jnp.bfloat16 else jnp.matmul
    accum_dtype = jnp.promote_types(kernel.dtype, jnp.float32)
    even = [(low, high + size % 2) for (low, high), size in zip(padding, (rows, columns), strict=True)]
    parts = space_to_depth(jnp.pad(image.astype(accum_dtype), ((0, 0), *even, (0, 0))))
    pixels = [
        [parts[2 * (y % 2) + x % 2][:, y // 2 : y // 2 + tiles[0], x // 2 : x // 2 + tiles[1]] for x in range(4)]
        for y in range(4)
    ]
    kernels = _transform(_KERNEL, kernel.astype(accum_dtype))
    shape = (image.shape[0], *tiles, kernel.shape[3])
    products = [
        [multiply(tile.reshape(-1, kernel.shape[2]), kernels[a][b]).reshape(shape) for b, tile in enumerate(row)]
        for a, row in enumerate(_transform(_TILE, pixels))
    ]
    return depth_to_space([part for row in _transform(_OUTPUT, products) for part in row])[:, :rows, :columns]


def conv2d(image: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding, **options: Any) -> jax.Array:
    """Convolves by the algorithm that is fast on the platform; for nn.Conv(conv_general_dilated=conv2d).

    On a CPU that is Winograd's for 3x3 kernels with many channels. Other kernels take im2col where they are
    differentiated (https://github.com/jax-ml/jax/issues/12868) and XLA's own convolution where they are not.

    Args:
      image: [B, H, W, C] float.
      kernel: [h, w, C, F] float; multiplication is in its dtype.
      strides: vertical and horizontal, in pixels.
      padding: as in lax.conv_general_dilated.
      **options: nn.Conv's other arguments of lax.conv_general_dilated, which is called where groups, dilations or a
        precision differ from the defaults.

    Returns:
      [B, H', W', F], float32 where the kernel is bfloat16.
    """
    accum_dtype = jnp.promote_types(kernel.dtype, jnp.float32)

    def by_xla(image: jax.Array, kernel: jax.Array) -> jax.Array:
        image = image.astype(kernel.dtype)
        return lax.conv_general_dilated(image, kernel, strides, padding, **options).astype(accum_dtype)

    dilations = (*(options.get("lhs_dilation") or ()), *(options.get("rhs_dilation") or ()))
    plain = image.ndim == 4 and options.get("feature_group_count", 1) == 1 and not any(d != 1 for d in dilations)
    if not plain or options.get("precision") is not None:
        return by_xla(image, kernel)
    has_enough_channels = min(kernel.shape[2:]) >= 16  # below that Winograd's transforms cost more than they save
    use_winograd = has_enough_channels and kernel.shape[:2] == (3, 3) and tuple(strides) == (1, 1)

    if use_winograd:
        by_winograd = functools.partial(conv_winograd_3x3, padding=padding)
        return lax.platform_dependent(image, kernel, cpu=by_winograd, default=by_xla)

    def by_patches(image: jax.Array, kernel: jax.Array) -> jax.Array:
        return conv_im2col(image.astype(accum_dtype), kernel.astype(accum_dtype), strides, padding)

    primal_conv = jax.custom_jvp(lambda image, kernel: by_xla(image.astype(accum_dtype), kernel.astype(accum_dtype)))
    primal_conv.defjvp(lambda primals, tangents: jax.jvp(by_patches, primals, tangents))
    return lax.platform_dependent(image, kernel, cpu=primal_conv, default=by_xla)


def _pool_windows(image: jax.Array) -> list[jax.Array]:
    """The pixels of each 2x2 window as four strided slices, which are faster than space_to_depth under a maximum."""
    rows, columns = (side // 2 * 2 for side in image.shape[1:3])
    return [image[:, y:rows:2, x:columns:2] for y in (0, 1) for x in (0, 1)]


@jax.custom_jvp
def max_pool(image: jax.Array) -> jax.Array:
    """Takes the largest value of each 2x2 window; an odd last row or column is dropped.

    Its derivative is jnp.max's: equal maxima share it.

    Args:
      image: [B, H, W, C] float.

    Returns:
      [B, H // 2, W // 2, C].
    """
    return lax.reduce_window(image, jnp.array(-jnp.inf, image.dtype), lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


@max_pool.defjvp
def _max_pool_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    parts, part_tangents = _pool_windows(*primals), _pool_windows(*tangents)
    largest: jax.Array = functools.reduce(jnp.maximum, parts)
    is_largest = [part == largest for part in parts]
    shares = [jnp.where(mask, part, 0) for mask, part in zip(is_largest, part_tangents, strict=True)]
    count = functools.reduce(jnp.add, [mask.astype(largest.dtype) for mask in is_largest])
    return largest, functools.reduce(jnp.add, shares) / count


def _dropout_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random uint32 of a shape, from both words of each Threefry block: the first half of them are first words."""
    size = math.prod(shape)
    if not has_mesh():
        return threefry_2x32(key, jnp.arange(size, dtype=jnp.uint32)).reshape(shape)
    # The same bits, each computed by itself, so that no device needs those of another one.
    half = -(-size // 2)
    index = jnp.arange(size, dtype=jnp.uint32).reshape(shape)
    is_first = index < half
    first = jnp.where(is_first, index, index - half)
    second = first + half
    second = jnp.where(second == size, 0, second)  # which pads an odd number
    words = threefry2x32_p.bind(*(jnp.broadcast_to(part, shape) for part in key), first, second)
    return jnp.where(is_first, words[0], words[1])


def dropout(key: jax.Array, x: jax.Array, rate: float | jax.Array) -> jax.Array:
    """Sets a random fraction of the values to zero and scales up the others, so that the mean stays.

    With JAX's default keys it uses both words of each Threefry block, where jax.random uses one: half the work for
    the same distribution.

    Args:
      key: [] typed PRNG key of any kind.
      x: float of any shape.
      rate: fraction to drop, in [0, 1); may be traced.

    Returns:
      The same shape and dtype.

    Source: N. Srivastava et al., Dropout, JMLR 2014; J. Salmon et al., Parallel random numbers, 2011 (Threefry).
    """
    if str(jax.random.key_impl(key)) == "threefry2x32":
        bits = _dropout_bits(jax.random.key_data(key), x.shape)
    else:
        bits = jax.random.bits(key, x.shape, jnp.uint32)
    if is_traced(rate):
        # float32 can't hold 2^32 - 1; a rate of 0 must keep everything.
        threshold = jnp.minimum((1 - rate) * 2.0**32, 2.0**32 - 2**8).astype(jnp.uint32)
        keep_mask = (bits < threshold) | (rate == 0)
    else:
        keep_mask = bits < jnp.uint32(min(round((1 - float(rate)) * 2**32), 2**32 - 1))
    return jnp.where(keep_mask, x / (1 - rate), 0).astype(x.dtype)
