"""One pure train step, and the epoch made of it. Nothing here is compiled: wrap it in jax.jit.

Randomness: one root key, never split. Each purpose folds its own constant into it, then the epoch or the step, so that
every random number is a function of (seed, purpose, step), and a restored run continues bit for bit.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mnist_jax.adapters import AnyModel, as_model
from mnist_jax.batches import num_batches, shuffled_batch_indices
from mnist_jax.errors import ArgumentError
from mnist_jax.fields import is_on
from mnist_jax.gradients import DEFAULT_METRICS, check_lengths, make_grad_fn, to_float
from mnist_jax.sharding import shard_batch
from mnist_jax.types import (
    Array,
    Augment,
    Batch,
    DType,
    LossFn,
    Metric,
    Metrics,
    Preprocess,
    PyTree,
    Scalar,
    Teacher,
    TrainState,
    TrainStep,
)

INIT, SHUFFLE, DROPOUT, AUGMENT = range(4)  # purposes folded into the root key; append, never reorder


def init_state(
    model: AnyModel,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    image: Array,
    *,
    preprocess: Preprocess = to_float,
    with_ema: bool = False,
) -> TrainState:
    """Makes the state before the first step.

    Args:
      model: a Linen module or a Model of mnist_jax.adapters.
      optimizer: of optax.
      key: [] typed PRNG key, such as jax.random.key(7); the root of all the run's randomness.
      image: [B, H, W, C] as stored; only its shape and dtype matter, and B may be 1.
      preprocess: stored images -> the network's input.
      with_ema: whether to keep a moving average of the parameters, as a train step with ema_decay needs.

    Returns:
      A TrainState at step 0.
    """
    if not jnp.issubdtype(getattr(key, "dtype", None) or np.int32, jax.dtypes.prng_key):
        raise ArgumentError("key: must be a typed key, such as jax.random.key(7)")
    variables = as_model(model).init(jax.random.fold_in(key, INIT), preprocess(jnp.asarray(image)))
    params = variables.pop("params")
    ema_params = jax.tree.map(jnp.copy, params) if with_ema else None  # a copy, since an epoch donates its state
    return TrainState(jnp.zeros((), jnp.int32), params, variables, optimizer.init(params), key, ema_params)


def _update_ema(decay: Scalar, state: TrainState, params: PyTree) -> PyTree:
    """Averages over fewer steps at the start, so that the initial parameters are soon forgotten.

    Source: https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage (num_updates).
    """
    if state.ema_params is None:
        raise ArgumentError("state: holds no ema_params; make it by init_state(..., with_ema=True)")
    decay = jnp.minimum(decay, ((1 + state.step) / (10 + state.step)).astype(jnp.float32))
    return jax.tree.map(lambda average, leaf: decay * average + (1 - decay) * leaf, state.ema_params, params)


def _keep_if_finite(state: TrainState, new: TrainState, metrics: Metrics, grads: PyTree) -> tuple[TrainState, Metrics]:
    """Leaves all but the step's number as it was where something is not finite; then no example is counted.

    Unlike optax.apply_if_finite it looks at the loss, the model's state and the outcome too.
    """
    outcome = (metrics["loss"].total, grads, new.params, new.model_state, new.opt_state)
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(outcome)]
    is_finite = functools.reduce(jnp.logical_and, finite)
    no_key = jnp.zeros(())  # jnp.where takes no typed keys
    unchanged_state = state._replace(step=new.step, key=no_key)
    kept = jax.tree.map(functools.partial(jnp.where, is_finite), new._replace(key=no_key), unchanged_state)
    metrics = jax.tree.map(lambda leaf: jnp.where(is_finite, leaf, jnp.zeros_like(leaf)), metrics)
    return kept._replace(key=state.key), metrics


def _apply_augment(augment: Augment, is_augmented: bool | jax.Array, key: jax.Array, batch: Batch) -> Batch:
    """Augments a batch or leaves it; then labels are one-hot where augment would make them soft, as mixup does."""
    shapes = jax.eval_shape(augment, key, batch)
    if not isinstance(shapes, Batch):
        raise ArgumentError(f"augment: returned a {type(shapes).__name__}; it must return a Batch (batch._replace)")
    if is_augmented is True:
        return augment(key, batch)

    def leave(key: jax.Array, batch: Batch) -> Batch:
        is_softened = shapes.label.shape != batch.label.shape
        return batch._replace(label=jax.nn.one_hot(batch.label, shapes.label.shape[-1])) if is_softened else batch

    return jax.lax.cond(is_augmented, augment, leave, key, batch)


def make_train_step(
    model: AnyModel,
    optimizer: optax.GradientTransformation,
    loss: LossFn,
    *,
    augment: Augment | None = None,
    augment_steps: int | None = None,
    teacher: Teacher | None = None,
    preprocess: Preprocess = to_float,
    ema_decay: Scalar = 0.0,
    skip_nonfinite: bool = False,
    metrics: Mapping[str, Metric] = DEFAULT_METRICS,
    regularizer: Callable[[PyTree], jax.Array] | None = None,
    dtype: DType = jnp.float32,
    microbatch_size: int = 0,
) -> TrainStep:
    """Makes the train step.

    Args:
      model: a Linen module or a Model of mnist_jax.adapters.
      optimizer: of optax; the one that init_state had. Those that need the loss get it as `value`, and the gradient as
        `grad` (optax.polyak_sgd, optax.contrib.reduce_on_plateau).
      loss: (logits [B, K] float32, batch) -> [B] float32.
      augment: (key, batch of preprocessed images) -> batch, changed at random; it may change labels too (mixup).
      augment_steps: how many steps, from the first one, augment; None for all.
      teacher: preprocessed and augmented images [B, ...] -> logits [B, K], whose probabilities take the labels' place:
        distillation (G. Hinton et al., 2015; L. Beyer et al., A good teacher is patient and consistent, 2021).
      preprocess: stored images -> the network's input.
      ema_decay: decay of the moving average in state.ema_params, in [0, 1); 0 for none.
      skip_nonfinite: whether a step whose loss, gradient or outcome is not finite changes nothing but the step's
        number; its metrics then count no example.
      metrics: name -> (logits, batch) -> Mean, beside the loss.
      regularizer: (params) -> [] float32, whose gradient is added.
      dtype: in which matrices are multiplied.
      microbatch_size: examples that go through the network at a time, as for make_grad_fn; 0: all at once.

    Returns:
      A pure function (state, batch) -> (state, metrics); the metrics are of the network before the update.
    """
    grad_fn = make_grad_fn(
        model,
        loss,
        metrics=metrics,
        regularizer=regularizer,
        preprocess=lambda image: image,
        dtype=dtype,
        microbatch_size=microbatch_size,
    )
    optimizer = optax.with_extra_args_support(optimizer)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        dropout_key, augment_key = (
            jax.random.fold_in(jax.random.fold_in(state.key, purpose), state.step) for purpose in (DROPOUT, AUGMENT)
        )
        check_lengths(*batch)
        batch = batch._replace(image=preprocess(batch.image))
        is_augmented = True if augment_steps is None else state.step < augment_steps
        batch = _apply_augment(augment, is_augmented, augment_key, batch) if augment else batch
        if teacher:
            batch = batch._replace(label=jax.nn.softmax(teacher(batch.image).astype(jnp.float32)))
        grads, (model_state, measured) = grad_fn(state.params, state.model_state, dropout_key, batch)
        value = measured["loss"].total / jnp.maximum(measured["loss"].count, 1)
        value = value + regularizer(state.params) if regularizer else value
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, value=value, grad=grads)
        params = optax.apply_updates(state.params, updates)
        ema_params = _update_ema(ema_decay, state, params) if is_on(ema_decay) else state.ema_params
        new = TrainState(state.step + 1, params, model_state, opt_state, state.key, ema_params)
        return _keep_if_finite(state, new, measured, grads) if skip_nonfinite else (new, measured)

    return train_step


def train_epoch(
    train_step: TrainStep,
    state: TrainState,
    images: Array,
    labels: Array,
    start_step: int | jax.Array = 0,
    end_step: int | jax.Array | None = None,
    *,
    batch_size: int,
    num_examples: int | None = None,
) -> tuple[TrainState, Metrics]:
    """Trains one pass over the data, or a part of it, in an order drawn from the state's key and epoch: one loop.

    With traced bounds one program trains any part, and the parts give the bits that the complete epoch gives.

    Args:
      train_step: as make_train_step returns it, or of the same signature.
      state: before step `start_step` of an epoch; which epoch follows from its step.
      images: [N, H, W, C], on the device, as stored.
      labels: [N] or [N, K].
      start_step: [] int, the first step of the epoch to run, from 0.
      end_step: [] int, the step to stop before; None for the epoch's S = ceil(N / batch_size) steps.
      batch_size: images per step, at most N; the last batch is padded and masked.
      num_examples: how many of the images there are, where those after them are padding; None for all.

    Returns:
      The state `end_step - start_step` steps later, and metrics of [S] arrays, zero at the steps that were not run;
      sum_over_steps adds them up.

    Raises:
      ArgumentError: while it is traced, where images, labels and batch_size do not fit each other.
    """
    check_lengths(images, labels)
    count = images.shape[0] if num_examples is None else num_examples
    if not 0 < batch_size <= count <= images.shape[0]:
        raise ArgumentError(f"batch_size={batch_size}: must be between 1 and the number of images, {count}")
    images, labels = jnp.asarray(images), jnp.asarray(labels)  # a traced index needs JAX arrays
    epoch = state.step // num_batches(count, batch_size)
    key = jax.random.fold_in(jax.random.fold_in(state.key, SHUFFLE), epoch)
    index, mask = shuffled_batch_indices(key, count, batch_size)
    has_padding = count % batch_size != 0

    def batch_at(step: int | jax.Array) -> Batch:
        rows = index[step]
        return shard_batch(Batch(images[rows], labels[rows], mask[step] if has_padding else None))

    step_once_traced = jax.jit(train_step, inline=True)  # for its shapes and in the loop

    def body(step: jax.Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, per_step = carry
        state, metrics = step_once_traced(state, batch_at(step))
        return state, jax.tree.map(lambda all, one: all.at[step].set(one), per_step, metrics)

    shapes = jax.eval_shape(step_once_traced, state, batch_at(0))[1]
    per_step = jax.tree.map(lambda leaf: jnp.zeros((len(index), *leaf.shape), leaf.dtype), shapes)
    end_step = len(index) if end_step is None else end_step
    return jax.lax.fori_loop(start_step, end_step, body, (state, per_step))
