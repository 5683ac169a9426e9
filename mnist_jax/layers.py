"""ACTIVATIONS and INITIALIZERS by their Keras names, and the layers that models share."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

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


class BatchNorm(nn.Module):
    """Batch norm whose running averages are right from the first step on, as Adam's are (bias correction).

    A plain running average starts at mean 0 and variance 1. These weigh 0.9^steps, which after some dozens of steps may
    still be more than the variances that a network really has: evaluated, it then gives wrong answers that it did not
    give in training. Here the momentum grows from 0 to its value such that the start never counts; after 150 steps
    nothing differs any more.

    Attributes:
      momentum: of the running averages.

    Source: S. Ioffe and C. Szegedy, Batch normalization, 2015; D. Kingma and J. Ba, Adam, 2014, section 3.
    """

    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        steps = self.variable("batch_stats", "steps", jnp.zeros, (), jnp.float32)
        weight = self.momentum ** (steps.value + 1)
        momentum = (self.momentum - weight) / (1 - weight)
        if train and not self.is_initializing():
            steps.value += 1
        return nn.BatchNorm(use_running_average=not train, momentum=momentum)(x, mask=mask)  # type: ignore[arg-type]
