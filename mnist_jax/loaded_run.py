"""A finished run, read back: its network and what it makes of pictures."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax.batches import pad_rows
from mnist_jax.checkpoint import restore_state
from mnist_jax.config import Config, config_from_dict
from mnist_jax.datasets import DIGITS
from mnist_jax.ensemble import make_ensemble
from mnist_jax.errors import ArgumentError, ConfigError, DataError
from mnist_jax.experiment import Components, Experiment
from mnist_jax.files import expand_user, read_json
from mnist_jax.likeness import is_digit
from mnist_jax.pictures.digits import Digit, read_digits
from mnist_jax.pictures.files import to_pixels
from mnist_jax.pictures.reading import read_pictures
from mnist_jax.types import Array, Record, TrainState
from mnist_jax.workdir import final_state_folder, find_result

if TYPE_CHECKING:
    from PIL.Image import Image

    Picture: TypeAlias = str | os.PathLike[str] | Image | np.ndarray | Digit

LOWEST_PROBABILITY = 0.45
LOWEST_ODDS = 1.5  # of the first class against the second


class Prediction(NamedTuple):
    """What a network makes of one digit of a picture."""

    digit: Digit  # the image as the network saw it, where it is from, and what was done to it
    label: str  # the most probable class
    probability: float  # 0 to 1
    runner_up: str
    runner_up_probability: float
    unsure: str  # why the label may be wrong; empty where nothing speaks against it

    @property
    def name(self) -> str:
        """The file, or the number of the array."""
        return self.digit.name


class LoadedRun(NamedTuple):
    """A finished run, read back."""

    experiment: Experiment
    record: Record  # of result.json
    components: Components
    state: TrainState
    workdir: pathlib.Path
    seeds: tuple[int, ...]  # of the network; of several, where they are an ensemble

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.experiment.config

    @property
    def class_names(self) -> list[str]:
        """What the network's outputs are called."""
        return self.record["dataset"]["class_names"]

    @property
    def picture_shape(self) -> tuple[int, int]:
        """(H, W) of the pictures that the network reads; DataError where its images are not gray."""
        height, width, channels = self.record["dataset"]["image_shape"]
        if channels != 1:
            raise DataError(f"the run's images have {channels} channels; only gray ones can be read from pictures")
        return height, width

    def logits(self, images: Array) -> np.ndarray:
        """Computes the logits of images as the data set stores them.

        Args:
          images: [N, H, W, C].

        Returns:
          [N, K] float32.
        """
        return np.asarray(jax.jit(self.components.predict)(self.state, jnp.asarray(images)))

    def predict(self, *pictures: "Picture", single: bool = False) -> list[Prediction]:
        """Reads the digits in pictures.

        Args:
          *pictures: files (PNG, JPEG, WebP, BMP, TIFF, GIF or IDX; - for standard input); PIL images; uint8 arrays
            [h, w], [h, w, 3] or [h, w, 4] of pictures; what read_pictures returns; or arrays [N, H, W] of prepared
            images in the data set's dtype. For a data set of floats, pictures are scaled to [0, 1].
          single: whether a picture shows one digit; the largest is taken then.

        Returns:
          A prediction for each digit, in reading order. `unsure` says why one may be wrong: the digit is very faint,
          small or wide; the probability is below 0.45 or less than 1.5 times the second; or (for runs on digits of
          28x28) the image is like no digit, which mnist_jax.likeness tells.

        Raises:
          ArgumentError: an array of another shape or dtype.
          DataError: a file that is no picture, a picture without a digit, or a run whose images are not gray.
        """
        digits = [digit for number, picture in enumerate(pictures) for digit in self._read(picture, number, single)]
        if not digits:
            return []
        stored = np.stack([self._to_stored(digit.image) for digit in digits])
        logits = self.logits(pad_rows(stored, 64)[..., None])[: len(stored)]  # few shapes: few programs
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise DataError(
                f"the run's network has outputs of shape {logits.shape[1:]}, which are no classes to choose from"
            )
        knows_digits = tuple(self.class_names) == DIGITS and self.picture_shape == (28, 28)
        is_byte = stored.dtype == np.uint8
        images = stored if is_byte else (255 * np.clip(stored, 0, 1)).astype(np.uint8)
        alike = is_digit(images) if knows_digits else np.ones(len(images), bool)
        predictions = []
        probabilities = np.asarray(jax.nn.softmax(logits))
        for digit, row, is_alike in zip(digits, probabilities, alike, strict=True):
            first, second = (int(n) for n in np.argsort(-row, kind="stable")[:2])
            one, other = float(row[first]), float(row[second])
            is_flat = not (one >= LOWEST_PROBABILITY and one >= LOWEST_ODDS * other)
            unsure = digit.doubt or ("" if is_alike else "like no digit") or ("low probability" if is_flat else "")
            predictions.append(Prediction(digit, self.class_names[first], one, self.class_names[second], other, unsure))
        return predictions

    def _read(self, picture: "Picture", number: int, single: bool) -> list[Digit]:
        """The digits in a picture of any kind."""
        if isinstance(picture, Digit):
            return [picture]
        if isinstance(picture, str | os.PathLike):
            return read_pictures(picture, self.picture_shape, single)
        if not isinstance(picture, np.ndarray):  # of PIL
            picture = to_pixels(picture)[0]
        elif picture.dtype != np.uint8 or picture.ndim < 2 or picture.shape[2:] not in ((), (1,), (3,), (4,)):
            self._check_array(picture)
            box = (0, 0, *self.picture_shape[::-1])
            return [Digit(image, box, name=f"[{i}]") for i, image in enumerate(picture)]
        return read_digits(picture, self.picture_shape, f"[{number}]", single)

    @property
    def image_dtype(self) -> str:
        """Dtype of the data set's images: uint8 or float32."""
        return self.record["dataset"]["image_dtype"]

    def _check_array(self, array: np.ndarray) -> None:
        shape, is_float = self.picture_shape, np.issubdtype(array.dtype, np.floating)
        if array.ndim != 3 or array.shape[1:] != shape or ("float32" if is_float else array.dtype) != self.image_dtype:
            raise ArgumentError(
                f"pictures: an array must be [N, {shape[0]}, {shape[1]}] {self.image_dtype}, as the run's data set "
                f"stores images; got {array.dtype} of shape {array.shape}"
            )

    def _to_stored(self, image: np.ndarray) -> np.ndarray:
        is_scaled = image.dtype == np.uint8 and self.image_dtype != "uint8"
        return image.astype(np.float32) / 255 if is_scaled else image.astype(self.image_dtype, copy=False)


