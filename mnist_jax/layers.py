"""ACTIVATIONS and INITIALIZERS by their Keras names."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

# https://keras.io/api/layers/activations/
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
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
INITIALIZERS: dict[str, jax.nn.initializers.Initializer] = {
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
