"""The compiled programs of an experiment, on one device, with its data there."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np

from mnist_jax.devices import check_memory
from mnist_jax.errors import ArgumentError
from mnist_jax.evaluation import evaluate
from mnist_jax.experiment import Components, Experiment
from mnist_jax.metrics import compute
from mnist_jax.train import train_epoch
from mnist_jax.types import Metrics, Scores, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Programs:
    """What a run calls; each is compiled once, whatever the number of seeds and epochs."""

    experiment: Experiment
    components: Components
    init: Callable[[jax.Array], TrainState]  # key -> state at step 0
    train: Callable[[TrainState, int, int], tuple[TrainState, Metrics]]  # (state, start_step, end_step), of one epoch
    score: Callable[[str, TrainState], Scores]  # (split, state)
    predict: Callable[[str, TrainState], np.ndarray]  # (split, state) -> logits
    splits: tuple[str, ...]
    steps_per_epoch: int
    state_shapes: TrainState  # of jax.ShapeDtypeStruct
    metric_shapes: Metrics  # of one epoch: [S] arrays

    def score_all(self, state: TrainState) -> dict[str, Scores]:
        """Scores a state on every split."""
        return {split: self.score(split, state) for split in self.splits}


def _check_outputs(experiment: Experiment, components: Components, state_shapes: TrainState) -> None:
    """Refuses a label without an output, which a loss by name would turn into NaN or clamp."""
    images, labels = experiment.splits["train"]
    logits = jax.eval_shape(components.predict, state_shapes, jax.ShapeDtypeStruct(images[:1].shape, images.dtype))
    if "loss" not in experiment.own_parts and labels.ndim == 1 and logits.shape[-1] <= labels.max():
        raise ArgumentError(f"model: has {logits.shape[-1]} outputs, but the labels go up to {labels.max()}")


def compile_programs(experiment: Experiment, device: jax.Device, deterministic: bool = False) -> Programs:
    """Compiles the programs of an experiment, and checks that an epoch fits into memory.

    Args:
      experiment: what to compile.
      device: where to.
      deterministic: whether to forbid a GPU's kernels whose results vary.

    Returns:
      The programs.

    Raises:
      ConfigError, ArgumentError: options that do not fit each other or the data, or too little memory.
    """
    config, components = experiment.config, experiment.build()
    splits = {name: jax.device_put(arrays, device) for name, arrays in experiment.splits.items()}
    state_shapes = jax.eval_shape(components.init, jax.random.key(config.seed))
    _check_outputs(experiment, components, state_shapes)
    epoch = jax.jit(
        functools.partial(train_epoch, components.train_step, batch_size=config.batch_size), donate_argnums=0
    )
    # Bounds that the compiler does not know, so that one program trains any part of an epoch.
    lowered = epoch.lower(state_shapes, *splits["train"], np.int32(0), np.int32(0))
    options: dict[str, str | bool] | None = {"xla_gpu_deterministic_ops": True} if deterministic else None
    compiled_epoch = lowered.compile(options)
    check_memory(compiled_epoch, device, config.batch_size)
    evaluation = jax.jit(functools.partial(evaluate, components.eval_step))
    evaluations = {name: evaluation.lower(state_shapes, *arrays).compile(options) for name, arrays in splits.items()}
    predict = jax.jit(components.predict, compiler_options=options)

    def train(state: TrainState, start_step: int, end_step: int) -> tuple[TrainState, Metrics]:
        return compiled_epoch(state, *splits["train"], np.int32(start_step), np.int32(end_step))

    return Programs(
        experiment=experiment,
        components=components,
        init=jax.jit(components.init, compiler_options=options),
        train=train,
        score=lambda split, state: compute(jax.device_get(evaluations[split](state, *splits[split]))),
        predict=lambda split, state: np.asarray(predict(state, splits[split][0])),
        splits=tuple(splits),
        steps_per_epoch=experiment.steps_per_epoch,
        state_shapes=state_shapes,
        metric_shapes=lowered.out_info[1],
    )
