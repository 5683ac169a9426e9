"""The choices of a run, and their validation. A recipe is one Config."""

import dataclasses
import math
import re
import types
from collections.abc import Mapping
from typing import Any

from mnist_jax.errors import ConfigError, nearest


def choice(default: Any, help: str) -> Any:
    """Makes a dataclass field that is also a flag.

    Args:
      default: its value where nothing is said; str, int, float, bool or tuple of int.
      help: what --help says of it.

    Returns:
      A dataclass field.
    """
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

    experiment: str = "custom"  # for the result file
    dataset: str = choice(
        "mnist",
        "mnist5k (embedded, no network), mnist, fashion_mnist, kmnist, idx:FOLDER (four IDX files) or tfds:NAME",
    )
    data_dir: str = choice("", "folder of the data files, placed by hand or fetched; empty: ~/.cache/mnist_jax")
    validation_fraction: float = choice(0.1, "share of the training images held out for validation, in [0, 1)")
    model: str = choice("perceptron", "softmax, perceptron, cnn, deep_cnn, rnn or embedding (mnist_jax.models.MODELS)")
    hidden: tuple[int, ...] = choice((784,), "units of each hidden layer, separated by commas; empty for none")
    filters: tuple[int, ...] = choice((32,), "filters of each convolutional stage (cnn, deep_cnn)")
    kernel_size: int = choice(5, "side of the first stage's convolution kernels, in pixels (cnn, deep_cnn)")
    cell: str = choice("lstm", "recurrent cell: lstm or gru (rnn)")
    tokens: str = choice("patches", "what is embedded: patches, or the grey levels of the halved image (embedding)")
    activation: str = choice("relu", "name in mnist_jax.layers.ACTIVATIONS, as Keras has it")
    kernel_init: str = choice("glorot_uniform", "name in mnist_jax.layers.INITIALIZERS, as Keras has it")
    norm: str = choice("none", "normalisation of each hidden layer before its activation: none, batch or layer")
    dropout: float = choice(0.0, "share of activations dropped in training, in [0, 1)")
    precision: str = choice("f32", "in which the network computes: f32 or bf16; parameters and updates stay f32")
    rotation: float = choice(0.0, "augmentation: turn by up to so many degrees")
    zoom: float = choice(0.0, "augmentation: scale by up to this share, in [0, 1)")
    shift: float = choice(0.0, "augmentation: move by up to so many pixels")
    loss: str = choice("sparse_categorical_crossentropy", "name in mnist_jax.losses.LOSSES, as Keras has it")
    from_logits: bool = choice(True, "whether the loss takes logits; otherwise it takes softmax's probabilities")
    label_smoothing: float = choice(0.0, "share of each target spread over all classes, in [0, 1)")
    l1: float = choice(0.0, "weight of the kernels' sum of magnitudes in the loss")
    l2: float = choice(0.0, "weight of the kernels' sum of squares in the loss")
    optimizer: str = choice("adam", "name in mnist_jax.optimizers.OPTIMIZERS, as Keras has it")
    learning_rate: float = choice(1e-3, "the optimizer's step length; a schedule's highest")
    schedule: str = choice("constant", "course of the learning rate, a name in mnist_jax.optimizers.SCHEDULES")
    warmup_epochs: float = choice(0.0, "epochs in which the learning rate rises from 0, before the schedule")
    momentum: float = choice(0.0, "momentum, in [0, 1) (sgd, rmsprop)")
    nesterov: bool = choice(False, "Nesterov's momentum (sgd, rmsprop)")
    weight_decay: float = choice(0.0, "decoupled weight decay a step, times the learning rate; 0 also for adamw")
    clip_norm: float = choice(0.0, "gradients longer than this are shortened to it; 0 for none")
    batch_size: int = choice(200, "training images a step")
    micro_batch_size: int = choice(0, "images of a step computed (and batch-normed) at a time, gradients added; 0: all")
    epochs: int = choice(10, "passes over the training images; 0 scores the untrained network")
    patience: int = choice(0, "stop after so many validations without a lower loss; 0 never stops early")
    seed: int = choice(7, "root of all randomness; the first one with --num_seeds")
    num_seeds: int = choice(1, "runs, with seeds seed, seed + 1, ...; their mean and deviation are reported")
    eval_every: int = choice(1, "epochs between validations; 0 validates only at the end")
    on_nan: str = choice("stop", "a loss or gradient that is not finite: stop, or skip the update and count it")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is float and not abs(value) < LARGEST:
                raise ConfigError(f"--{field.name}={value}: must be a finite number of 32 bits")
            low, below = _RANGES.get(field.name, (None, None))
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int) and not -(2**31) <= number < 2**31:
                    raise ConfigError(f"--{field.name}={_shown(value):.60}: must be below 2147483648")
                if low is not None and number < low:
                    raise ConfigError(f"--{field.name}={_shown(value)}: must be at least {low}")
                if below is not None and number >= below:
                    raise ConfigError(f"--{field.name}={_shown(value)}: must be in [{low}, {below})")
        if not re.fullmatch(r"[\w-]{1,60}", self.experiment):
            raise ConfigError(f"--config: field 'experiment' is {self.experiment!r:.60}; it must be a plain name")
        if self.seed + self.num_seeds > 2**31:
            raise ConfigError(f"--seed={self.seed}: seeds must stay below 2147483648")
        if self.patience and not (self.eval_every and self.validation_fraction):
            raise ConfigError(f"--patience={self.patience}: needs --eval_every and --validation_fraction above 0")
        if self.nesterov and not self.momentum:
            raise ConfigError("--nesterov: needs --momentum above 0")


LARGEST = 3.4e38  # of float32
_RANGES = {  # the least value, and the one that is too much
    "validation_fraction": (0, 1),
    "hidden": (1, None),
    "filters": (1, 2**16),
    "kernel_size": (1, 29),
    "dropout": (0, 1),
    "rotation": (0, 360),
    "zoom": (0, 1),
    "shift": (0, 1000),
    "label_smoothing": (0, 1),
    "l1": (0, None),
    "l2": (0, None),
    "learning_rate": (0, None),
    "warmup_epochs": (0, None),
    "momentum": (0, 1),
    "weight_decay": (0, None),
    "clip_norm": (0, None),
    "batch_size": (1, None),
    "micro_batch_size": (0, None),
    "epochs": (0, None),
    "patience": (0, None),
    "seed": (0, None),
    "num_seeds": (1, None),
    "eval_every": (0, None),
}


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


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
            raise ConfigError(f"--config: unknown field {name!r:.60}; {nearest(name, fields)}")
        kind = fields[name].type
        if isinstance(kind, types.GenericAlias):
            good = isinstance(value, list | tuple) and all(type(item) is int for item in value)
            value = tuple(value) if good else value
        elif kind is float:
            good = type(value) in (int, float)
            value = float(value) if good and abs(value) < LARGEST else math.inf if good else value
        else:
            good = type(value) is kind
        if not good:
            raise ConfigError(f"--config: field {name!r} is {value!r:.60}, but must be {fields[name].type}")
        converted[name] = value
    return Config(**converted)
