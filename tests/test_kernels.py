import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from mnist_jax.kernels import conv2d, conv_im2col, conv_winograd_3x3, dropout, max_pool
from mnist_jax.matmul import dot_general, matmul, no_dtype_promotion

NHWC = ("NHWC", "HWIO", "NHWC")
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
DTYPES = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])


@pytest.mark.parametrize(
    ("size", "kernel", "strides", "padding"),
    [
        ((28, 28, 1), (5, 5), (1, 1), "VALID"),
        ((14, 13, 3), (3, 3), (1, 1), "SAME"),
        ((9, 12, 2), (3, 2), (2, 3), "SAME"),
        ((9, 12, 2), (4, 1), (3, 1), "VALID"),
        ((7, 8, 4), (3, 3), (1, 2), ((2, 0), (1, 3))),
    ],
)
def test_patches_equal_xlas_convolution_and_its_gradients(size, kernel, strides, padding):
    ours = functools.partial(conv_im2col, strides=strides, padding=padding)
    assert_is_convolution(ours, size, kernel, strides, padding, jnp.float32)


@pytest.mark.parametrize(
    ("size", "padding"),
    [
        ((14, 14, 32), "SAME"),
        ((7, 7, 3), "SAME"),
        ((9, 12, 2), "VALID"),
        ((3, 4, 2), "VALID"),
        ((1, 1, 5), "SAME"),
        ((7, 8, 4), ((2, 0), (1, 3))),
    ],
)
@DTYPES
def test_winograd_equals_xlas_convolution_and_its_gradients(size, padding, dtype):
    ours = functools.partial(conv_winograd_3x3, padding=padding)
    assert_is_convolution(ours, size, (3, 3), (1, 1), padding, dtype)


@pytest.mark.parametrize("size", [(9, 10, 3), (9, 10, 16)], ids=["patches", "winograd"])
@DTYPES
def test_convolution_equals_xlas_and_its_gradients(size, dtype):
    def ours(image, kernel):
        got = conv2d(image, kernel, (1, 1), "SAME", dimension_numbers=NHWC)
        assert got.dtype == jnp.float32
        return got

    assert_is_convolution(ours, size, (3, 3), (1, 1), "SAME", dtype, filters=16)


def test_winograd_is_taken_by_wide_layers_and_maps_and_differentiates_forward():
    image, weights = jnp.ones((2, 6, 6, 16)), jax.random.normal(jax.random.key(0), (5, 3, 3, 16, 16))

    def curve(weight):
        return conv2d(image, weight, (1, 1), "SAME", dimension_numbers=NHWC)

    products = str(jax.make_jaxpr(curve)(weights[0])).count("dot_general")
    assert products == 16
    together = jax.vmap(lambda weight: jax.jvp(curve, (weight,), (weight,)))(weights)
    for one, change, weight in zip(*together, weights, strict=True):
        np.testing.assert_allclose(one, curve(weight), atol=1e-4)
        np.testing.assert_allclose(change, one, atol=1e-4)  # it is linear


def assert_is_convolution(ours, size, kernel, strides, padding, dtype, filters=6):
    keys = jax.random.split(jax.random.key(0), 3)
    image = jax.random.normal(keys[0], (3, *size), dtype)
    weight = jax.random.normal(keys[1], (*kernel, size[-1], filters), dtype)

    def xla(image, weight):
        return lax.conv_general_dilated(image, weight, strides, padding, dimension_numbers=NHWC)

    assert_equal_with_gradients(ours, xla, image, weight)


def assert_equal_with_gradients(ours, expected, *arguments):
    """Against `expected` in float32, of the same arguments."""
    ours, expected = jax.jit(ours), jax.jit(expected)
    got, pull = jax.vjp(ours, *arguments)
    expected, pull_expected = jax.vjp(expected, *(x.astype(jnp.float32) for x in arguments))
    np.testing.assert_allclose(ours(*arguments), got, rtol=1e-5, atol=1e-5, err_msg="differentiated or not")
    assert got.shape == expected.shape
    cotangent = jax.random.normal(jax.random.key(9), expected.shape)
    tolerance = TOLERANCE[arguments[0].dtype.name]
    for a, b in zip((got, *pull(cotangent.astype(got.dtype))), (expected, *pull_expected(cotangent)), strict=True):
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=tolerance, atol=tolerance * float(jnp.abs(b).max()))


