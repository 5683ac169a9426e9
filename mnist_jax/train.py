"""One pure train step, and the epoch and the evaluation made of it. Nothing here is compiled: wrap it in jax.jit.

Randomness: one root key, never split. Each purpose folds its own constant into it, then the epoch or the step, so that
every random number is a function of (seed, purpose, step), and a run that is stopped and restored goes on bit for bit.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mnist_jax import metrics
from mnist_jax.augment import affine
from mnist_jax.config import Config
from mnist_jax.data import epoch_batches, padded_batches
from mnist_jax.errors import lookup
from mnist_jax.losses import make_loss, make_penalty
from mnist_jax.models import make_model
from mnist_jax.optimizers import make_optimizer
from mnist_jax.types import Batch, Hyperparams, Metrics, TrainState

PRECISIONS = {"f32": jnp.float32, "bf16": jnp.bfloat16}
ON_NAN = {"stop": False, "skip": True}  # skip_nonfinite of make_train_step
INIT, SHUFFLE, DROPOUT, AUGMENT = range(4)  # purposes folded into the root key; append, never reorder

LossFn = Callable[[jax.Array, jax.Array], jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
Augment = Callable[[jax.Array, jax.Array], jax.Array]
EvalStep = Callable[[TrainState, Batch], Metrics]


class Parts(NamedTuple):
    """What a configuration comes to: pure functions, to be called or compiled as one likes."""

    model: Any  # of Linen
    optimizer: optax.GradientTransformation
    init: Callable[[jax.Array], TrainState]  # key -> state at step 0
    train_step: TrainStep
    eval_step: EvalStep
    dtype: Any  # in which train_step and eval_step compute


def scale(image: jax.Array) -> jax.Array:
    """Maps stored pixels to the network's input.

    Args:
      image: uint8, 0 to 255.

    Returns:
      float32 in [0, 1], same shape.
    """
    return image.astype(jnp.float32) / 255


def init_state(model: Any, optimizer: optax.GradientTransformation, key: jax.Array, image: jax.Array) -> TrainState:
    """Makes the state before the first step.

    Args:
      model: has Linen's `init(rngs, image, train=False)`.
      optimizer: of optax.
      key: [] typed PRNG key, such as jax.random.key(7); the root of all the run's randomness.
      image: [B, H, W, C] uint8; only its shape matters, and B may be 1.

    Returns:
      A TrainState at step 0.
    """
    variables = dict(model.init({"params": jax.random.fold_in(key, INIT)}, scale(image), train=False))
    params = variables.pop("params")
    return TrainState(jnp.zeros((), jnp.int32), params, variables, optimizer.init(params), key)


def _cast(params: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def _takes_mask(model: Any) -> bool:
    return "mask" in inspect.signature(type(model).__call__).parameters


def _add_up(grad: Callable[..., Any], state: TrainState, key: jax.Array, examples: Any, size: int) -> tuple[Any, ...]:
    """The gradient of a batch, made of its micro-batches' in one loop; the model's state; the batch's metrics."""
    index, fits = padded_batches(jnp.arange(len(examples[0]), dtype=jnp.int32), size)

    def body(carry, part):
        total, model_state = carry
        number, rows, fits = part
        image, label, mask = (leaf[rows] for leaf in examples)
        mask &= fits
        grads, (new_state, one) = grad(state.params, model_state, jax.random.fold_in(key, number), image, label, mask)
        is_there = mask.any()  # batch norm divides by the number of rows
        total = jax.tree.map(lambda sum, leaf: jnp.where(is_there, sum + leaf, sum), total, grads)
        return (total, jax.tree.map(functools.partial(jnp.where, is_there), new_state, model_state)), one

    start = jax.tree.map(jnp.zeros_like, state.params), state.model_state
    (grads, model_state), per_part = jax.lax.scan(body, start, (jnp.arange(len(index)), index, fits))
    return grads, model_state, metrics.merge(per_part)


