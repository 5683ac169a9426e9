"""The choices of a run that shape its program, and their validation. A recipe is one Config."""

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any

from mnist_jax.errors import ConfigError, nearest


def _choice(default: Any, help: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run's numbers. Each field is a flag of the same name (experiments/flags.py).

    Raises:
      ConfigError: a value is out of its range; the message names the flag.

    >>> Config(batch_size=0)
    Traceback (most recent call last):
    mnist_jax.errors.ConfigError: --batch_size=0: must be at least 1
    """

    experiment: str = _choice("custom", "name of the experiment, for the result file")
    dataset: str = _choice(
        "mnist",
        "mnist5k (embedded, no network), mnist, fashion_mnist, kmnist, idx:FOLDER (four IDX files) or tfds:NAME",
    )
    data_dir: str = _choice("", "folder of the data files, placed by hand or fetched; empty: ~/.cache/mnist_jax")
    validation_fraction: float = _choice(0.1, "share of the training images held out for validation, in [0, 1)")
    model: str = _choice("perceptron", "name in mnist_jax.models.MODELS")
    hidden: tuple[int, ...] = _choice((784,), "units of each hidden layer, separated by commas; empty for none")
    loss: str = _choice("sparse_categorical_crossentropy", "name in mnist_jax.losses.LOSSES")
    optimizer: str = _choice("adam", "name in mnist_jax.optimizers.OPTIMIZERS")
    learning_rate: float = _choice(1e-3, "the optimizer's step length")
    batch_size: int = _choice(200, "training images a step")
    epochs: int = _choice(10, "passes over the training images; 0 scores the untrained network")
    seed: int = _choice(7, "root of all randomness; the first one with --num_seeds")
    num_seeds: int = _choice(1, "runs, with seeds seed, seed + 1, ...; their mean and deviation are reported")
    eval_every: int = _choice(1, "epochs between validations; 0 validates only at the end")

    def __post_init__(self):
        for name in ("learning_rate", "validation_fraction"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"--{name}={getattr(self, name)}: must be a finite number")
        for name, low in {"batch_size": 1, "epochs": 0, "num_seeds": 1, "eval_every": 0, "seed": 0}.items():
            if getattr(self, name) < low:
                raise ConfigError(f"--{name}={getattr(self, name)}: must be at least {low}")
        if self.seed + self.num_seeds > 2**31:
            raise ConfigError(f"--seed={self.seed}: seeds must stay below 2147483648")
        if not 0 <= self.validation_fraction < 1:
            raise ConfigError(f"--validation_fraction={self.validation_fraction}: must be in [0, 1)")
        if any(units < 1 for units in self.hidden):
            raise ConfigError(f"--hidden={','.join(map(str, self.hidden))}: each layer needs at least 1 unit")


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """Makes a Config from what a config.json holds.

    Args:
      values: from field names to JSON values; a field that is not named has its default.

    Returns:
      The Config; `config_from_dict(dataclasses.asdict(config)) == config`, also through JSON.

    Raises:
      ConfigError: an unknown field, a value of the wrong type, or one out of range.
    """
    fields = {field.name: field for field in dataclasses.fields(Config)}
    converted = {}
    for name, value in values.items():
        if name not in fields:
            raise ConfigError(f"--config: unknown field {name!r}; {nearest(name, fields)}")
        kind = fields[name].type
        if isinstance(kind, types.GenericAlias):
            good = isinstance(value, list | tuple) and all(type(item) is int for item in value)
            value = tuple(value) if good else value
        elif kind is float:
            good = type(value) in (int, float)
            value = float(value) if good else value
        else:
            good = type(value) is kind
        if not good:
            raise ConfigError(f"--config: field {name!r} is {value!r}, but must be {fields[name].type}")
        converted[name] = value
    return Config(**converted)
