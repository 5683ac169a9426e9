"""Reads digits from your own pictures with a saved run: digit, probability and runner-up, a line each.

python -m experiments.predict --workdir=runs/mine FILE...
"""

import dataclasses
import json
import pathlib
import sys

from experiments import flags
from mnist_jax.config import choice
from mnist_jax.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class Choices:
    workdir: str = choice("", "folder of the run")
    run_seed: int = choice(None, "which of the run's seeds; left out: its first")
    json: bool = choice(False, "print a JSON object a line, for programs")
    show: bool = choice(False, "draw what the network saw into predictions.png, and on a screen where there is one")
    platform: str = choice("", "cpu, gpu or tpu; left out: the best that JAX finds")


def main(values, rest):
    if not values.workdir:
        raise ConfigError("--workdir=: name the folder of a run")
    if not rest:
        raise ConfigError("no FILE: name PNG, JPEG or IDX files after the flags")
    import functools

    import jax
    import numpy as np

    from mnist_jax import images, plots, runner, train

    runner.keep_compiled()
    runner.choose_device(values.platform)
    run = runner.load_run(values.workdir, values.run_seed)
    names, (height, width, channels) = run.result["dataset"]["class_names"], run.result["dataset"]["image_shape"]
    if channels != 1:
        raise DataError(
            f"--workdir={values.workdir}: the run's images have {channels} channels, predict reads grey ones"
        )
    pictures, failed = [], False
    for path in rest:
        try:
            pictures += images.read_pictures(path, (height, width))
        except DataError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
    if pictures:
        batch = jax.numpy.asarray(np.stack([picture.image for picture in pictures])[..., None])
        predict = jax.jit(functools.partial(train.predict, run.parts.model, dtype=run.parts.dtype))
        probabilities = np.asarray(jax.nn.softmax(predict(run.state, batch)))
        told = []
        for picture, probability in zip(pictures, probabilities, strict=True):
            first, second = np.argsort(-probability, kind="stable")[:2]
            digit, other = names[first], names[second]
            told.append(f"{digit} ({100 * probability[first]:.1f} %)")
            if values.json:
                facts = {"file": picture.name, "digit": digit, "probability": float(probability[first])}
                facts |= {"runner_up": other, "runner_up_probability": float(probability[second])}
                print(json.dumps(facts | {"done": picture.done}))
            else:
                done = ", ".join(picture.done) or "as it is"
                print(
                    f"{picture.name}: {digit}  {100 * probability[first]:.1f} %  "
                    f"(then {other}, {100 * probability[second]:.1f} %)  [{done}]"
                )
        if values.show:
            figure = plots.pictures(batch[:64], told[:64], min(8, len(told)))
            plots.save(figure, pathlib.Path("predictions.png"), show=True)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    flags.command(__doc__, (Choices(),), main)
