"""Measures throughput and compares it with plain JAX, PyTorch and Keras on this machine.

python -m mnist_jax benchmark --dataset=mnist --baseline_pythons=torch=TORCH/bin/python,keras_tf=KERAS/bin/python

Each implementation runs in a process of its own, alternating with the others. Writes benchmark.json (updated after each
measurement) and throughput.png; with --scaling, scaling.json and scaling.png instead. Needs a checkout.
"""

import dataclasses
import importlib.util

from mnist_jax import cli
from mnist_jax.errors import ConfigError
from mnist_jax.fields import flag_field

MODELS = ("softmax", "perceptron", "cnn", "deep_cnn")
DTYPES = ("float32", "bfloat16")
TASKS = ("train", "evaluate", "predict")


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is measured."""

    dataset: str = flag_field("mnist5k", "as in the training experiments")
    data_dir: str = flag_field("", "folder of the data files")
    models: tuple[str, ...] = flag_field(MODELS, "models to measure", choices=MODELS)
    dtypes: tuple[str, ...] = flag_field(DTYPES, "dtypes to measure", choices=DTYPES)
    tasks: tuple[str, ...] = flag_field(("train",), "train, evaluate, predict or several", choices=TASKS)
    batch_sizes: tuple[int, ...] = flag_field((0,), "images per step, one or several; 0: the recipe's", minimum=0)
    baseline_pythons: tuple[str, ...] = flag_field((), "NAME=PYTHON,...: torch (all variants), keras_tf, keras_jax")
    images: int = flag_field(0, "images per epoch; 0: all", minimum=0)
    deep_cnn_images: int = flag_field(0, "images per epoch of deep_cnn; 0: as many as --images", minimum=0)
    epochs: int = flag_field(3, "timed epochs per process, after an untimed one", minimum=1)
    rounds: int = flag_field(5, "runs of each implementation", minimum=1)
    timeout_s: float = flag_field(600.0, "seconds after which a process is stopped")
    targets: tuple[str, ...] = flag_field(
        (), "measure the time to these test accuracies, in percent; empty: none on a CPU, 99.0,99.5,99.7 on a GPU"
    )
    target_seeds: int = flag_field(5, "seeds per target", minimum=1)
    extras: bool = flag_field(True, "also measure start-up and eight seeds in one program")
    scaling: bool = flag_field(False, "measure how cost scales, instead of a comparison")
    workdir: str = flag_field("benchmark", "folder for the results")


def main(flags: Flags, positional: list[str]) -> None:
    """Runs the command.

    Args:
      flags: parsed flags.
      positional: must be empty.

    Raises:
      ConfigError: a flag is wrong, or there is no checkout.
      DataError: a data file is missing or damaged, or the machine's matmul rate can't be measured.
    """
    cli.reject_positionals(positional)
    if importlib.util.find_spec("benchmarks") is None:
        raise ConfigError("benchmark: needs a checkout of the repository; run it there")
    from benchmarks import command

    command.run(flags)


if __name__ == "__main__":
    cli.run_cli(__doc__, Flags(), main)
