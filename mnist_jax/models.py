"""Flax Linen modules, and MODELS, the table from a name to a module. Linen stays in this file."""

from collections.abc import Sequence

import jax
from flax import linen as nn

from mnist_jax.config import Config
from mnist_jax.errors import lookup


class Perceptron(nn.Module):
    """A fully connected network: flatten, then dense layers with relu between them.

    The lecture's baseline is 784-784-10 with Keras's 'normal' initialiser, a normal distribution of standard
    deviation 0.05 (https://keras.io/api/layers/initializers/#randomnormal-class).

    Attributes:
      classes: number of outputs.
      hidden: units of each hidden layer.
    """

    classes: int = 10
    hidden: Sequence[int] = (784,)

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        """Computes the logits.

        Args:
          image: [B, H, W, C] float32 in [0, 1].
          train: whether this is a training step; nothing here depends on it.

        Returns:
          [B, classes] float32 logits.
        """
        del train
        kernel_init = nn.initializers.normal(stddev=0.05)
        x = image.reshape(len(image), -1)
        for units in self.hidden:
            x = nn.relu(nn.Dense(units, kernel_init=kernel_init)(x))
        return nn.Dense(self.classes, kernel_init=kernel_init)(x)


MODELS = {
    "perceptron": lambda config, classes: Perceptron(classes, config.hidden),
}


def make_model(config: Config, classes: int) -> nn.Module:
    """Makes the module that a configuration names.

    Args:
      config: its `model` is a name in MODELS.
      classes: number of outputs.

    Returns:
      A module with `init(rngs, image, train)` and `apply(variables, image, train)`, which gives [B, classes] logits.

    Raises:
      ConfigError: no such model.
    """
    return lookup(MODELS, "model", config.model)(config, classes)
