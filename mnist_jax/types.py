"""The arrays that are passed around: each shape and dtype is stated here, once."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax.errors import ArgumentError
from mnist_jax.files import Json

PyTree: TypeAlias = Any  # JAX has no type for a nest of arrays
Scalar: TypeAlias = float | jax.Array  # which may be traced
DType: TypeAlias = jax.typing.DTypeLike
Outputs: TypeAlias = Any  # of a network: logits [B, K], or a tuple that begins with them
Array: TypeAlias = jax.Array | np.ndarray


class Mean(NamedTuple):
    """A mean as the sum and the count that it is made of, so that means of batches merge exactly."""

    total: Any  # [] int32 or float32, or [S] with one entry per step
    count: Any  # [] int32: examples counted

    @classmethod
    def of(cls, values: jax.Array, mask: jax.Array | None = None) -> "Mean":
        """Sums one value per example.

        Args:
          values: [B] bool, int or float.
          mask: [B] bool; rows that are False count for nothing, whatever they hold. None for all rows.

        Returns:
          A Mean of scalars; bool and int values give an int32 total.

        Raises:
          ArgumentError: values or mask are not [B].

        >>> Mean.of(jnp.array([True, False, True]), jnp.array([True, True, False])).total
        Array(1, dtype=int32)
        """
        if values.ndim != 1 or (mask is not None and mask.shape != values.shape):
            shapes = f"values {values.shape}" + (f", mask {mask.shape}" if mask is not None else "")
            raise ArgumentError(f"Mean.of: takes one value per example, [B], and a mask of that shape; got {shapes}")
        mask = jnp.ones(values.shape, bool) if mask is None else mask
        dtype = jnp.float32 if jnp.issubdtype(values.dtype, jnp.floating) else jnp.int32
        total = jnp.sum(jnp.where(mask, values, jnp.zeros((), values.dtype)), dtype=dtype)
        return cls(total, jnp.sum(mask, dtype=jnp.int32))


class Batch(NamedTuple):
    """Examples for one step."""

    image: jax.Array  # [B, H, W, C] uint8, scaled to [0, 1] by the step, or float, used as it is
    label: jax.Array  # [B] int class; or [B, K] float: soft labels or regression targets
    mask: jax.Array | None = None  # [B] bool: rows that are False are padding and count for nothing; None: no padding


class TrainState(NamedTuple):
    """Everything that training needs to continue, and so everything that a checkpoint holds: data, no functions."""

    step: jax.Array  # [] int32: updates made so far
    params: PyTree  # float32
    model_state: PyTree  # what the model keeps beside its parameters (such as batch_stats); often empty
    opt_state: PyTree  # optax's state
    key: jax.Array  # [] typed PRNG key: the root key, never changed
    ema_params: PyTree = None  # the moving average of params, where it is on


class Dataset(NamedTuple):
    """A data set in memory, before validation is split off."""

    train_images: np.ndarray  # [N, H, W, C] uint8, or float32 used as it is
    train_labels: np.ndarray  # [N] int32; or [N, K] float32: soft labels or regression targets
    test_images: np.ndarray  # [M, H, W, C]
    test_labels: np.ndarray  # [M] or [M, K]
    class_names: tuple[str, ...]  # one per output of the network
    name: str  # as `dataset` names it
    sha256: str  # of the four arrays; the same whether the files were compressed or not
    num_validation: int = 0  # how many of the training images, the last ones, are its own validation split; 0: none


class Rows(NamedTuple):
    """A part of a data set, none of it copied."""

    images: np.ndarray  # [N, H, W, C]
    labels: np.ndarray  # [N] or [N, K]
    rows: np.ndarray  # [M] int: which of them, in this order


Metrics: TypeAlias = dict[str, Mean]  # by the metric's name; "loss" is always there
LossFn: TypeAlias = Callable[[Outputs, Batch], jax.Array]  # (logits [B, K], batch) -> [B]
Metric: TypeAlias = Callable[[Outputs, Batch], Mean]  # (logits [B, K], batch) -> Mean
Augment: TypeAlias = Callable[[jax.Array, Batch], Batch]  # (key, batch of float images) -> batch, changed at random
Teacher: TypeAlias = Callable[[jax.Array], jax.Array]  # the network's input [B, H, W, C] -> logits [B, K]
Preprocess: TypeAlias = Callable[[jax.Array], jax.Array]  # stored images -> the network's input
TrainStep: TypeAlias = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
EvalStep: TypeAlias = Callable[[TrainState, Batch], Metrics]
Record: TypeAlias = dict[str, Json]  # of JSON's types, such as a line of metrics.jsonl
Scores: TypeAlias = Mapping[str, float]  # metric name -> mean, and "count"
