"""Matrix multiplication in bfloat16 that is fast on a CPU, where XLA's is fast for one memory layout only.

Where the kernel is bfloat16, matrices are multiplied in bfloat16 into float32, in which everything else is computed.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint


def _row_major_matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """[m, k] @ [k, n], rounded to bfloat16 and stored in row-major order.

    XLA's CPU kernels for bfloat16 are fast (twice as fast as float32's) in that layout only, and without the
    constraint XLA leaves an operand transposed rather than copying it.
    """
    operands = (with_layout_constraint(x.astype(jnp.bfloat16), Layout(major_to_minor=(0, 1))) for x in (a, b))
    return lax.dot(*operands, preferred_element_type=jnp.float32)


@jax.custom_vjp
def bf16_matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """[m, k] @ [k, n] of float32, multiplied in bfloat16 and summed in float32, as its gradient is.

    Reverse mode only: forward mode needs custom_derivatives.linear_call, which vmap can't batch (up to jax 0.12).
    """
    return _row_major_matmul(a, b)


def bf16_matmul_fwd(a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    return _row_major_matmul(a, b), (a, b)


def bf16_matmul_bwd(saved: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    a, b = saved
    return _row_major_matmul(cotangent, b.T), _row_major_matmul(a.T, cotangent)


bf16_matmul.defvjp(bf16_matmul_fwd, bf16_matmul_bwd)


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """Multiplies matrices; a bfloat16 kernel gives a float32 result, by the kernel that is fast on the platform.

    Args:
      a: [m, k] float.
      b: [k, n] float.

    Returns:
      [m, n], float32 where b is bfloat16; then only reverse-mode derivatives are defined on a CPU.

    Source: P. Micikevicius et al., Mixed precision training, 2018.

    >>> matmul(jnp.ones((2, 3)), jnp.ones((3, 1), jnp.bfloat16)).dtype
    dtype('float32')
    """
    if b.dtype != jnp.bfloat16:
        return a @ b

    def by_bf16_kernels(a: jax.Array, b: jax.Array) -> jax.Array:
        return bf16_matmul(a.astype(jnp.float32), b.astype(jnp.float32))

    def by_xla(a: jax.Array, b: jax.Array) -> jax.Array:
        return (a.astype(b.dtype) @ b).astype(jnp.float32)

    return lax.platform_dependent(a, b, cpu=by_bf16_kernels, default=by_xla)


def no_dtype_promotion(*arrays: jax.Array | None, dtype: Any = None, inexact: bool = True) -> list[jax.Array | None]:
    """Leaves dtypes as they are; for nn.Dense(promote_dtype=no_dtype_promotion), whose kernel's dtype is multiplied in.

    Args:
      *arrays: inputs, kernel and bias.
      dtype: unused.
      inexact: unused.

    Returns:
      The arrays.
    """
    return list(arrays)


def dot_general(
    inputs: jax.Array,
    kernel: jax.Array,
    dimension_numbers: lax.DotDimensionNumbers,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """Multiplies by `matmul`; for nn.Dense(dot_general=dot_general).

    Args:
      inputs: [..., k] float.
      kernel: [k, n] float.
      dimension_numbers: those of nn.Dense, the only ones supported.
      precision: as in lax.dot_general, which is called where it is given.

    Returns:
      [..., n], float32 where the kernel is bfloat16.
    """
    if precision is not None:
        return lax.dot_general(inputs, kernel, dimension_numbers, precision=precision)
    return matmul(inputs.reshape(-1, inputs.shape[-1]), kernel).reshape(*inputs.shape[:-1], -1)
