"""The gradient of a batch's mean loss, at once or in microbatches, for any train step."""

import functools
from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp

from mnist_jax.adapters import AnyModel, Model, as_model
from mnist_jax.batches import batch_indices
from mnist_jax.errors import ArgumentError
from mnist_jax.metrics import accuracy, batch_metrics, sum_over_steps
from mnist_jax.sharding import batch_shards, shard_batch
from mnist_jax.types import Array, Batch, DType, LossFn, Metric, Metrics, Outputs, Preprocess, PyTree

DEFAULT_METRICS: Mapping[str, Metric] = {"accuracy": accuracy}

Grads: TypeAlias = tuple[PyTree, tuple[PyTree, Metrics]]  # gradients, (model state, metrics)
GradFn: TypeAlias = Callable[[PyTree, PyTree, jax.Array, Batch], Grads]
SumGradFn: TypeAlias = Callable[[PyTree, PyTree, jax.Array, Batch, jax.Array], Grads]  # of the sum divided by a count


def to_float(image: jax.Array) -> jax.Array:
    """Maps stored images to the network's input; the default of every `preprocess`.

    Args:
      image: uint8, 0 to 255; or of a float dtype, which is left alone.

    Returns:
      float32 in [0, 1] for uint8; same shape.

    Raises:
      ArgumentError: another dtype.
    """
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) / 255
    if jnp.issubdtype(image.dtype, jnp.floating):
        return image
    raise ArgumentError(f"image: dtype {image.dtype}; it must be uint8, or float, or a preprocess must be given")


def check_lengths(image: Array, label: Array, mask: Array | None = None) -> None:
    """Checks that examples are complete.

    Args:
      image: [B, ...].
      label: [B] or [B, K].
      mask: [B], or None.

    Raises:
      ArgumentError: their first dimensions differ.
    """
    arrays = {"image": image, "label": label} | ({} if mask is None else {"mask": mask})
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    if image.ndim < 2 or label.ndim < 1 or len({array.shape[0] for array in arrays.values()}) > 1:
        raise ArgumentError(f"images, labels and mask must be batches with the same first dimension; got {shapes}")
    if mask is not None and (mask.ndim != 1 or mask.dtype != bool):
        raise ArgumentError(f"mask: must be bool of shape [B]; got {mask.dtype} of shape {mask.shape}")


def cast(params: PyTree, dtype: DType) -> PyTree:
    """Converts every array of a pytree to a dtype."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def to_float32(outputs: Outputs) -> Outputs:
    """Converts a network's outputs, logits or a tuple that begins with them, to float32."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), outputs)


def _mask_of(batch: Batch) -> jax.Array:
    return jnp.ones(batch.image.shape[0], bool) if batch.mask is None else batch.mask


def _streams(key: jax.Array) -> dict[str, jax.Array]:
    """Linen and NNX take the key of a stream that has none of its own from "params" or "default"."""
    other = jax.random.fold_in(key, 0)
    return {"dropout": key, "params": other, "default": other}


