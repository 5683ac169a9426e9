"""Distillation: a network learns from the probabilities that finished runs give to the augmented images it sees."""

import dataclasses
import functools
from collections.abc import Mapping

import jax

from mnist_jax.config import Config
from mnist_jax.errors import ConfigError, DataError
from mnist_jax.fields import flag_field
from mnist_jax.loaded_run import LoadedRun, load_ensemble
from mnist_jax.types import Teacher


@dataclasses.dataclass(frozen=True)
class DistilledConfig(Config):
    """A configuration with a teacher."""

    teacher: tuple[str, ...] = flag_field(
        (),
        "workdirs of finished runs of one network; the mean of their probabilities takes the labels' place",
    )


def distill(config: DistilledConfig) -> Mapping[str, Teacher]:
    """Makes the teacher of a configuration, for Experiment(..., parts=distill, config=DistilledConfig()).

    Args:
      config: its `teacher` are workdirs, as load_ensemble takes them, of runs without parts of their own.

    Returns:
      {"teacher": images [B, H, W, C] -> logits [B, K]}. It reads the runs when it is first called, so that a distilled
      network is read back without its teacher.

    Raises:
      ConfigError: when the teacher is called, where none is named.
      DataError: when it is called, where a workdir holds no finished run, or they differ in more than their seeds.

    Source: G. Hinton et al., Distilling the knowledge in a neural network, 2015; L. Beyer et al., Knowledge
    distillation: a good teacher is patient and consistent, 2021.
    """

    @functools.cache
    def load() -> LoadedRun:
        if not config.teacher:
            raise ConfigError("teacher=: name the workdirs of finished runs to learn from, as in teacher=runs/cnn")
        with jax.ensure_compile_time_eval():  # arrays, although the train step is being traced
            try:
                return load_ensemble(config.teacher)
            except DataError as error:
                raise DataError(str(error).replace("workdir=", "teacher=", 1)) from None

    def teacher(image: jax.Array) -> jax.Array:
        run = load()
        shape = tuple(run.record["dataset"]["image_shape"])
        if image.shape[1:] != shape:
            raise ConfigError(f"teacher={','.join(config.teacher)}: reads images {shape}, these are {image.shape[1:]}")
        return run.components.predict(run.state, image)

    return {"teacher": teacher}
