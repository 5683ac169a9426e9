"""Loss functions (logits, batch) -> loss per example, and LOSSES, the table of them by their Keras names.

The losses of Keras take a network's outputs as logits or, with from_logits=False, as the predictions that Keras's
function of that name takes; there its value is Keras's. Logits are turned into predictions by the loss's output
activation: softmax for losses that compare distributions, sigmoid for binary_crossentropy, none for the hinges, which
are about scores.

Source: https://keras.io/api/losses/.
"""

import functools
import inspect
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax

from mnist_jax.config import Config
from mnist_jax.errors import ArgumentError, ConfigError, get_entry
from mnist_jax.fields import is_on
from mnist_jax.types import Batch, LossFn, PyTree

OnPredictions: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]  # (predictions [B, K], targets [B, K]) -> [B]
EPSILON = 1e-7  # Keras's backend.epsilon(): probabilities are kept away from 0 and 1 by this


def _clip(p: jax.Array) -> jax.Array:
    return jnp.clip(p, EPSILON, 1 - EPSILON)


def _log_normalized(p: jax.Array) -> jax.Array:
    return jnp.log(_clip(p / jnp.sum(p, axis=-1, keepdims=True)))


def _categorical_crossentropy(p: jax.Array, targets: jax.Array) -> jax.Array:
    return -jnp.sum(targets * _log_normalized(p), axis=-1)


def _binary_crossentropy(p: jax.Array, targets: jax.Array) -> jax.Array:
    p = _clip(p)
    return -jnp.mean(targets * jnp.log(p) + (1 - targets) * jnp.log1p(-p), axis=-1)


def _percentage_error(p: jax.Array, targets: jax.Array) -> jax.Array:
    return 100 * jnp.mean(jnp.abs((targets - p) / jnp.maximum(jnp.abs(targets), EPSILON)), axis=-1)


def _squared_logarithmic_error(p: jax.Array, targets: jax.Array) -> jax.Array:
    logs = (jnp.log1p(jnp.maximum(x, EPSILON)) for x in (p, targets))
    return jnp.mean(optax.squared_error(*logs), axis=-1)


def _cosine_similarity(p: jax.Array, targets: jax.Array) -> jax.Array:
    return -optax.cosine_similarity(p, targets, epsilon=EPSILON)


