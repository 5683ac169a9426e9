"""The parts of an experiment: its own objects are checked, the others are built by the names in a configuration."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from mnist_jax.config import Config
from mnist_jax.errors import ArgumentError, suggest_name

if TYPE_CHECKING:  # imported where they are used: --help needs no JAX
    import optax

    from mnist_jax.adapters import Model
    from mnist_jax.types import Augment, LossFn, Metric, Preprocess, Teacher

Part: TypeAlias = Any  # a model, optimizer, loss, ...; check_parts checks it
PARTS = ("model", "optimizer", "loss", "metrics", "augment", "teacher", "preprocess", "dataset")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """Everything that a train step is made of, as objects."""

    model: "Model"
    optimizer: "optax.GradientTransformation"
    loss: "LossFn"
    metrics: "Mapping[str, Metric]"
    augment: "Augment | None"
    teacher: "Teacher | None"
    preprocess: "Preprocess"


def check_parts(own: Mapping[str, Part]) -> None:
    """Refuses objects that can't be parts of an experiment.

    Args:
      own: from names of parts to objects.

    Raises:
      ArgumentError: an unknown name, or an object of the wrong kind.
    """
    if unknown := sorted(set(own) - set(PARTS)):
        raise ArgumentError(f"parts: {unknown[0]!r} is no part of an experiment; {suggest_name(unknown[0], PARTS)}")
    for name in ("loss", "augment", "teacher", "preprocess"):
        if name in own and not callable(own[name]):
            raise ArgumentError(f"{name}: must be a function, is a {type(own[name]).__name__}")
    metrics = own.get("metrics", {})
    if not (isinstance(metrics, Mapping) and all(map(callable, metrics.values()))):
        raise ArgumentError("metrics: must be a dict from names to functions (logits, batch) -> Mean")
    if "optimizer" in own and not hasattr(own["optimizer"], "update"):
        raise ArgumentError("optimizer: must be an optax optimizer, such as optax.adam(1e-3)")


def build_parts(config: Config, own: Mapping[str, Part], steps: int, num_classes: int) -> Parts:
    """Builds the parts that a configuration names, but for those that an experiment brings itself.

    Args:
      config: its traced fields may be traced.
      own: from names of parts to objects.
      steps: updates of the whole run, for schedules.
      num_classes: outputs of a model that is made by name.

    Returns:
      The parts.

    Raises:
      ConfigError: a name that is in no table, or options that do not fit each other.
    """
    from mnist_jax import augment, gradients, losses, metrics, models, optimizers
    from mnist_jax.adapters import as_model

    named: dict[str, Callable[[], Part]] = {
        "model": lambda: models.make_model(config, num_classes),
        "optimizer": lambda: optimizers.make_optimizer(config, steps),
        "loss": lambda: losses.make_loss(config),
        "metrics": lambda: metrics.make_metrics(config),
        "augment": lambda: augment.make_augment(config),
        "teacher": lambda: None,
        "preprocess": lambda: gradients.to_float,
    }
    parts = {name: own[name] if name in own else make() for name, make in named.items()}
    return Parts(**parts | {"model": as_model(parts["model"])})