@DTYPES
def test_products_equal_xlas_and_their_gradients(dtype):
    inputs, kernel = (jax.random.normal(jax.random.key(0), shape, dtype) for shape in ((4, 5, 33), (33, 17)))
    layer, plain = nn.Dense(17, dot_general=dot_general, promote_dtype=no_dtype_promotion), nn.Dense(17)
    bias = jnp.arange(17, dtype=dtype)

    def dense(layer, inputs, kernel, bias):
        return layer.apply({"params": {"kernel": kernel, "bias": bias}}, inputs)

    assert dense(layer, inputs.astype(jnp.float32), kernel, bias).dtype == jnp.float32
    assert_equal_with_gradients(*(functools.partial(dense, one) for one in (layer, plain)), inputs, kernel, bias)
    many = jax.jit(jax.vmap(matmul, in_axes=(0, None)))(inputs, kernel)
    expected = inputs.astype(jnp.float32) @ kernel.astype(jnp.float32)
    np.testing.assert_allclose(many, expected, rtol=1e-5, atol=1e-4, err_msg="sums are of float32")


def test_bfloat16_operands_have_the_layout_of_the_fast_kernels():
    inputs, kernel = jnp.ones((8, 33), jnp.bfloat16), jnp.ones((33, 17), jnp.bfloat16)
    gradient = jax.jit(jax.value_and_grad(lambda *pair: (matmul(*pair) ** 2).sum(), (0, 1)))
    dots = re.findall(r" dot\(.*?_dims=.*?_dims=\S*", gradient.lower(inputs, kernel).compile().as_text())
    assert len(dots) == 3
    assert all("lhs_contracting_dims={1}, rhs_contracting_dims={0}" in dot for dot in dots), dots


@pytest.mark.parametrize(
    "options", [{}, {"feature_group_count": 2}, {"kernel_dilation": 2}, {"padding": "CIRCULAR"}], ids=str
)
def test_linen_accepts_it_for_nn_conv(options):
    image = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
    plain, ours = nn.Conv(6, (3, 3), **options), nn.Conv(6, (3, 3), conv_general_dilated=conv2d, **options)
    variables = plain.init(jax.random.key(1), image)
    np.testing.assert_allclose(ours.apply(variables, image), plain.apply(variables, image), rtol=1e-5, atol=1e-5)


def test_patches_are_made_only_where_a_convolution_is_differentiated():
    image, weight = jnp.ones((2, 8, 8, 1)), jnp.ones((3, 3, 1, 4))

    def total(image, weight):
        return conv2d(image, weight, (1, 1), "SAME", dimension_numbers=NHWC).sum()

    texts = [jax.jit(f).lower(image, weight).as_text() for f in (total, jax.grad(total, 1))]
    assert ["stablehlo.convolution" in text for text in texts] == [True, False]


@DTYPES
def test_no_choice_of_platform_is_left_when_the_program_runs(dtype):
    image, weight = jnp.ones((2, 8, 8, 16), dtype), jnp.ones((3, 3, 16, 16), dtype)
    compiled = jax.jit(lambda *x: conv2d(*x, (1, 1), "SAME", dimension_numbers=NHWC)).lower(image, weight).compile()
    assert "conditional" not in compiled.as_text()


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (2, 3)])
def test_max_pool_equals_linens(size):
    image = jax.random.normal(jax.random.key(0), (2, *size, 3))
    linens = functools.partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2))
    expected = linens(image)
    np.testing.assert_array_equal(max_pool(image), expected)
    cotangent = jax.random.normal(jax.random.key(1), expected.shape)
    (ours, pull), (_, pull_linens) = (jax.vjp(pool, image) for pool in (max_pool, linens))
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(pull(cotangent)[0], pull_linens(cotangent)[0])


def test_equal_maxima_share_max_pools_gradient():
    image = jnp.array([[3.0, 3.0], [1.0, 3.0]]).reshape(1, 2, 2, 1)
    (gradient,) = jax.vjp(max_pool, image)[1](jnp.full((1, 1, 1, 1), 6.0))
    np.testing.assert_array_equal(gradient.ravel(), [2, 2, 0, 2])


@pytest.mark.parametrize("rate", [0.0, 1e-12, 0.2, 0.5, 0.999])
def test_dropout_drops_the_given_fraction_and_keeps_the_mean(rate):
    x = jnp.ones((401, 251))
    dropped = jax.jit(dropout, static_argnums=2)(jax.random.key(0), x, rate)
    fraction = float((dropped == 0).mean())
    assert fraction == pytest.approx(rate, abs=4 * (rate * (1 - rate) / x.size) ** 0.5 + 1e-9)
    np.testing.assert_allclose(dropped[dropped != 0], 1 / (1 - rate), rtol=1e-6)
    neighbors = np.corrcoef(dropped[:-1].ravel(), dropped[1:].ravel())[0, 1] if 0.1 < rate < 0.9 else 0
    assert abs(neighbors) < 0.015


def test_dropout_under_vmap_is_dropout_of_each_key():
    keys, x = jax.random.split(jax.random.key(0), 3), jnp.ones((5, 7), jnp.bfloat16)
    many = jax.vmap(lambda key: dropout(key, x, 0.5))(keys)
    assert many.dtype == x.dtype and (many[0] != many[1]).any()
    np.testing.assert_array_equal(many[2], dropout(keys[2], x, 0.5))
