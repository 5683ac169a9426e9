"""Several networks of one kind as one: parameters side by side, one forward pass, probabilities averaged."""

from typing import Any

import jax
import jax.numpy as jnp

from mnist_jax.adapters import AnyModel, Model, Rngs, as_model
from mnist_jax.errors import ArgumentError
from mnist_jax.types import Outputs, PyTree


def make_ensemble(model: AnyModel) -> Model:
    """Makes a model whose probabilities are the mean of its members'.

    Args:
      model: of one member: a Linen module or a Model of mnist_jax.adapters.

    Returns:
      A Model for prediction; its variables are the members', stacked along a new first axis: [M, ...] for M members.
      It returns the logarithms of the mean probabilities, [B, K].

    Raises:
      ArgumentError: the model is neither; when applied in training, since members are trained by themselves.

    Source: L. Hansen and P. Salamon, Neural network ensembles, 1990.

    >>> from mnist_jax.models import Perceptron
    >>> image, keys = jnp.ones((2, 28, 28, 1)), jax.random.split(jax.random.key(0), 3)
    >>> member = as_model(Perceptron())
    >>> variables = jax.vmap(lambda key: member.init(key, image))(keys)
    >>> logits, _ = make_ensemble(member).apply(variables, image, train=False, rngs=None, mask=None)
    >>> logits.shape
    (2, 10)
    """
    member = as_model(model)

    def apply(
        variables: PyTree, image: jax.Array, *, train: bool, rngs: Rngs | None, mask: jax.Array | None
    ) -> tuple[Outputs, PyTree]:
        if train:
            raise ArgumentError("train=True: an ensemble only predicts; train its members by themselves")

        def log_probabilities(variables: Any) -> jax.Array:
            outputs, _ = member.apply(variables, image, train=False, rngs=None, mask=None)
            logits = outputs[0] if isinstance(outputs, tuple) else outputs
            return jax.nn.log_softmax(logits.astype(jnp.float32))

        def side_by_side(variables: PyTree) -> jax.Array:
            return jax.vmap(log_probabilities)(variables)

        def in_turn(variables: PyTree) -> jax.Array:
            return jax.lax.map(log_probabilities, variables)

        # A convolution in groups, one for each member, takes a CPU up to five times as long as one after the other.
        each = jax.lax.platform_dependent(variables, cpu=in_turn, default=side_by_side)
        state = {name: value for name, value in variables.items() if name != "params"}
        return jax.nn.logsumexp(each, axis=0) - jnp.log(each.shape[0]), state

    return Model(member.init, apply, member.takes_mask)
