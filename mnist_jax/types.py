"""The arrays that everything passes around: each shape and dtype is stated here, once."""

from typing import Any, NamedTuple

import jax
import numpy as np


class Batch(NamedTuple):
    """Examples for one step. Rows whose mask is False are padding and count for nothing."""

    image: jax.Array  # [B, H, W, C] uint8, as stored; the step scales it to float32 in [0, 1]
    label: jax.Array  # [B] int32, 0 <= label < number of classes
    mask: jax.Array  # [B] bool


class Metrics(NamedTuple):
    """Sums, not means, so that they merge exactly; scalars, or [S] with one entry a step."""

    count: jax.Array  # int32: examples counted
    loss: jax.Array  # float32: sum of the per-example losses, in nats for cross-entropy
    correct: jax.Array  # int32: examples whose largest logit is the label's


class Hyperparams(NamedTuple):
    """What can vary inside one compiled program: floats or float32 scalars, a pytree that vmap can map over."""

    learning_rate: Any  # a step's length, in the optimizer's own unit; a schedule's highest
    momentum: Any = 0.0  # [0, 1)
    weight_decay: Any = 0.0  # decoupled: a step takes learning_rate * weight_decay of each parameter away
    clip_norm: Any = 0.0  # the longest gradient let through, as a global L2 norm
    label_smoothing: Any = 0.0  # share of each target spread over all classes
    l1: Any = 0.0  # weight of the kernels' sum of magnitudes in the loss
    l2: Any = 0.0  # weight of the kernels' sum of squares in the loss


class TrainState(NamedTuple):
    """All that a training run needs to go on, and so all that a checkpoint holds: data, no functions."""

    step: jax.Array  # [] int32: updates made so far
    params: Any  # pytree of float32
    model_state: Any  # Linen's other collections (such as batch_stats), a dict, often empty
    opt_state: Any  # optax's state
    key: jax.Array  # [] typed PRNG key: the root key, never changed


class Dataset(NamedTuple):
    """A data set in memory, before validation is split off; plain numpy arrays."""

    train_images: np.ndarray  # [N, H, W, C] uint8
    train_labels: np.ndarray  # [N] int32
    test_images: np.ndarray  # [M, H, W, C] uint8
    test_labels: np.ndarray  # [M] int32
    class_names: tuple[str, ...]
    name: str  # as --dataset says it
    sha256: str  # of the four arrays: the same whether the files were compressed or not