def make_train_step(
    model: Any,
    optimizer: optax.GradientTransformation,
    loss_fn: LossFn,
    *,
    augment: Augment | None = None,
    penalty: Callable[[Any], jax.Array] | None = None,
    dtype: Any = jnp.float32,
    skip_nonfinite: bool = False,
    micro_batch_size: int = 0,
) -> TrainStep:
    """Makes the train step.

    Args:
      model: has Linen's `apply(variables, image, train=True, rngs=..., mutable=...)`, giving [B, classes] logits. If
        its `__call__` has a `mask`, it gets the batch's [B] bool, to keep padding out of batch statistics.
      optimizer: of optax; the one that init_state had.
      loss_fn: (logits [B, classes] float32, label [B] int32) -> [B] float32.
      augment: (key, image [B, H, W, C] float32 in [0, 1]) -> the same, changed at random; None for no change.
      penalty: (params) -> [] float32, added to the mean loss, such as losses.make_penalty gives; None for nothing.
      dtype: in which the network computes; parameters, loss and update stay float32.
      skip_nonfinite: whether a step whose loss, gradient or outcome is not finite changes nothing but the step's
        number; its metrics then count no example.
      micro_batch_size: examples that go through the network at a time, their gradients added up: less memory, and on a
        CPU often faster, since they stay in its caches. Dropout draws, and batch norm learns, for each micro-batch
        apart; where they do not divide the batch, masked repetitions of its first example fill up the last one. 0 for
        the whole batch at once.

    Returns:
      A pure function (state, batch) -> (state, metrics). The gradient is of the mean loss over the unmasked examples,
      and the penalty; the metrics are of the network before the update, without the penalty.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        dropout_key, augment_key = (
            jax.random.fold_in(jax.random.fold_in(state.key, purpose), state.step) for purpose in (DROPOUT, AUGMENT)
        )
        image = scale(batch.image)
        if augment:
            image = augment(augment_key, image)
        count = jnp.maximum(jnp.sum(batch.mask), 1)

        def part_of_mean_loss(params, model_state, key, image, label, mask):
            logits, model_state = model.apply(
                {"params": _cast(params, dtype), **model_state},
                image.astype(dtype),
                train=True,
                rngs={"dropout": key},
                mutable=list(model_state),
                **({"mask": mask} if _takes_mask(model) else {}),
            )
            logits = logits.astype(jnp.float32)
            part = metrics.from_logits(loss_fn(logits, label), logits, label, mask)
            return part.loss / count, (dict(model_state), part)

        grad = jax.grad(part_of_mean_loss, has_aux=True)
        examples = image, batch.label, batch.mask
        if 0 < micro_batch_size < len(image):
            grads, model_state, step_metrics = _add_up(grad, state, dropout_key, examples, micro_batch_size)
        else:
            grads, (model_state, step_metrics) = grad(state.params, state.model_state, dropout_key, *examples)
        if penalty:
            grads = jax.tree.map(jnp.add, grads, jax.grad(penalty)(state.params))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new = TrainState(state.step + 1, params, model_state, opt_state, state.key)
        if not skip_nonfinite:
            return new, step_metrics
        outcome = (step_metrics.loss, grads, params, model_state, opt_state)
        good = functools.reduce(jnp.logical_and, [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(outcome)])
        kept = state._replace(step=state.step + 1, key=None)
        new = jax.tree.map(functools.partial(jnp.where, good), new._replace(key=None), kept)
        step_metrics = jax.tree.map(lambda leaf: jnp.where(good, leaf, jnp.zeros_like(leaf)), step_metrics)
        return new._replace(key=state.key), step_metrics

    return train_step


def make_eval_step(model: Any, loss_fn: LossFn, *, dtype: Any = jnp.float32) -> EvalStep:
    """Makes the evaluation step.

    Args:
      model: has Linen's `apply(variables, image, train=False)`, giving [B, classes] logits.
      loss_fn: (logits [B, classes] float32, label [B] int32) -> [B] float32.
      dtype: in which the network computes.

    Returns:
      A pure function (state, batch) -> metrics.
    """

    def eval_step(state: TrainState, batch: Batch) -> Metrics:
        variables = {"params": _cast(state.params, dtype), **state.model_state}
        logits = model.apply(variables, scale(batch.image).astype(dtype), train=False).astype(jnp.float32)
        return metrics.from_logits(loss_fn(logits, batch.label), logits, batch.label, batch.mask)

    return eval_step


def check(config: Config) -> None:
    """Refuses a configuration that needs no data to be found wrong.

    Args:
      config: what to check.

    Raises:
      ConfigError: a name that is in no table, or choices that do not fit each other.
    """
    hparams = Hyperparams(config.learning_rate)
    lookup(PRECISIONS, "precision", config.precision), lookup(ON_NAN, "on_nan", config.on_nan)
    make_model(config, classes=2), make_optimizer(config, hparams), make_loss(config, hparams)


def make_parts(config: Config, classes: int, shape: tuple[int, ...], steps: int) -> Parts:
    """Makes the model, the optimizer and the steps that a configuration names.

    Args:
      config: what to make.
      classes: number of outputs.
      shape: (H, W, C) of the images.
      steps: updates of the whole run, for the schedule.

    Returns:
      The parts.

    Raises:
      ConfigError: a name that is in no table, choices that do not fit each other, or images too small for the model.
    """
    hparams = Hyperparams(**{name: getattr(config, name) for name in Hyperparams._fields})
    model, optimizer, loss_fn = (
        make_model(config, classes),
        make_optimizer(config, hparams, steps),
        make_loss(config, hparams),
    )
    dtype = lookup(PRECISIONS, "precision", config.precision)
    augment = functools.partial(affine, rotation=config.rotation, zoom=config.zoom, shift=config.shift)
    train_step = make_train_step(
        model,
        optimizer,
        loss_fn,
        augment=augment if config.rotation or config.zoom or config.shift else None,
        penalty=make_penalty(hparams) if config.l1 or config.l2 else None,
        dtype=dtype,
        skip_nonfinite=lookup(ON_NAN, "on_nan", config.on_nan),
        micro_batch_size=config.micro_batch_size,
    )
    init = functools.partial(init_state, model, optimizer, image=jnp.zeros((1, *shape), jnp.uint8))
    jax.eval_shape(init, jax.random.key(0))
    return Parts(model, optimizer, init, train_step, make_eval_step(model, loss_fn, dtype=dtype), dtype)


def train_epoch(
    train_step: TrainStep,
    state: TrainState,
    images: jax.Array,
    labels: jax.Array,
    first: Any = 0,
    stop: Any = None,
    *,
    batch_size: int,
) -> tuple[TrainState, Metrics]:
    """Trains one pass over the data, or a piece of it, in an order drawn from the state's key and epoch: one loop.

    With traced bounds one program trains any piece, and the pieces give the bits that the whole gives.

    Args:
      train_step: as make_train_step gives it, or of the same signature.
      state: before step `first` of an epoch; which epoch follows from its step.
      images: [N, H, W, C] uint8, on the device.
      labels: [N] int32.
      first: [] int, the first step of the epoch to make, from 0.
      stop: [] int, the one not to make; None for the epoch's S = ceil(N / batch_size) steps.
      batch_size: images a step, at most N; the last batch is padded and masked.

    Returns:
      The state `stop - first` steps later, and Metrics of [S] arrays, zero at the steps not made; `merge` adds them up.
    """
    epoch = state.step // -(-len(images) // batch_size)
    key = jax.random.fold_in(jax.random.fold_in(state.key, SHUFFLE), epoch)
    index, mask = epoch_batches(key, len(images), batch_size)
    padded = len(images) % batch_size  # a mask that the compiler knows costs nothing

    def body(step, carry):
        state, per_step = carry
        rows = index[step]
        batch = Batch(images[rows], labels[rows], mask[step] if padded else jnp.ones(batch_size, bool))
        state, step_metrics = train_step(state, batch)
        return state, jax.tree.map(lambda all, one: all.at[step].set(one), per_step, step_metrics)

    batch = Batch(images[index[0]], labels[index[0]], mask[0])
    one = jax.eval_shape(train_step, state, batch)[1]
    per_step = jax.tree.map(lambda leaf: jnp.zeros((len(index), *leaf.shape), leaf.dtype), one)
    return jax.lax.fori_loop(first, len(index) if stop is None else stop, body, (state, per_step))


def evaluate(
    eval_step: EvalStep, state: TrainState, images: jax.Array, labels: jax.Array, batch_size: int = 200
) -> Metrics:
    """Scores every image once.

    Args:
      eval_step: as make_eval_step gives it, or of the same signature.
      state: the one to score.
      images: [N, H, W, C] uint8, on the device.
      labels: [N] int32.
      batch_size: images at a time; the last batch is padded and masked.

    Returns:
      Metrics of scalars over all N images.
    """
    index, mask = padded_batches(jnp.arange(len(images), dtype=jnp.int32), min(batch_size, max(len(images), 1)))

    def body(_, step):
        rows, mask = step
        return None, eval_step(state, Batch(images[rows], labels[rows], mask))

    return metrics.merge(jax.lax.scan(body, None, (index, mask))[1])


def predict(
    model: Any, state: TrainState, images: jax.Array, batch_size: int = 200, dtype: Any = jnp.float32
) -> jax.Array:
    """Computes the logits of every image.

    Args:
      model: has Linen's `apply(variables, image, train=False)`, giving [B, classes] logits.
      state: the one to ask.
      images: [N, H, W, C] uint8, on the device.
      batch_size: images at a time.
      dtype: in which the network computes.

    Returns:
      [N, classes] float32 logits.
    """
    rows, _ = padded_batches(jnp.arange(len(images), dtype=jnp.int32), min(batch_size, max(len(images), 1)))
    variables = {"params": _cast(state.params, dtype), **state.model_state}
    logits = jax.lax.map(lambda rows: model.apply(variables, scale(images[rows]).astype(dtype), train=False), rows)
    return logits.reshape(-1, logits.shape[-1])[: len(images)].astype(jnp.float32)
