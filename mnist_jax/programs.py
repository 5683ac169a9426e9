"""The compiled programs of an experiment, for one device or many, with its data there."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mnist_jax.devices import check_memory
from mnist_jax.errors import ArgumentError
from mnist_jax.evaluation import evaluate
from mnist_jax.experiment import Components, Experiment
from mnist_jax.metrics import compute
from mnist_jax.sharding import Placement
from mnist_jax.train import train_epoch
from mnist_jax.types import Metrics, PyTree, Scores, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Programs:
    """What a run calls; each is compiled once, whatever the number of seeds and epochs."""

    experiment: Experiment
    components: Components
    init: Callable[[jax.Array], TrainState]  # key -> state at step 0
    train: Callable[[TrainState, int, int], tuple[TrainState, Metrics]]  # (state, start_step, end_step), of one epoch
    score: Callable[[str, TrainState], Scores]  # (split, state)
    predict: Callable[[str, TrainState], np.ndarray]  # (split, state) -> logits
    fetch: Callable[[PyTree], PyTree]  # arrays of a state, wherever they lie -> NumPy arrays
    splits: tuple[str, ...]
    steps_per_epoch: int
    state_shapes: TrainState  # of jax.ShapeDtypeStruct
    metric_shapes: Metrics  # of one epoch: [S] arrays

    def score_all(self, state: TrainState) -> dict[str, Scores]:
        """Scores a state on every split."""
        return {split: self.score(split, state) for split in self.splits}


def _check_outputs(experiment: Experiment, components: Components, state_shapes: TrainState) -> None:
    """Refuses a label without an output, which a loss by name would turn into NaN or clamp."""
    images, labels = experiment.dataset.train_images, experiment.dataset.train_labels
    logits = jax.eval_shape(components.predict, state_shapes, jax.ShapeDtypeStruct(images[:1].shape, images.dtype))
    if "loss" not in experiment.own_parts and labels.ndim == 1 and logits.shape[-1] <= labels.max():
        raise ArgumentError(f"model: has {logits.shape[-1]} outputs, but the labels go up to {labels.max()}")


def compile_programs(experiment: Experiment, placement: Placement, deterministic: bool = False) -> Programs:
    """Compiles the programs of an experiment, and checks that an epoch fits into memory.

    Args:
      experiment: what to compile.
      placement: for which devices, and what lies where.
      deterministic: whether to forbid a GPU's kernels whose results vary.

    Returns:
      The programs.

    Raises:
      ConfigError, ArgumentError: options that do not fit each other or the data, or too little memory.
    """
    config, components = experiment.config, experiment.build()
    state_shapes = jax.eval_shape(components.init, jax.random.key(config.seed))
    _check_outputs(experiment, components, state_shapes)
    state_shapes, context = placement.place_state(state_shapes), placement.context
    counts = {name: len(split.rows) for name, split in experiment.split_rows.items()}
    splits = {
        name: tuple(placement.put_rows(array, split.rows) for array in (split.images, split.labels))
        for name, split in experiment.split_rows.items()
    }
    options: dict[str, str | bool] | None = {"xla_gpu_deterministic_ops": True} if deterministic else None

    def jit(function: Callable[..., Any], outputs: PyTree, **kwargs: Any) -> Any:
        where = {"out_shardings": outputs} if placement.mesh else {}
        return jax.jit(function, compiler_options=options, **where, **kwargs)

    everywhere, of_state = placement.sharding(), jax.tree.map(lambda leaf: leaf.sharding, state_shapes)
    epoch = jit(
        functools.partial(
            train_epoch, components.train_step, batch_size=config.batch_size, num_examples=counts["train"]
        ),
        (of_state, everywhere),
        donate_argnums=0,
    )
    scores = {
        name: jit(functools.partial(evaluate, components.eval_step, num_examples=count), everywhere)
        for name, count in counts.items()
    }
    with context():
        # Bounds that the compiler does not know, so that one program trains any part of an epoch.
        lowered = epoch.lower(state_shapes, *splits["train"], np.int32(0), np.int32(0))
        compiled_epoch = lowered.compile()
        check_memory(compiled_epoch, placement.device, config.batch_size)
        evaluations = {name: scores[name].lower(state_shapes, *arrays).compile() for name, arrays in splits.items()}
    init, predict = jit(components.init, of_state), jit(components.predict, everywhere)

    def start(key: jax.Array) -> TrainState:
        with context():
            return init(key)

    def train(state: TrainState, start_step: int, end_step: int) -> tuple[TrainState, Metrics]:
        return compiled_epoch(state, *splits["train"], np.int32(start_step), np.int32(end_step))

    def predict_split(split: str, state: TrainState) -> np.ndarray:
        with context():
            return np.asarray(predict(state, splits[split][0]))[: counts[split]]

    return Programs(
        experiment=experiment,
        components=components,
        init=start,
        train=train,
        score=lambda split, state: compute(jax.device_get(evaluations[split](state, *splits[split]))),
        predict=predict_split,
        fetch=placement.fetch,
        splits=tuple(splits),
        steps_per_epoch=experiment.steps_per_epoch,
        state_shapes=state_shapes,
        metric_shapes=lowered.out_info[1],
    )
