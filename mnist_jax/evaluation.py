"""Evaluation and prediction: pure functions, like the train step, of a state and arrays."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mnist_jax.adapters import AnyModel, Model, as_model
from mnist_jax.batches import batch_indices, num_batches
from mnist_jax.errors import ArgumentError
from mnist_jax.gradients import DEFAULT_METRICS, cast, check_lengths, to_float, to_float32
from mnist_jax.metrics import batch_metrics, sum_over_steps
from mnist_jax.sharding import batch_shards, shard_batch
from mnist_jax.types import Array, Batch, DType, EvalStep, LossFn, Metric, Metrics, Outputs, Preprocess, TrainState


def averaged(state: TrainState) -> TrainState:
    """Puts the averaged parameters in the place of the trained ones, for evaluation and prediction.

    Args:
      state: of a train step with ema_decay; one without is returned as it is.

    Returns:
      The state with params = ema_params.
    """
    return state if state.ema_params is None else state._replace(params=state.ema_params)


def _apply(model: Model, state: TrainState, image: jax.Array, dtype: DType) -> Outputs:
    variables = {"params": cast(state.params, dtype), **state.model_state}
    return to_float32(model.apply(variables, image.astype(dtype), train=False, rngs=None, mask=None)[0])


def make_eval_step(
    model: AnyModel,
    loss: LossFn,
    *,
    metrics: Mapping[str, Metric] = DEFAULT_METRICS,
    preprocess: Preprocess = to_float,
    dtype: DType = jnp.float32,
) -> EvalStep:
    """Makes the evaluation step.

    Args:
      model: a Linen module or a Model of mnist_jax.adapters.
      loss: (logits [B, K] float32, batch) -> [B] float32.
      metrics: name -> (logits, batch) -> Mean, beside the loss.
      preprocess: stored images -> the network's input.
      dtype: in which matrices are multiplied.

    Returns:
      A pure function (state, batch) -> metrics.
    """
    model = as_model(model)

    def eval_step(state: TrainState, batch: Batch) -> Metrics:
        check_lengths(*batch)
        batch = batch._replace(image=preprocess(batch.image))
        return batch_metrics(loss, metrics, _apply(model, state, batch.image, dtype), batch)

    return eval_step


def _chunks(count: int, batch_size: int) -> tuple[jax.Array, jax.Array]:
    shards = batch_shards()
    size = num_batches(min(batch_size, max(count, 1)), shards) * shards
    return batch_indices(jnp.arange(count, dtype=jnp.int32), size)


def evaluate(
    eval_step: EvalStep,
    state: TrainState,
    images: Array,
    labels: Array,
    batch_size: int = 200,
    *,
    num_examples: int | None = None,
) -> Metrics:
    """Scores every image once.

    Args:
      eval_step: as make_eval_step returns it, or of the same signature.
      state: the one to score.
      images: [N, H, W, C], on the device, as stored.
      labels: [N] or [N, K].
      batch_size: images at a time; the last batch is padded and masked.
      num_examples: how many of the images there are, where those after them are padding; None for all.

    Returns:
      Metrics of scalars over all images.

    Raises:
      ArgumentError: while it is traced, where images and labels differ in length.
    """
    check_lengths(images, labels)
    count = images.shape[0] if num_examples is None else num_examples
    if batch_size < 1 or not count:
        raise ArgumentError(f"batch_size={batch_size}, {count} images: both must be at least 1")
    images, labels = jnp.asarray(images), jnp.asarray(labels)

    def body(_: None, xs: tuple[jax.Array, jax.Array]) -> tuple[None, Metrics]:
        rows, mask = xs
        return None, eval_step(state, shard_batch(Batch(images[rows], labels[rows], mask)))

    return sum_over_steps(jax.lax.scan(body, None, _chunks(count, batch_size))[1])


def predict(
    model: AnyModel,
    state: TrainState,
    images: Array,
    batch_size: int = 200,
    *,
    preprocess: Preprocess = to_float,
    dtype: DType = jnp.float32,
) -> jax.Array:
    """Computes the logits of every image.

    Args:
      model: a Linen module or a Model of mnist_jax.adapters.
      state: with the parameters to use.
      images: [N, H, W, C], on the device, as stored.
      batch_size: images at a time.
      preprocess: stored images -> the network's input.
      dtype: in which matrices are multiplied.

    Returns:
      [N, K] float32 logits.
    """
    images, model = jnp.asarray(images), as_model(model)
    rows, _ = _chunks(images.shape[0], batch_size)

    def logits_of(rows: jax.Array) -> jax.Array:
        outputs = _apply(model, state, preprocess(shard_batch(images[rows])), dtype)
        return outputs[0] if isinstance(outputs, tuple) else outputs

    logits = jax.lax.map(logits_of, rows)
    return logits.reshape(-1, *logits.shape[2:])[: images.shape[0]]