def _poisson(p: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.mean(p - targets * jnp.log(p + EPSILON), axis=-1)


def _kl_divergence(p: jax.Array, targets: jax.Array) -> jax.Array:
    return optax.kl_divergence(jnp.log(jnp.clip(p, EPSILON, 1)), jnp.clip(targets, EPSILON, 1))


def _to_plus_minus_one(targets: jax.Array) -> jax.Array:
    binary = jnp.all((targets == 0) | (targets == 1))
    return jnp.where(binary, 2 * targets - 1, targets)


def _hinge(scores: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.mean(optax.hinge_loss(scores, _to_plus_minus_one(targets)), axis=-1)


def _squared_hinge(scores: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.mean(jnp.square(optax.hinge_loss(scores, _to_plus_minus_one(targets))), axis=-1)


def _categorical_hinge(scores: jax.Array, targets: jax.Array) -> jax.Array:
    wrong = jnp.max((1 - targets) * scores, axis=-1)
    return jnp.maximum(wrong - jnp.sum(targets * scores, axis=-1) + 1, 0)


def _mean(elementwise: OnPredictions) -> OnPredictions:
    return lambda p, targets: jnp.mean(elementwise(p, targets), axis=-1)


def _as_one_hot(name: str, logits: jax.Array, labels: jax.Array) -> jax.Array:
    if labels.shape == logits.shape[:-1] and jnp.issubdtype(labels.dtype, jnp.integer):
        return jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    if labels.shape == logits.shape:
        return labels.astype(logits.dtype)
    raise ArgumentError(
        f"loss={name}: logits of shape {logits.shape} need integer labels of shape {logits.shape[:-1]} or targets "
        f"of shape {logits.shape}; the labels are {labels.dtype} of shape {labels.shape}"
    )


def _keras_loss(
    name: str,
    on_predictions: OnPredictions,
    output_activation: Callable[[jax.Array], jax.Array] = jax.nn.softmax,
    on_logits: OnPredictions | None = None,
) -> LossFn:
    def loss(logits: jax.Array, batch: Batch, *, from_logits: bool = True) -> jax.Array:
        if output_activation is jax.nn.softmax and logits.shape[-1] < 2:
            raise ArgumentError(f"loss={name}: compares at least 2 classes, the network has {logits.shape[-1]} output")
        targets = _as_one_hot(name, logits, batch.label)
        if from_logits and on_logits:
            return on_logits(logits, targets)
        return on_predictions(output_activation(logits) if from_logits else logits, targets)

    return loss


def _smoothed(loss: Callable[..., jax.Array], smooth: Callable[[jax.Array, jax.Array | float], jax.Array]) -> LossFn:
    """Adds an argument label_smoothing; `smooth` maps (targets, label_smoothing) to targets."""

    def smoothed(
        logits: jax.Array, batch: Batch, *, from_logits: bool = True, label_smoothing: jax.Array | float = 0.0
    ) -> jax.Array:
        targets = _as_one_hot("crossentropy", logits, batch.label)
        return loss(logits, batch._replace(label=smooth(targets, label_smoothing)), from_logits=from_logits)

    return smoothed


def sparse_categorical_crossentropy(logits: jax.Array, batch: Batch, *, from_logits: bool = True) -> jax.Array:
    """Cross-entropy with integer labels.

    Args:
      logits: [B, K] float32; probabilities where from_logits is False.
      batch: its labels are [B] int; the other losses also take [B, K] float targets.
      from_logits: which of the two `logits` are.

    Returns:
      [B] float32, in nats.

    Raises:
      ArgumentError: the labels are not integers, or of another shape.
    """
    labels = batch.label
    if labels.shape != logits.shape[:-1] or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ArgumentError(
            f"loss=sparse_categorical_crossentropy: takes integer labels of shape {logits.shape[:-1]}, these are "
            f"{labels.dtype} of shape {labels.shape}; for one-hot or soft labels use loss=categorical_crossentropy"
        )
    if from_logits:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return -jnp.take_along_axis(_log_normalized(logits), labels[..., None], axis=-1)[..., 0]


def _smooth_binary(targets: jax.Array, label_smoothing: jax.Array | float) -> jax.Array:
    return targets * (1 - label_smoothing) + label_smoothing / 2


_KERAS_LOSSES: dict[str, tuple[OnPredictions, Callable[[jax.Array], jax.Array], OnPredictions | None]] = {
    "binary_crossentropy": (_binary_crossentropy, jax.nn.sigmoid, _mean(optax.sigmoid_binary_cross_entropy)),
    "categorical_crossentropy": (_categorical_crossentropy, jax.nn.softmax, optax.softmax_cross_entropy),
    "categorical_hinge": (_categorical_hinge, jax.nn.identity, None),
    "cosine_similarity": (_cosine_similarity, jax.nn.softmax, None),
    "hinge": (_hinge, jax.nn.identity, None),
    "huber": (_mean(optax.huber_loss), jax.nn.softmax, None),
    "kl_divergence": (_kl_divergence, jax.nn.softmax, None),
    "log_cosh": (_mean(optax.log_cosh), jax.nn.softmax, None),
    "mean_absolute_error": (_mean(lambda p, targets: jnp.abs(p - targets)), jax.nn.softmax, None),
    "mean_absolute_percentage_error": (_percentage_error, jax.nn.softmax, None),
    "mean_squared_error": (_mean(optax.squared_error), jax.nn.softmax, None),
    "mean_squared_logarithmic_error": (_squared_logarithmic_error, jax.nn.softmax, None),
    "poisson": (_poisson, jax.nn.softmax, None),
    "squared_hinge": (_squared_hinge, jax.nn.identity, None),
}

# name -> (logits, batch) -> [B]; options are the keyword arguments from_logits and label_smoothing, where it has them.
LOSSES: dict[str, LossFn] = {
    "sparse_categorical_crossentropy": sparse_categorical_crossentropy,
    **{name: _keras_loss(name, *parts) for name, parts in _KERAS_LOSSES.items()},
}
LOSSES["binary_crossentropy"] = _smoothed(LOSSES["binary_crossentropy"], _smooth_binary)
LOSSES["categorical_crossentropy"] = _smoothed(LOSSES["categorical_crossentropy"], optax.smooth_labels)


def has_option(loss: LossFn, option: str) -> bool:
    """Says whether a loss takes an optional keyword argument.

    Args:
      loss: of LOSSES, or any other.
      option: from_logits or label_smoothing.

    Returns:
      Whether it does.
    """
    return option in inspect.signature(loss).parameters


def make_loss(config: Config) -> LossFn:
    """Makes the loss that a configuration names.

    Args:
      config: its `loss` is a name in LOSSES; `label_smoothing` may be traced.

    Returns:
      (logits [B, K] float32, batch) -> [B] float32. Without `from_logits` the logits go through softmax first and the
      loss sees probabilities, as in the lecture's Keras programs.

    Raises:
      ConfigError: no such loss, or one without an option that is set.
    """
    loss = get_entry(LOSSES, "loss", config.loss)
    options = {}
    if is_on(config.label_smoothing):
        options["label_smoothing"] = config.label_smoothing
    if not config.from_logits:
        options["from_logits"] = False
    for option, value in options.items():
        if not has_option(loss, option):
            others = ", ".join(name for name, other in LOSSES.items() if has_option(other, option))
            raise ConfigError(f"{option}={value}: {config.loss} does not have it; these losses do: {others}")
    loss = functools.partial(loss, **options) if options else loss
    return loss if config.from_logits else lambda logits, batch: loss(jax.nn.softmax(logits), batch)


def make_regularizer(config: Config) -> Callable[[PyTree], jax.Array] | None:
    """Makes the L1 and L2 terms of the loss.

    Args:
      config: its `l1` and `l2` may be traced.

    Returns:
      (params) -> [] float32: l1 * sum |w| + l2 * sum w^2 over all kernels (arrays of two or more dimensions), as
      Keras's kernel_regularizer=L1L2(l1, l2) adds (https://keras.io/api/layers/regularizers/); None where both are 0.
    """
    if not (is_on(config.l1) or is_on(config.l2)):
        return None

    def regularizer(params: PyTree) -> jax.Array:
        kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
        terms = [config.l1 * jnp.sum(jnp.abs(w)) + config.l2 * jnp.sum(jnp.square(w)) for w in kernels]
        return sum(terms, jnp.zeros((), jnp.float32))

    return regularizer
