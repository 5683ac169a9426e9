"""OPTIMIZERS and SCHEDULES, optax's, by their Keras names, and the one function that makes an optimizer of them."""

import inspect

import optax
import optax.contrib

from mnist_jax.config import Config
from mnist_jax.errors import ConfigError, lookup
from mnist_jax.types import Hyperparams

# https://keras.io/api/optimizers/
OPTIMIZERS = {
    "adadelta": optax.adadelta,
    "adagrad": optax.adagrad,
    "adam": optax.adam,
    "adamax": optax.adamax,
    "adamw": optax.adamw,
    "lamb": optax.lamb,
    "lion": optax.lion,
    "muon": optax.contrib.muon,
    "nadam": optax.nadam,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
}

# steps -> schedule of the share of the learning rate, over that many steps.
SCHEDULES = {
    "constant": lambda steps: optax.constant_schedule(1.0),
    "cosine": lambda steps: optax.cosine_decay_schedule(1.0, steps),
    "exponential": lambda steps: optax.exponential_decay(1.0, steps, decay_rate=0.01),
    "linear": lambda steps: optax.linear_schedule(1.0, 0.0, steps),
    "one_cycle": lambda steps: optax.cosine_onecycle_schedule(steps, 1.0),
    "step": lambda steps: optax.piecewise_constant_schedule(1.0, {steps // 2: 0.1, steps * 3 // 4: 0.1}),
}


def make_schedule(config: Config, hparams: Hyperparams, steps: int) -> optax.Schedule:
    """Makes the course of the learning rate.

    Args:
      config: `schedule` is a name in SCHEDULES; `warmup_epochs` of its `epochs` rise linearly from 0 before it.
      hparams: its `learning_rate`, the highest, may be a traced scalar.
      steps: updates of the whole run.

    Returns:
      step -> learning rate. cosine and linear fall to 0, exponential to a hundredth; step falls to a tenth at half and
      again at three quarters; one_cycle rises from a 25th for the first 0.3 and falls to a 10,000th of that.

    Raises:
      ConfigError: no such schedule, or a warm-up that is longer than the run.

    >>> schedule = make_schedule(Config(schedule="linear"), Hyperparams(0.5), steps=100)
    >>> [float(schedule(step)) for step in (0, 50, 100)]
    [0.5, 0.25, 0.0]
    """
    course = lookup(SCHEDULES, "schedule", config.schedule)
    if config.warmup_epochs and config.warmup_epochs >= config.epochs:
        raise ConfigError(f"--warmup_epochs={config.warmup_epochs}: must be below --epochs={config.epochs}")
    warmup = round(steps * config.warmup_epochs / max(config.epochs, 1))
    share = course(max(steps - warmup, 1))
    if warmup:
        share = optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup), share], [warmup])
    return lambda step: hparams.learning_rate * share(step)


def make_optimizer(config: Config, hparams: Hyperparams, steps: int = 0) -> optax.GradientTransformation:
    """Makes the optimizer that a configuration names; cheap, so make it inside the traced run.

    Args:
      config: says which parts there are: its `optimizer` is a name in OPTIMIZERS, its `schedule` one in SCHEDULES, and
        `momentum`, `weight_decay` or `clip_norm` of 0 leave that part out.
      hparams: the parts' values; each may be a traced scalar.
      steps: updates of the whole run; schedules need it.

    Returns:
      An optax GradientTransformation.

    Raises:
      ConfigError: no such optimizer or schedule, or a flag that this optimizer does not have.
    """
    alias = lookup(OPTIMIZERS, "optimizer", config.optimizer)
    takes = inspect.signature(alias).parameters
    rate = make_schedule(config, hparams, steps)
    if config.schedule == "constant" and not config.warmup_epochs:
        rate = hparams.learning_rate
    options = {}
    if config.momentum:
        if "momentum" not in takes:
            have = [name for name, other in OPTIMIZERS.items() if "momentum" in inspect.signature(other).parameters]
            raise ConfigError(f"--momentum={config.momentum}: not for {config.optimizer}; for {', '.join(have)}")
        options |= {"momentum": hparams.momentum, "nesterov": config.nesterov}
    decays = [name for name in ("weight_decay", "adam_weight_decay") if name in takes]
    if config.optimizer == "adadelta":
        decays = []  # optax couples it to the gradient there
    options |= {name: hparams.weight_decay if config.weight_decay else 0.0 for name in decays}
    parts = [alias(rate, **options)]
    if config.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(hparams.clip_norm))
    if config.weight_decay and not decays:
        if callable(rate):
            decay = optax.add_decayed_weights(lambda step: -hparams.weight_decay * rate(step))
        else:
            decay = optax.add_decayed_weights(-hparams.weight_decay * rate)
        parts.append(decay)
    return optax.chain(*parts) if len(parts) > 1 else parts[0]
