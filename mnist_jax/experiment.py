"""Experiment: what a run is made of. The only place where the names in a configuration become objects."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from mnist_jax.config import Config, Hyperparams, changed_fields, config_from_dict
from mnist_jax.errors import ArgumentError, ConfigError
from mnist_jax.fields import Value, is_on
from mnist_jax.parts import Part, build_parts, check_parts

if TYPE_CHECKING:  # imported where they are used: --help needs no JAX
    import jax
    import numpy as np
    import optax

    from mnist_jax.adapters import AnyModel, Model
    from mnist_jax.types import (
        Array,
        Augment,
        Dataset,
        EvalStep,
        LossFn,
        Metric,
        Preprocess,
        Rows,
        Teacher,
        TrainState,
        TrainStep,
    )


_LOADED = ("dataset", "data_dir", "image_size", "resplit")  # what load_dataset takes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Components:
    """The pure functions of an experiment, to call or compile as one likes."""

    model: "Model"
    optimizer: "optax.GradientTransformation"
    loss: "LossFn"
    init: "Callable[[jax.Array], TrainState]"  # key -> state at step 0
    train_step: "TrainStep"
    eval_step: "EvalStep"
    predict: "Callable[[TrainState, Array], jax.Array]"  # (state, images [N, ...]) -> logits [N, K]


class Experiment:
    """What a run is made of: parts of one's own where they are given, those that the configuration names elsewhere.

    Nothing is loaded or computed before it is used, so that an experiment can stand at the top of a module.

    Attributes:
      config: sizes, rates, names and seeds; what flags change.
      parts: the objects that take the place of the configuration's names.

    >>> experiment = Experiment("small", hidden_sizes=(64,), dataset="mnist5k", epochs=5)
    >>> experiment.config.epochs, experiment.image_shape
    (5, (28, 28, 1))
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        model: "AnyModel" = None,
        optimizer: "optax.GradientTransformation | str | None" = None,
        loss: "LossFn | str | None" = None,
        metrics: "Mapping[str, Metric] | tuple[str, ...] | None" = None,
        augment: "Augment | None" = None,
        teacher: "Teacher | None" = None,
        preprocess: "Preprocess | None" = None,
        dataset: "Dataset | Callable[[], Dataset] | str | None" = None,
        parts: Callable[[Any], Mapping[str, Part]] | None = None,
        config: Config | None = None,
        **fields: Value,
    ):
        """Collects the parts; each is an object, or a name for the configuration.

        Args:
          name: of the experiment, for the result file; letters, digits, - and _.
          model: a Linen module, or a Model of mnist_jax.adapters.
          optimizer: of optax.
          loss: (logits [B, K], batch) -> [B].
          metrics: name -> (logits, batch) -> Mean, beside the loss and in place of accuracy.
          augment: (key, batch of float images) -> batch.
          teacher: images as they are after augment -> logits, whose probabilities are learned in the labels' place.
          preprocess: stored images -> the network's input; without it uint8 is scaled to [0, 1] and float left alone.
          dataset: a Dataset, or a function that loads one.
          parts: config -> parts by these names, for those that depend on the configuration: on flags of one's own, or
            on traced values.
          config: the configuration; None for the defaults.
          **fields: of the configuration.

        Raises:
          ConfigError: an unknown field, or a value that its field refuses.
        """
        given = dict(model=model, optimizer=optimizer, loss=loss, metrics=metrics, dataset=dataset)
        names: dict[str, Value] = {
            key: value
            for key, value in given.items()
            if isinstance(value, str | tuple | list) and not _is_object(value)
        }
        names |= fields if name is None else {"name": name, **fields}
        objects = {**given, "augment": augment, "teacher": teacher, "preprocess": preprocess}
        self.parts = {key: part for key, part in objects.items() if part is not None and key not in names}
        self.make_parts = parts
        self.config: Config = config or Config()
        self.config = self.with_config(config_from_dict(names, self.config)).config

    def __repr__(self) -> str:
        return f"Experiment({self.config.name!r}, parts={self.own_parts}, config={self.config})"

    def with_config(self, config: Config) -> Self:
        """Returns the same experiment with another configuration.

        Args:
          config: of the same class.

        Raises:
          ConfigError: a field was changed that has no effect, since the experiment brings that part itself.
        """
        owned_groups = self.owned_groups
        for flag in changed_fields(self.config, config):
            if flag.group in owned_groups:
                raise ConfigError(f"{flag.name}: has no effect, since this experiment brings its own {flag.group}")
        new = copy.copy(self)
        new.config = config
        is_other_data = any(getattr(config, name) != getattr(self.config, name) for name in _LOADED)
        for cached in ("splits", "split_rows", "_own") + ("dataset",) * is_other_data:
            new.__dict__.pop(cached, None)
        return new

    def with_model(self, model: "AnyModel") -> Self:
        """Returns the same experiment with a model of one's own.

        Args:
          model: a Linen module, or a Model of mnist_jax.adapters.
        """
        new = copy.copy(self)
        new.__dict__["_own"] = self._own | {"model": model}
        return new

    @property
    def owned_groups(self) -> set[str]:
        """Groups of flags that have no effect, since an object took the place of what they describe."""
        # make_parts may read any field for the parts that it makes.
        own = {name for name, part in self._own.items() if self.parts.get(name) is part}
        return {{"dataset": "data", "augment": "augmentation"}.get(name, name) for name in own}

    @property
    def own_parts(self) -> list[str]:
        """Names of the parts that the experiment brings itself."""
        return sorted(self._own)

    @functools.cached_property
    def _own(self) -> dict[str, Part]:
        own = self.parts | dict(self.make_parts(self.config) if self.make_parts else {})
        check_parts(own)
        return own

    @functools.cached_property
    def dataset(self) -> "Dataset":
        """The data set, loaded when it is first used."""
        from mnist_jax.datasets import load_dataset, make_dataset
        from mnist_jax.types import Dataset

        own = self._own.get("dataset")
        if own is None:
            return load_dataset(*(getattr(self.config, name) for name in _LOADED))
        own = own() if callable(own) else own
        if not isinstance(own, Dataset):
            raise ArgumentError(f"dataset: must be a Dataset, as make_dataset returns, is a {type(own).__name__}")
        return make_dataset(*own[:4], tuple(own.class_names), own.name, own.num_validation)

    @functools.cached_property
    def split_rows(self) -> "dict[str, Rows]":
        """Images, labels and their rows that make up "train", "validation" (where any are held out) and "test"."""
        import numpy as np

        from mnist_jax.batches import split_dataset
        from mnist_jax.types import Rows

        data = self.dataset
        train, validation = split_dataset(data, self.config.validation_fraction, self.config.validation_rows)
        if not len(train):
            raise ConfigError(f"validation_fraction={self.config.validation_fraction}: leaves no images to train on")
        splits = {
            "train": Rows(data.train_images, data.train_labels, train),
            "validation": Rows(data.train_images, data.train_labels, validation),
            "test": Rows(data.test_images, data.test_labels, np.arange(len(data.test_labels))),
        }
        return {name: split for name, split in splits.items() if len(split.rows)}

    @functools.cached_property
    def splits(self) -> "dict[str, tuple[np.ndarray, np.ndarray]]":
        """Images and labels of "train", "validation" (where any are held out) and "test"."""
        return {name: (split.images[split.rows], split.labels[split.rows]) for name, split in self.split_rows.items()}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C) of the images."""
        return self.dataset.train_images.shape[1:]

    @property
    def steps_per_epoch(self) -> int:
        """Updates in an epoch, the last one perhaps of a batch that is not full."""
        from mnist_jax.batches import num_batches

        return num_batches(len(self.split_rows["train"].rows), self.config.batch_size)

    def build(
        self,
        hparams: Hyperparams | None = None,
        *,
        steps: int | None = None,
        num_classes: int | None = None,
        image: "jax.ShapeDtypeStruct | None" = None,
    ) -> Components:
        """Builds the pure functions; cheap, so that it can be called inside a traced program.

        Args:
          hparams: from the names of traced fields to values, which may be traced, such as {"learning_rate": rate}.
          steps: updates of the whole run, for schedules; None for the configuration's epochs of the data set.
          num_classes: outputs of a model that is made by name; None for the data set's.
          image: shape (H, W, C) and dtype of a stored image; None for the data set's.

        Returns:
          The components.

        Raises:
          ConfigError: a name that is in no table, or options that do not fit each other.
          ArgumentError: images that are too small for the model.
        """
        if hparams:
            experiment = self.with_config(self.config.replace_traced(hparams))
            return experiment.build(steps=steps, num_classes=num_classes, image=image)
        import jax
        import jax.numpy as jnp

        from mnist_jax import evaluation, losses, train

        config = self.config
        steps = config.epochs * self.steps_per_epoch if steps is None else steps
        classes = len(self.dataset.class_names) if num_classes is None else num_classes
        image = jax.ShapeDtypeStruct(self.image_shape, self.dataset.train_images.dtype) if image is None else image
        parts = build_parts(config, self._own, steps, classes)
        shared: dict[str, Any] = {"preprocess": parts.preprocess, "dtype": getattr(jnp, config.dtype)}
        train_step = train.make_train_step(
            parts.model,
            parts.optimizer,
            parts.loss,
            metrics=parts.metrics,
            augment=parts.augment,
            augment_steps=round(steps * (1 - config.clean_fraction)) if config.clean_fraction else None,
            teacher=parts.teacher,
            regularizer=losses.make_regularizer(config),
            ema_decay=config.ema_decay,
            skip_nonfinite=config.on_nan == "skip",
            microbatch_size=config.microbatch_size,
            **shared,
        )
        eval_step = evaluation.make_eval_step(parts.model, parts.loss, metrics=parts.metrics, **shared)
        chosen = evaluation.averaged if config.use_ema else lambda state: state

        def init(key: jax.Array) -> "TrainState":
            example = jnp.zeros((1, *image.shape), image.dtype)
            options: dict[str, Any] = {"preprocess": parts.preprocess, "with_ema": is_on(config.ema_decay)}
            return train.init_state(parts.model, parts.optimizer, key, example, **options)

        def predict(state: "TrainState", images: "Array") -> jax.Array:
            return evaluation.predict(parts.model, chosen(state), images, **shared)

        jax.eval_shape(init, jax.random.key(0))  # errors of shapes come here
        return Components(
            model=parts.model,
            optimizer=parts.optimizer,
            loss=parts.loss,
            init=init,
            train_step=train_step,
            eval_step=lambda state, batch: eval_step(chosen(state), batch),
            predict=predict,
        )

    def check(self) -> None:
        """Builds the parts for a data set of some size, to find names and options that are wrong without loading data.

        Raises:
          ConfigError: a name that is in no table, or options that do not fit each other.
        """
        build_parts(self.config, self._own, steps=max(self.config.epochs, 1), num_classes=2)


def _is_object(value: Part) -> bool:
    """A tuple of names is for the configuration; a NamedTuple, as of optax, is an object."""
    return hasattr(value, "_fields")