def _check_record(record: Any, experiment: Experiment | None) -> tuple[Experiment, dict[int, int]]:
    """The experiment and the steps of each seed of a result; ValueError and the like where it is none."""
    base = experiment or Experiment()
    known = {field.name for field in dataclasses.fields(base.config)}
    own = sorted({*record.get("parts", ()), *(name for name in record["config"] if name not in known)})
    if experiment is None and own:
        raise DataError(
            f"its experiment has parts or fields of its own ({', '.join(own)[:80]}); name the module that defines it "
            "with experiment=MODULE"
        )
    config = config_from_dict(record["config"], base.config)
    if experiment is not None and record.get("parts") and config.name != experiment.config.name:
        raise DataError(f"is a run of {config.name!r:.60}, not of {experiment.config.name!r}, which has other parts")
    if experiment is not None and sorted(record.get("parts", ())) != experiment.with_config(config).own_parts:
        raise DataError(
            f"was made with parts of its own ({', '.join(record.get('parts', ()))[:80]}), unlike experiment"
        )
    seeds = {run["seed"]: run["steps"] for run in record["runs"]}
    shape, names = tuple(record["dataset"]["image_shape"]), record["dataset"]["class_names"]
    numbers = [*shape, *(number + 1 for pair in seeds.items() for number in pair)]
    if not seeds or len(shape) != 3 or not all(type(n) is int and 0 < n < 2**31 for n in numbers):
        raise ValueError("seeds, steps or image_shape")
    if not names or not all(isinstance(name, str) and name.isprintable() for name in names):
        raise ValueError("class_names")
    if not all(isinstance(record["dataset"].get(key, ""), str) for key in ("name", "sha256", "from_workdir")):
        raise ValueError("dataset")
    if record["dataset"].setdefault("image_dtype", "uint8") not in ("uint8", "float32"):
        raise ValueError("image_dtype")
    return base.with_config(config), seeds


