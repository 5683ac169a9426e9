"""The choices of a run: one frozen dataclass, which a researcher can subclass."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Self, TypeAlias

from mnist_jax.errors import ConfigError, suggest_name
from mnist_jax.fields import MAX_INT, Flag, Value, flag_field, flags_of, is_on, is_traced, validate_fields
from mnist_jax.files import Json

_NOT_CONVOLUTIONAL = ("softmax", "perceptron", "rnn", "vit")

# From names of traced fields to values: a pytree, so that vmap can map over it.
Hyperparams: TypeAlias = dict[str, Value]


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run's numbers. Each field is a flag of the same name.

    Fields marked as traced take JAX tracers too. To add flags, subclass it with fields made by flag_field.

    Raises:
      ConfigError: a value of the wrong type or out of its range; the message names the field.

    >>> Config(batch_size=0)
    Traceback (most recent call last):
    mnist_jax.errors.ConfigError: batch_size=0: must be at least 1
    """

    # fmt: off
    name: str = "custom"  # of the experiment, for the result file
    # Of the data set the SHA-256 is compared, not where it lies.
    dataset: str = flag_field("mnist", "a name or PREFIX:REST of mnist_jax.datasets.DATASETS", group="data", decides_bits=False)
    data_dir: str = flag_field("", "folder of downloaded files; empty: ~/.cache/mnist_jax", group="data", decides_bits=False)
    image_size: int = flag_field(0, "height and width to resize the pictures of images:, parquet: and digits to; 0: as they are", group="data", minimum=0)
    resplit: int = flag_field(0, "seed to draw other test images with, from all images of the data set; 0: its own", group="data", minimum=0)
    validation_fraction: float = flag_field(0.1, "fraction of the training images held out for validation", minimum=0, exclusive_maximum=1)
    validation_rows: str = flag_field("random", "which images validation_fraction holds out: random, or the last, in MNIST by other writers", group="data", choices=("random", "last"))

    model: str = flag_field("perceptron", "name in mnist_jax.models.MODELS", group="model")
    hidden_sizes: tuple[int, ...] = flag_field((784,), "units of each hidden layer; empty for none", group="model", unused_by=("softmax",), minimum=1)
    filters: tuple[int, ...] = flag_field((32,), "filters of each stage (cnn, deep_cnn)", group="model", unused_by=_NOT_CONVOLUTIONAL, minimum=1, exclusive_maximum=2**16)
    kernel_size: int = flag_field(5, "side of the first stage's kernels, in pixels (cnn, deep_cnn)", group="model", unused_by=_NOT_CONVOLUTIONAL, minimum=1, exclusive_maximum=29)
    convs_per_stage: int = flag_field(2, "convolutions of 3x3 in each stage after the first (deep_cnn)", group="model", unused_by=(*_NOT_CONVOLUTIONAL, "cnn"), minimum=1, exclusive_maximum=100)
    pooling: str = flag_field("none", "of the last stage over the whole image (deep_cnn), as in Keras's applications: none, avg, max or avg_max, which is both", group="model", unused_by=(*_NOT_CONVOLUTIONAL, "cnn"), choices=("none", "avg", "max", "avg_max"))
    cell: str = flag_field("lstm", "recurrent cell (rnn): lstm or gru", group="model", unused_by=("softmax", "perceptron", "cnn", "deep_cnn", "vit"), choices=("lstm", "gru"))
    tokens: str = flag_field("patches", "what is embedded (vit): patches, or pixel intensity of the halved image", group="model", unused_by=("softmax", "perceptron", "cnn", "deep_cnn", "rnn"), choices=("patches", "intensity"))
    activation: str = flag_field("relu", "name in mnist_jax.layers.ACTIVATIONS, as in Keras", group="model")
    kernel_init: str = flag_field("glorot_uniform", "name in mnist_jax.layers.INITIALIZERS, as in Keras", group="model")
    norm: str = flag_field("none", "normalization before each activation: none, batch or layer", group="model", choices=("none", "batch", "layer"))
    dropout: float = flag_field(0.0, "fraction of activations dropped in training", group="model", minimum=0, exclusive_maximum=1, traced=True)
    dtype: str = flag_field("float32", "of matmuls: float32 or bfloat16; all else stays float32", choices=("float32", "bfloat16"))

    augmentations: tuple[str, ...] = flag_field(("affine",), "names in mnist_jax.augment.AUGMENTATIONS, in order", group="augmentation")
    rotation: float = flag_field(0.0, "rotate by up to so many degrees", group="augmentation", minimum=0, exclusive_maximum=360, traced=True)
    zoom: float = flag_field(0.0, "scale by up to this fraction", group="augmentation", minimum=0, exclusive_maximum=1, traced=True)
    translation: float = flag_field(0.0, "translate by up to so many pixels", group="augmentation", minimum=0, exclusive_maximum=1000, traced=True)
    elastic: float = flag_field(0.0, "move pixels by a smooth random field of this standard deviation, in pixels", group="augmentation", minimum=0, exclusive_maximum=1000, traced=True)

    clean_fraction: float = flag_field(0.0, "last fraction of training, which sees the images as they are", minimum=0, exclusive_maximum=1)

    loss: str = flag_field("sparse_categorical_crossentropy", "name in mnist_jax.losses.LOSSES, as in Keras", group="loss")
    from_logits: bool = flag_field(True, "whether the loss takes logits, or else softmax's probabilities", group="loss")
    label_smoothing: float = flag_field(0.0, "fraction of each target spread over all classes", group="loss", minimum=0, exclusive_maximum=1, traced=True)
    l1: float = flag_field(0.0, "weight of the kernels' sum of magnitudes in the loss", minimum=0, traced=True)
    l2: float = flag_field(0.0, "weight of the kernels' sum of squares in the loss", minimum=0, traced=True)
    metrics: tuple[str, ...] = flag_field(("accuracy",), "names in mnist_jax.metrics.METRICS, beside the loss", group="metrics")

    optimizer: str = flag_field("adam", "name in mnist_jax.optimizers.OPTIMIZERS, as in Keras, and its arguments, as in adam:b1=0.95,eps=1e-7", group="optimizer")
    learning_rate: float = flag_field(1e-3, "step size of the optimizer; a schedule's peak", group="optimizer", minimum=0, traced=True)
    schedule: str = flag_field("constant", "of the learning rate, a name in mnist_jax.optimizers.SCHEDULES", group="optimizer")
    warmup_epochs: float = flag_field(0.0, "epochs of linear warm-up from 0, before the schedule", group="optimizer", minimum=0)
    momentum: float = flag_field(0.0, "momentum (sgd, rmsprop)", group="optimizer", minimum=0, exclusive_maximum=1, traced=True)
    nesterov: bool = flag_field(False, "Nesterov momentum (sgd, rmsprop)", group="optimizer")
    weight_decay: float = flag_field(0.0, "decoupled weight decay, times the learning rate; 0 also for adamw", group="optimizer", minimum=0, traced=True)
    grad_clip_norm: float = flag_field(0.0, "scale down gradients of a larger global norm; 0: off", group="optimizer", minimum=0, traced=True)
    ema_decay: float = flag_field(0.0, "decay of a moving average of the parameters; 0: off", minimum=0, exclusive_maximum=1, traced=True)
    use_ema: bool = flag_field(True, "score the averaged parameters, where ema_decay is above 0")

    batch_size: int = flag_field(200, "training images per step", minimum=1)
    microbatch_size: int = flag_field(0, "images computed (and batch-normalized) at a time, gradients added up; 0: all", minimum=0)
    epochs: int = flag_field(10, "passes over the training images; 0 scores the untrained network", minimum=0)
    patience: int = flag_field(0, "stop after so many validations without a lower loss; 0: never", minimum=0)
    seed: int = flag_field(7, "root of all randomness; of several runs, the first one's", minimum=0)
    num_seeds: int = flag_field(1, "runs, with seeds seed, seed + 1, ...", minimum=1, decides_bits=False)
    eval_every_epochs: int = flag_field(1, "epochs between validations; 0: only at the end", minimum=0, decides_bits=False)
    on_nan: str = flag_field("stop", "at a loss or gradient that is not finite: stop, or skip the update", choices=("stop", "skip"))
    # fmt: on

    def __post_init__(self) -> None:
        validate_fields(self)
        if not re.fullmatch(r"[\w-]{1,60}", str(self.name)):
            raise ConfigError(f"name={self.name!r:.60}: must be letters, digits, - and _, at most 60")
        if self.seed + self.num_seeds > MAX_INT:
            raise ConfigError(f"seed={self.seed}: seeds must stay below {MAX_INT}")
        if self.patience and not (self.eval_every_epochs and self.validation_fraction):
            raise ConfigError(f"patience={self.patience}: needs eval_every_epochs and validation_fraction above 0")
        if self.nesterov and not is_on(self.momentum):
            raise ConfigError("nesterov=True: needs momentum above 0")

    def replace_traced(self, hparams: Hyperparams) -> Self:
        """Replaces values of traced fields.

        Args:
          hparams: from the names of traced fields to numbers or traced scalars.

        Returns:
          The new configuration.

        Raises:
          ConfigError: a name that is not a traced field.
        """
        traced = [flag.name for flag in flags_of(type(self)).values() if flag.traced]
        for name in hparams:
            if name not in traced:
                raise ConfigError(f"{name}: can't vary inside a program; {suggest_name(name, traced)}")
        return dataclasses.replace(self, **hparams)

    def deciding_bits(self) -> dict[str, Value]:
        """Returns the fields that decide a seed's numbers, but for the seed itself."""
        names = [flag.name for flag in flags_of(type(self)).values() if flag.decides_bits and flag.name != "seed"]
        if self.patience:  # which counts validations
            names.append("eval_every_epochs")
        return {name: getattr(self, name) for name in names}


def changed_fields(old: Config, new: Config) -> Iterator[Flag]:
    """Finds the fields in which two configurations differ.

    Args:
      old: one.
      new: another one of the same class.

    Yields:
      What each of the differing fields declares.
    """
    for flag in flags_of(type(new)).values():
        before, after = (getattr(config, flag.name) for config in (old, new))
        if is_traced(after) or before != after:
            yield flag


def config_from_dict(values: Mapping[str, Json], base: Config | None = None) -> Config:
    """Makes a configuration from what a config.json holds.

    Args:
      values: from field names to JSON values.
      base: has the values of fields that are not named, and the class; None for Config's defaults.

    Returns:
      The configuration; `config_from_dict(dataclasses.asdict(config)) == config`, also through JSON.

    Raises:
      ConfigError: an unknown field, a value of the wrong type, or one out of range.
    """
    base = base or Config()
    known = [field.name for field in dataclasses.fields(base)]
    for name in values:
        if name not in known:
            raise ConfigError(f"{name!r:.60} is no field of the configuration; {suggest_name(str(name), known)}")
    return dataclasses.replace(base, **values)
