"""Measures throughput and compares it with plain JAX, PyTorch and Keras on this machine.

python -m mnist_jax benchmark --images=400 --rounds=1
python -m mnist_jax benchmark --baseline_pythons=torch=TORCH/bin/python,keras_tf=KERAS/bin/python

Each implementation runs in a process of its own, alternating with the others. Writes benchmark.json (updated after each
measurement) and throughput.png; with --scaling, scaling.json and scaling.png instead. Needs a checkout.
docs/performance.md has the command that made the published results.
"""

import dataclasses
import importlib.util

from mnist_jax import cli
from mnist_jax.commands._output import OutputFlags
from mnist_jax.config import Config
from mnist_jax.errors import ConfigError
from mnist_jax.fields import flag_field, flags_of

MODELS = ("softmax", "perceptron", "cnn", "deep_cnn")
DTYPES = ("float32", "bfloat16")
TASKS = ("train", "evaluate", "predict")


@dataclasses.dataclass(frozen=True)
class Flags(OutputFlags):
    """What is measured."""

    dataset: str = flag_field("mnist5k", flags_of(Config)["dataset"].help, group="data")
    data_dir: str = flag_field("", flags_of(Config)["data_dir"].help, group="data")
    images: int = flag_field(0, "images per epoch; 0: all", group="data", minimum=0)
    deep_cnn_images: int = flag_field(
        0, "images per epoch of deep_cnn; 0: as many as --images", group="data", minimum=0
    )
    models: tuple[str, ...] = flag_field(("perceptron", "cnn"), "models to measure", group="model", choices=MODELS)
    dtypes: tuple[str, ...] = flag_field(("float32",), "dtypes to measure", group="model", choices=DTYPES)
    tasks: tuple[str, ...] = flag_field(("train",), "train, evaluate, predict or several", group="model", choices=TASKS)
    batch_sizes: tuple[int, ...] = flag_field(
        (0,), "images per step, one or several; 0: the recipe's", group="model", minimum=0
    )
    baseline_pythons: tuple[str, ...] = flag_field(
        (), "NAME=PYTHON,...: torch (all variants), keras_tf, keras_jax", group="run"
    )
    epochs: int = flag_field(3, "timed epochs per process, after an untimed one", group="run", minimum=1)
    rounds: int = flag_field(5, "runs of each implementation", group="run", minimum=1)
    timeout_s: float = flag_field(600.0, "seconds after which a process is stopped", group="run")
    targets: tuple[str, ...] = flag_field(
        (), "also measure the time to these test accuracies, in percent: 99.0, 99.5, 99.7", group="run"
    )
    target_seeds: int = flag_field(5, "seeds per target", group="run", minimum=1)
    goals: bool = flag_field(
        False,
        "also measure start-up and eight seeds in one program (on a GPU, all targets too), and compare everything with "
        "this project's goals",
        group="run",
    )
    scaling: bool = flag_field(False, "measure how cost scales, instead of a comparison", group="run")


def main(flags: Flags, positional: list[str]) -> None:
    """Runs the command.

    Args:
      flags: parsed flags.
      positional: must be empty.

    Raises:
      ConfigError: a flag is wrong, there is no checkout, or no folder to write.
      DataError: a data file is missing or damaged, or the machine's matmul rate can't be measured.
    """
    cli.reject_positionals(positional)
    if importlib.util.find_spec("benchmarks") is None:
        raise ConfigError("benchmark: needs a checkout of the repository; run it there")
    flags.check_output(*(("scaling.json", "scaling.png") if flags.scaling else ("benchmark.json", "throughput.png")))
    from benchmarks import command

    command.run(flags)


if __name__ == "__main__":
    cli.run_cli(__doc__, Flags(), main)
