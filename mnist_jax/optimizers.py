"""OPTIMIZERS and SCHEDULES, optax's, by their Keras names, and the function that makes an optimizer of them."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from mnist_jax.config import Config
from mnist_jax.errors import ConfigError, get_entry, suggest_name
from mnist_jax.fields import is_on, is_traced
from mnist_jax.types import PyTree


def _as_matrices(params: PyTree) -> PyTree:
    """Says how Muon reads kernels: [units, units] as they are, [h, w, C, F] as [h w C, F]; Adam updates the rest."""

    def find_axes(leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        inputs = tuple(range(leaf.ndim - 1))
        return optax.contrib.MuonDimensionNumbers(inputs, leaf.ndim - 1) if leaf.ndim in (2, 4) else None

    return jax.tree.map(find_axes, params)


# name -> (learning_rate, **arguments) -> optimizer; https://keras.io/api/optimizers/
OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adadelta": optax.adadelta,
    "adagrad": optax.adagrad,
    "adam": optax.adam,
    "adamax": optax.adamax,
    "adamw": optax.adamw,
    "lamb": optax.lamb,
    "lion": optax.lion,
    # optax's own leaves convolutions to Adam
    "muon": functools.partial(optax.contrib.muon, muon_weight_dimension_numbers=_as_matrices),
    "nadam": optax.nadam,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
}

# name -> steps -> multiplier of the learning rate at each of that many steps; one that is the same for any number of
# steps takes no argument.
SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    "constant": lambda: optax.constant_schedule(1.0),
    "cosine": lambda steps: optax.cosine_decay_schedule(1.0, steps),
    "exponential": lambda steps: optax.exponential_decay(1.0, steps, decay_rate=0.01),
    "linear": lambda steps: optax.linear_schedule(1.0, 0.0, steps),
    "one_cycle": lambda steps: optax.cosine_onecycle_schedule(steps, 1.0),
    "step": lambda steps: optax.piecewise_constant_schedule(1.0, {steps // 2: 0.1, steps * 3 // 4: 0.1}),
}


def _is_scheduled(config: Config) -> bool:
    return config.schedule != "constant" or bool(config.warmup_epochs)


def uses_total_steps(config: Config) -> bool:
    """Says whether the learning rate at a step depends on how many steps the whole run has.

    Args:
      config: its `schedule` is a name in SCHEDULES.

    Raises:
      ConfigError: no such schedule.

    >>> uses_total_steps(Config()), uses_total_steps(Config(schedule="cosine"))
    (False, True)
    """
    return bool(inspect.signature(get_entry(SCHEDULES, "schedule", config.schedule)).parameters)


def make_schedule(config: Config, steps: int | None) -> optax.Schedule:
    """Makes the schedule of the learning rate.

    Args:
      config: `schedule` is a name in SCHEDULES; `warmup_epochs` of its `epochs` rise linearly from 0 before it; its
        `learning_rate`, the peak, may be traced.
      steps: updates of the whole run; None where they are not known, which only a constant rate allows.

    Returns:
      step -> learning rate. cosine and linear fall to 0, exponential to a hundredth; step falls to a tenth at half and
      again at three quarters; one_cycle rises from a 25th for the first 0.3 and falls to a 10,000th of that.

    Raises:
      ConfigError: no such schedule, one that needs `steps`, or a warm-up that is longer than the run.

    >>> schedule = make_schedule(Config(schedule="linear", learning_rate=0.5), steps=100)
    >>> [float(schedule(step)) for step in (0, 50, 100)]
    [0.5, 0.25, 0.0]
    """
    is_of_steps = uses_total_steps(config)
    if config.warmup_epochs and config.warmup_epochs >= config.epochs:
        raise ConfigError(f"warmup_epochs={config.warmup_epochs}: must be below epochs={config.epochs}")
    if steps is None:
        if is_of_steps or config.warmup_epochs:
            raise ConfigError(f"schedule={config.schedule}: needs the number of steps of the whole run; pass steps")
        steps = 0
    warmup_steps = round(steps / max(config.epochs, 1) * config.warmup_epochs)  # the same for any number of epochs
    make_multiplier = SCHEDULES[config.schedule]
    multiplier = make_multiplier(max(steps - warmup_steps, 1)) if is_of_steps else make_multiplier()
    if warmup_steps:
        multiplier = optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup_steps), multiplier], [warmup_steps])
    return lambda step: config.learning_rate * multiplier(step)


_BOOLEANS = {"true": True, "false": False}


def _parse_arguments(name: str, arguments: str, accepted: set[str]) -> dict[str, float | bool]:
    """Reads "b1=0.95,nesterov=true"."""
    parsed: dict[str, float | bool] = {}
    for item in arguments.split(",") if arguments else ():
        key, _, value = item.partition("=")
        if key not in accepted:
            raise ConfigError(f"optimizer={name}:{item}: {name} has no {key!r}; {suggest_name(key, accepted)}")
        try:
            is_word, is_int = value.isalpha(), value.isdecimal()
            parsed[key] = _BOOLEANS[value.lower()] if is_word else int(value) if is_int else float(value)
        except (KeyError, ValueError):
            raise ConfigError(f"optimizer={name}:{item}: must be {key}=NUMBER, or true or false") from None
    return parsed


def _clip_by_global_norm(max_norm: Any) -> optax.GradientTransformation:
    if is_traced(max_norm):
        max_norm = jnp.where(max_norm > 0, max_norm, jnp.inf)  # 0 is off
    return optax.clip_by_global_norm(max_norm)


def make_optimizer(config: Config, steps: int | None = None) -> optax.GradientTransformation:
    """Makes the optimizer that a configuration names; cheap, so make it inside the traced run.

    Args:
      config: its `optimizer` is a name in OPTIMIZERS, with arguments of that function after a colon, as in
        adam:b1=0.95,eps=1e-7; its `schedule` is one in SCHEDULES. `learning_rate`, `momentum`, `weight_decay` and
        `grad_clip_norm` may be traced; the last three are left out where they are 0.
      steps: updates of the whole run, which schedules need.

    Returns:
      An optax GradientTransformation.

    Raises:
      ConfigError: no such optimizer or schedule, or an option that this optimizer does not have.
    """
    name, _, arguments = config.optimizer.partition(":")
    factory = get_entry(OPTIMIZERS, "optimizer", name)
    accepted_args = set(inspect.signature(factory).parameters)
    schedule = make_schedule(config, steps)
    learning_rate = schedule if _is_scheduled(config) else config.learning_rate
    options: dict[str, Any] = _parse_arguments(name, arguments, accepted_args - {"learning_rate"})
    for field in ("momentum", "nesterov", "weight_decay"):
        if field in options and is_on(getattr(config, field)):
            raise ConfigError(f"{field}: is set twice, also in optimizer={config.optimizer}; set it once")
    if is_on(config.momentum):
        if "momentum" not in accepted_args:
            others = [other for other, make in OPTIMIZERS.items() if "momentum" in inspect.signature(make).parameters]
            raise ConfigError(f"momentum={config.momentum}: not for {name}; for {', '.join(others)}")
        options = {"momentum": config.momentum, "nesterov": config.nesterov} | options
    decays = [other for other in ("weight_decay", "adam_weight_decay") if other in accepted_args]
    if name == "adadelta":
        decays = []  # optax adds it to the gradient there
    options = {decay: config.weight_decay if is_on(config.weight_decay) else 0.0 for decay in decays} | options
    parts = [factory(learning_rate, **options)]
    if is_on(config.grad_clip_norm):
        parts.insert(0, _clip_by_global_norm(config.grad_clip_norm))
    if is_on(config.weight_decay) and not decays:
        rate = config.weight_decay
        decay = (lambda step: -rate * schedule(step)) if _is_scheduled(config) else -rate * config.learning_rate
        parts.append(optax.add_decayed_weights(decay))
    return optax.chain(*parts) if len(parts) > 1 else parts[0]
