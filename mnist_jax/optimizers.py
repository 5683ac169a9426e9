"""OPTIMIZERS, optax's optimisers by their Keras names, and the one function that makes them."""

import optax

from mnist_jax.config import Config
from mnist_jax.errors import lookup
from mnist_jax.types import Hyperparams

OPTIMIZERS = {
    "adam": optax.adam,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
}


def make_optimizer(config: Config, hparams: Hyperparams) -> optax.GradientTransformation:
    """Makes the optimizer that a configuration names; cheap, so make it inside the traced run.

    Args:
      config: its `optimizer` is a name in OPTIMIZERS.
      hparams: its `learning_rate` may be a traced scalar.

    Returns:
      An optax GradientTransformation.

    Raises:
      ConfigError: no such optimizer.
    """
    return lookup(OPTIMIZERS, "optimizer", config.optimizer)(hparams.learning_rate)