def _make_sum_grad_fn(model: Model, loss: LossFn, metrics: Mapping[str, Metric], dtype: DType) -> SumGradFn:
    def loss_fn(
        params: PyTree, model_state: PyTree, key: jax.Array, batch: Batch, count: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
        if batch.mask is not None and model_state and not model.takes_mask:
            raise ArgumentError(
                "model: keeps batch statistics but has no `mask` argument, so it would learn them from padding too; "
                "give it one, choose a batch size that divides the data, or leave batch.mask None"
            )
        outputs, new_state = model.apply(
            {"params": cast(params, dtype), **model_state},
            batch.image.astype(dtype),
            train=True,
            rngs=_streams(key),
            mask=_mask_of(batch),
        )
        measured = batch_metrics(loss, metrics, to_float32(outputs), batch)
        return measured["loss"].total / count, (new_state, measured)

    return jax.grad(loss_fn, has_aux=True)


def _accumulate_grads(grad_fn: SumGradFn, microbatch_size: int) -> SumGradFn:
    """Adds up the gradients of microbatches in one loop.

    Unlike optax.microbatching it passes the model's state on, gives each microbatch its own key, and masks padding.
    """

    def accumulated(params: PyTree, model_state: PyTree, key: jax.Array, batch: Batch, count: jax.Array) -> Grads:
        size, mask = batch.image.shape[0], _mask_of(batch)
        if size <= microbatch_size:
            return grad_fn(params, model_state, key, batch, count)
        if batch_shards() > 1:
            return _accumulate_on_devices(grad_fn, microbatch_size, params, model_state, key, batch, count)
        has_padding = batch.mask is not None or size % microbatch_size != 0
        index, valid = batch_indices(jnp.arange(size, dtype=jnp.int32), microbatch_size)

        def body(carry: tuple[PyTree, PyTree], xs: tuple[jax.Array, ...]) -> tuple[tuple[PyTree, PyTree], Metrics]:
            total, model_state = carry
            number, rows, valid = xs
            microbatch = Batch(batch.image[rows], batch.label[rows], mask[rows] & valid if has_padding else None)
            microbatch_key = jax.random.fold_in(key, number)
            grads, (new_state, measured) = grad_fn(params, model_state, microbatch_key, microbatch, count)
            if not has_padding:
                return (jax.tree.map(jnp.add, total, grads), new_state), measured
            # Of padding alone the gradient may be NaN, since batch norm divides by the number of rows.
            has_examples = (mask[rows] & valid).any()
            total = jax.tree.map(lambda sum, leaf: jnp.where(has_examples, sum + leaf, sum), total, grads)
            return (total, jax.tree.map(functools.partial(jnp.where, has_examples), new_state, model_state)), measured

        start = jax.tree.map(jnp.zeros_like, params), model_state
        (grads, model_state), per_microbatch = jax.lax.scan(body, start, (jnp.arange(len(index)), index, valid))
        return grads, (model_state, sum_over_steps(per_microbatch))

    return accumulated


def _accumulate_on_devices(
    grad_fn: SumGradFn,
    microbatch_size: int,
    params: PyTree,
    model_state: PyTree,
    key: jax.Array,
    batch: Batch,
    count: jax.Array,
) -> Grads:
    """The same on several devices: each goes through its own microbatches; the sums are added up at the end."""
    shards, size = batch_shards(), batch.image.shape[0]
    rounds, rest = divmod(size, microbatch_size * shards)
    if jax.tree.leaves(model_state):
        raise ArgumentError(
            f"microbatch_size={microbatch_size}: batch statistics are learned from one microbatch after the other, "
            f"which {shards} devices can't share; use microbatch_size=0"
        )
    if rest:
        raise ArgumentError(
            f"microbatch_size={microbatch_size}: {shards} devices need a batch_size that is a multiple of "
            f"{microbatch_size * shards}, not {size}; or use microbatch_size=0"
        )

    def split(leaf: jax.Array) -> jax.Array:
        """[B, ...] -> [rounds, shards, microbatch_size, ...], where each device keeps its rows."""
        return leaf.reshape(shards, rounds, microbatch_size, *leaf.shape[1:]).swapaxes(0, 1)

    def grads_of(number: jax.Array, microbatch: Batch) -> Grads:
        grads, aux = grad_fn(params, model_state, jax.random.fold_in(key, number), microbatch, count)
        has_examples = _mask_of(microbatch).any()
        return jax.tree.map(lambda leaf: jnp.where(has_examples, leaf, 0), grads), aux

    def body(total: PyTree, xs: tuple[jax.Array, Batch]) -> tuple[PyTree, Metrics]:
        grads, (_, measured) = jax.vmap(grads_of)(*xs)
        return shard_batch(jax.tree.map(jnp.add, total, grads)), sum_over_steps(measured)

    numbers = split(jnp.arange(size) // microbatch_size)[..., 0]
    start = shard_batch(jax.tree.map(lambda leaf: jnp.zeros((shards, *leaf.shape), leaf.dtype), params))
    total, per_round = jax.lax.scan(body, start, (numbers, jax.tree.map(split, batch)))
    return jax.tree.map(lambda leaf: leaf.sum(axis=0), total), (model_state, sum_over_steps(per_round))


def make_grad_fn(
    model: AnyModel,
    loss: LossFn,
    *,
    metrics: Mapping[str, Metric] = DEFAULT_METRICS,
    regularizer: Callable[[PyTree], jax.Array] | None = None,
    preprocess: Preprocess = to_float,
    dtype: DType = jnp.float32,
    microbatch_size: int = 0,
) -> GradFn:
    """Makes the gradient function by itself, for train steps of one's own.

    Args:
      model: a Linen module or a Model of mnist_jax.adapters.
      loss: (logits [B, K] float32, batch) -> [B] float32, one number per example. A model that returns a tuple gives it
        the tuple, and the metrics its first element.
      metrics: name -> (logits, batch) -> Mean, beside the loss.
      regularizer: (params) -> [] float32, whose gradient is added.
      preprocess: stored images -> the network's input; float images pass the default unchanged.
      dtype: in which matrices are multiplied; parameters, loss and gradient stay float32.
      microbatch_size: examples that go through the network at a time, their gradients added up: less memory, and on a
        CPU often faster, since they stay in its caches. Dropout draws, and batch norm learns, for each microbatch by
        itself; where they do not divide the batch, masked copies of its first example pad the last one. 0: all at once.

    Returns:
      A pure function (params, model_state, key, batch) -> (gradients, (model_state, metrics)): the gradient of the mean
      loss over the unmasked examples; the metrics leave out the regularizer.

    Raises:
      ArgumentError: while it is traced, where shapes or dtypes do not fit.
    """
    if microbatch_size < 0:
        raise ArgumentError(f"microbatch_size={microbatch_size}: must be at least 0")
    sum_grad_fn = _make_sum_grad_fn(as_model(model), loss, metrics, dtype)
    if microbatch_size:
        sum_grad_fn = _accumulate_grads(sum_grad_fn, microbatch_size)

    def grad_fn(params: PyTree, model_state: PyTree, key: jax.Array, batch: Batch) -> Grads:
        check_lengths(*batch)
        batch = batch._replace(image=preprocess(batch.image))
        count = jnp.maximum(jnp.sum(_mask_of(batch)), 1)
        grads, aux = sum_grad_fn(params, model_state, key, batch, count)
        if regularizer:
            grads = jax.tree.map(jnp.add, grads, jax.grad(regularizer)(params))
        return grads, aux

    return grad_fn