def _build(experiment: Experiment, record: Record, steps: int) -> Components:
    """The pure functions for the data that a result names."""
    dataset = record["dataset"]
    image = jax.ShapeDtypeStruct(tuple(dataset["image_shape"]), dataset["image_dtype"])
    return experiment.build(steps=steps, num_classes=len(dataset["class_names"]), image=image)


def _restore(workdir: pathlib.Path, seed: int, components: Components) -> TrainState:
    """The final state of a seed."""
    return restore_state(final_state_folder(workdir, seed), jax.eval_shape(components.init, jax.random.key(seed)))


def load_run(
    workdir: str | os.PathLike[str], experiment: Experiment | None = None, seed: int | None = None
) -> LoadedRun:
    """Reads a finished run's network.

    Args:
      workdir: folder that `run` wrote.
      experiment: the one that was run, needed where it has parts or fields of its own.
      seed: which of the run's seeds; None for its first.

    Returns:
      The run.

    Raises:
      ConfigError: no such seed.
      DataError: the folder is missing, incomplete, or not of this network.
    """
    path = find_result(expand_user(workdir))
    try:
        record = read_json(path)
        experiment, seeds = _check_record(record, experiment)
    except DataError as error:
        raise DataError(f"workdir={path.parent}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: not a result of this version ({error!r:.100})") from None
    seed = next(iter(seeds)) if seed is None else seed
    if seed not in seeds:
        raise ConfigError(f"seed={seed}: {path.parent} has {', '.join(map(str, seeds))}")
    try:
        components = _build(experiment, record, seeds[seed])
    except (ArgumentError, ConfigError) as error:
        raise DataError(f"{path}: not a result of this version ({error})") from None
    state = _restore(path.parent, seed, components)
    return LoadedRun(experiment, record, components, state, path.parent, (seed,))


def load_ensemble(workdirs: Sequence[str | os.PathLike[str]], experiment: Experiment | None = None) -> LoadedRun:
    """Reads all seeds of runs as one network, whose probabilities are the mean of theirs.

    Args:
      workdirs: folders that `run` wrote, of the same network and data.
      experiment: as for load_run.

    Returns:
      The ensemble; its state is what the members' states hold to predict, stacked.

    Raises:
      DataError: as for load_run; or the runs differ in more than their seeds.
    """
    first, *others = (load_run(workdir, experiment) for workdir in workdirs)
    for other in others:
        same = [(run.config.deciding_bits(), run.record["dataset"]["sha256"]) for run in (first, other)]
        if same[0] != same[1]:
            raise DataError(f"workdir={other.workdir}: differs from {first.workdir} in more than its seeds")
    seeds, states = [], []
    for run in (first, *others):
        run_seeds = [one["seed"] for one in run.record["runs"]]
        seeds += run_seeds
        rest = (_restore(run.workdir, seed, run.components) for seed in run_seeds[1:])
        states += [
            jax.device_get(state._replace(opt_state=(), key=jax.random.key_data(state.key)))
            for state in (run.state, *rest)
        ]
    ensemble = first.experiment.with_model(make_ensemble(first.components.model))
    return first._replace(
        experiment=ensemble,
        components=_build(ensemble, first.record, steps=1),
        state=jax.tree.map(lambda *leaves: np.stack(leaves), *states),
        seeds=tuple(seeds),
    )
