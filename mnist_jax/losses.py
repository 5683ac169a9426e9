"""Loss functions (logits, labels) -> per-example loss, and LOSSES, the table of them by Keras's names.

Every loss takes a network's outputs either as logits or, with from_logits=False, as the predictions that Keras's
function of that name takes; there its value is Keras's. From logits, the predictions are first made by the loss's link:
softmax for those that compare distributions, sigmoid for binary_crossentropy, nothing for the hinges, which are about
scores.

Source: https://keras.io/api/losses/.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from mnist_jax.config import Config
from mnist_jax.errors import ConfigError, lookup
from mnist_jax.types import Hyperparams

EPSILON = 1e-7  # Keras's backend.epsilon(): probabilities are kept away from 0 and 1 by this


def _clip(p: jax.Array) -> jax.Array:
    return jnp.clip(p, EPSILON, 1 - EPSILON)


def _log_normalized(p: jax.Array) -> jax.Array:
    return jnp.log(_clip(p / jnp.sum(p, axis=-1, keepdims=True)))


def _categorical_crossentropy(p, targets):
    return -jnp.sum(targets * _log_normalized(p), axis=-1)


def _binary_crossentropy(p, targets):
    p = _clip(p)
    return -jnp.mean(targets * jnp.log(p) + (1 - targets) * jnp.log1p(-p), axis=-1)


def _percentage_error(p, targets):
    return 100 * jnp.mean(jnp.abs((targets - p) / jnp.maximum(jnp.abs(targets), EPSILON)), axis=-1)


def _squared_logarithmic_error(p, targets):
    logs = (jnp.log1p(jnp.maximum(x, EPSILON)) for x in (p, targets))
    return jnp.mean(optax.squared_error(*logs), axis=-1)


def _cosine_similarity(p, targets):
    return -optax.cosine_similarity(p, targets, epsilon=EPSILON)


def _poisson(p, targets):
    return jnp.mean(p - targets * jnp.log(p + EPSILON), axis=-1)


def _kl_divergence(p, targets):
    return optax.kl_divergence(jnp.log(jnp.clip(p, EPSILON, 1)), jnp.clip(targets, EPSILON, 1))


def _signs(targets):
    binary = jnp.all((targets == 0) | (targets == 1))
    return jnp.where(binary, 2 * targets - 1, targets)


def _hinge(scores, targets):
    return jnp.mean(optax.hinge_loss(scores, _signs(targets)), axis=-1)


def _squared_hinge(scores, targets):
    return jnp.mean(jnp.square(optax.hinge_loss(scores, _signs(targets))), axis=-1)


def _categorical_hinge(scores, targets):
    wrong = jnp.max((1 - targets) * scores, axis=-1)
    return jnp.maximum(wrong - jnp.sum(targets * scores, axis=-1) + 1, 0)


def _mean(elementwise):
    return lambda p, targets: jnp.mean(elementwise(p, targets), axis=-1)


def _targets(name: str, outputs: jax.Array, labels: jax.Array, link: Callable) -> jax.Array:
    classes = outputs.shape[-1]
    if link is jax.nn.softmax and classes < 2:
        raise ConfigError(f"--loss={name}: compares at least 2 classes, the network has {classes} output")
    if labels.shape == outputs.shape[:-1] and jnp.issubdtype(labels.dtype, jnp.integer):
        return jax.nn.one_hot(labels, classes, dtype=outputs.dtype)
    if labels.shape == outputs.shape:
        return labels.astype(outputs.dtype)
    raise ConfigError(
        f"--loss={name}: outputs of shape {outputs.shape} need whole labels of shape {outputs.shape[:-1]} or targets "
        f"of shape {outputs.shape}; these are {labels.dtype} of shape {labels.shape}"
    )


def _table_entry(name, on_predictions, link=jax.nn.softmax, on_logits=None, smoothed=None):
    """A loss of the table; `smoothed` maps (targets, label_smoothing) to targets, where Keras has that."""

    def loss(outputs, labels, *, from_logits=True, label_smoothing=0.0):
        targets = _targets(name, outputs, labels, link)
        if smoothed:
            targets = smoothed(targets, label_smoothing)
        if from_logits and on_logits:
            return on_logits(outputs, targets)
        return on_predictions(link(outputs) if from_logits else outputs, targets)

    loss.smooths = smoothed is not None
    loss.__name__ = name
    return loss


def sparse_categorical_crossentropy(
    outputs: jax.Array, labels: jax.Array, *, from_logits: bool = True, label_smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy with whole labels; every entry of LOSSES has this signature.

    Args:
      outputs: [B, classes] float32, logits or probabilities.
      labels: [B] int32. The other losses also take [B, classes] float32 targets.
      from_logits: which of the two `outputs` are.
      label_smoothing: only categorical_crossentropy and binary_crossentropy have it, as in Keras.

    Returns:
      [B] float32, in nats.

    Raises:
      ConfigError: outputs and labels do not fit each other, or the loss.
    """
    del label_smoothing
    if labels.shape != outputs.shape[:-1] or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ConfigError(
            f"--loss=sparse_categorical_crossentropy: takes whole labels of shape {outputs.shape[:-1]}, these are "
            f"{labels.dtype} of shape {labels.shape}; for one-hot or soft targets say --loss=categorical_crossentropy"
        )
    logits = outputs if from_logits else _log_normalized(outputs)
    if from_logits:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return -jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]


sparse_categorical_crossentropy.smooths = False

LOSSES = {
    "sparse_categorical_crossentropy": sparse_categorical_crossentropy,
} | {
    name: _table_entry(name, *parts)
    for name, parts in {
        "binary_crossentropy": (
            _binary_crossentropy,
            jax.nn.sigmoid,
            _mean(optax.sigmoid_binary_cross_entropy),
            lambda targets, smoothing: targets * (1 - smoothing) + smoothing / 2,
        ),
        "categorical_crossentropy": (
            _categorical_crossentropy,
            jax.nn.softmax,
            optax.softmax_cross_entropy,
            optax.smooth_labels,
        ),
        "categorical_hinge": (_categorical_hinge, jax.nn.identity),
        "cosine_similarity": (_cosine_similarity,),
        "hinge": (_hinge, jax.nn.identity),
        "huber": (_mean(optax.huber_loss),),
        "kl_divergence": (_kl_divergence,),
        "log_cosh": (_mean(optax.log_cosh),),
        "mean_absolute_error": (_mean(lambda p, targets: jnp.abs(p - targets)),),
        "mean_absolute_percentage_error": (_percentage_error,),
        "mean_squared_error": (_mean(optax.squared_error),),
        "mean_squared_logarithmic_error": (_squared_logarithmic_error,),
        "poisson": (_poisson,),
        "squared_hinge": (_squared_hinge, jax.nn.identity),
    }.items()
}


def make_loss(config: Config, hparams: Hyperparams) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Makes the loss that a configuration names.

    Args:
      config: its `loss` is a name in LOSSES.
      hparams: its `label_smoothing` may be a traced scalar.

    Returns:
      (logits [B, classes] float32, labels [B] int32) -> [B] float32. Without `from_logits` the logits go through
      softmax first and the loss sees probabilities, as in the lecture's Keras programs.

    Raises:
      ConfigError: no such loss, or one without label smoothing.
    """
    loss = lookup(LOSSES, "loss", config.loss)
    if config.label_smoothing and not loss.smooths:
        smooth = ", ".join(name for name, entry in LOSSES.items() if entry.smooths)
        raise ConfigError(
            f"--label_smoothing={config.label_smoothing}: {config.loss} has none, as in Keras; these have: {smooth}"
        )
    loss = functools.partial(loss, from_logits=config.from_logits, label_smoothing=hparams.label_smoothing)
    return loss if config.from_logits else lambda logits, labels: loss(jax.nn.softmax(logits), labels)


def make_penalty(hparams: Hyperparams) -> Callable[[optax.Params], jax.Array]:
    """Makes the L1 and L2 terms of the loss.

    Args:
      hparams: `l1` and `l2` may be traced scalars.

    Returns:
      (params) -> [] float32: l1 * sum |w| + l2 * sum w^2 over all kernels (arrays of two or more dimensions), as
      Keras's kernel_regularizer=L1L2(l1, l2) adds (https://keras.io/api/layers/regularizers/).
    """

    def penalty(params):
        kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
        return sum(hparams.l1 * jnp.sum(jnp.abs(w)) + hparams.l2 * jnp.sum(jnp.square(w)) for w in kernels)

    return penalty
