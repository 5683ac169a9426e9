"""The only file that defines flags: one for each field of the dataclasses that hold an experiment's choices."""

import dataclasses
import os
import signal
import sys
import time
import types
from collections.abc import Callable
from typing import Any, TypeVar

from absl import flags, logging

from mnist_jax.config import Config, choice, config_from_dict
from mnist_jax.errors import ConfigError, MnistJaxError, StoppedError, first_line
from mnist_jax.files import read_json
from mnist_jax.process import raise_signals

Choices = TypeVar("Choices")


@dataclasses.dataclass(frozen=True)
class Where:
    """Where and how a training experiment runs: what changes none of its numbers."""

    workdir: str = choice("", "folder for the results; empty: runs/EXPERIMENT-DATASET-TIME")
    overwrite: bool = choice(False, "replace a result that workdir already holds")
    quiet: bool = choice(False, "report no progress")
    plots: bool = choice(None, "draw learning curves, mistakes and filters into workdir; left out: on a terminal")
    summary: bool = choice(False, "print the layers, their shapes and parameter counts first")
    platform: str = choice("", "cpu, gpu or tpu; left out: the best that JAX finds")
    config: str = choice("", "config.json of a run to repeat; other flags change it")
    resume: str = choice("auto", "a run that was stopped: auto goes on with it, must needs one, never begins anew")
    checkpoint_every: int = choice(0, "steps between checkpoints; 0 for an epoch's")
    keep: int = choice(2, "newest checkpoints of a seed to keep, beside the best on validation")
    deterministic: bool = choice(False, "forbid a GPU the kernels whose results vary; slower")


def define(*choices: Any) -> flags.FlagValues:
    """Defines the flags of an experiment, in a FlagValues of their own.

    Args:
      *choices: dataclass instances; each field made by config.choice is a flag, its value there the default.

    Returns:
      Flags, not yet parsed.
    """
    values = flags.FlagValues()
    by_type = {
        bool: flags.DEFINE_boolean,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
    }
    for holder in choices:
        for field in dataclasses.fields(holder):
            if "help" not in field.metadata:
                continue
            default, help = getattr(holder, field.name), field.metadata["help"]
            if isinstance(field.type, types.GenericAlias):
                flags.DEFINE_list(field.name, [str(item) for item in default], help, flag_values=values)
            else:
                by_type[field.type](field.name, default, help, flag_values=values)
    flags.DEFINE_boolean("help", False, "show this help", short_name="h", flag_values=values)
    return values


def given(values: flags.FlagValues, choices: Any) -> dict[str, Any]:
    """Picks the flags that the user wrote.

    Args:
      values: parsed flags.
      choices: dataclass instance whose fields count.

    Returns:
      From field names to values.

    Raises:
      ConfigError: a list that does not hold whole numbers.
    """
    chosen = {}
    for field in dataclasses.fields(choices):
        if field.name in values and values[field.name].present:
            value = getattr(values, field.name)
            if isinstance(value, list):
                try:
                    value = tuple(int(item) for item in value if item)
                except ValueError:
                    raise ConfigError(f"--{field.name}={','.join(value)}: must be whole numbers") from None
            chosen[field.name] = value
    return chosen


def read_config(values: flags.FlagValues, recipe: Config) -> Config:
    """Makes the Config that parsed flags say: the recipe, changed by --config's file, changed by the flags given.

    Args:
      values: parsed flags.
      recipe: the experiment's own Config.

    Returns:
      The Config.

    Raises:
      ConfigError: a flag or the file is wrong.
    """
    chosen = dataclasses.asdict(recipe)
    if values.config:
        try:
            stored = read_json(values.config)
        except OSError as error:
            raise ConfigError(f"--config={values.config}: can't be read: {error.strerror}") from None
        except ValueError as error:
            raise ConfigError(f"--config={values.config}: not JSON: {error}") from None
        if not isinstance(stored, dict):
            raise ConfigError(f"--config={values.config}: must hold one JSON object, as a run's config.json does")
        chosen |= stored
    return config_from_dict(chosen | given(values, recipe))


def command(doc: str, choices: tuple[Any, ...], function: Callable[[flags.FlagValues, list[str]], None]) -> None:
    """Runs a command, and ends the process with its exit status: each error is one line.

    Args:
      doc: its module docstring, shown by --help.
      choices: dataclass instances that define its flags.
      function: (parsed flags, the words that are no flags) -> None.
    """
    logging.set_verbosity(logging.FATAL)  # libraries log what we tell in one line
    try:
        values = define(*choices)
        try:
            rest = values(sys.argv)[1:]
        except flags.Error as error:
            raise ConfigError(f"{' '.join(str(error).split())} (--help lists the flags)") from None
        if values.help:
            print(f"{doc.strip()}\n\nFlags:\n{values.module_help(__spec__.name)}")
            return
        raise_signals()
        function(values, rest)
    except StoppedError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
    except MnistJaxError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror or first_line(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as error:
        number = signal.Signals(error.args[0] if error.args else signal.SIGINT)
        print(f"stopped by {number.name}; to go on, give the same command again", file=sys.stderr)
        sys.exit(128 + number)


def refuse(rest: list[str]) -> None:
    """Refuses words that are no flags.

    Args:
      rest: the words.

    Raises:
      ConfigError: there are some.
    """
    if rest:
        raise ConfigError(f"{rest[0]!r} is not a flag; write --NAME=VALUE (--help lists the flags)")


def main(recipe: Config, doc: str) -> None:
    """Runs a training experiment from the command line.

    Args:
      recipe: the experiment's Config.
      doc: its module docstring, shown by --help.
    """

    def train(values: flags.FlagValues, rest: list[str]) -> None:
        refuse(rest)
        config = read_config(values, recipe)
        source = config.dataset.partition(":")[0]
        workdir = values.workdir or f"runs/{config.experiment}-{source}-{time.strftime('%Y%m%d-%H%M%S')}"

        if values.deterministic:
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"

        from mnist_jax import runner

        runner.keep_compiled()
        result, _ = runner.run(
            config,
            workdir,
            overwrite=values.overwrite,
            quiet=values.quiet,
            plots=sys.stderr.isatty() if values.plots is None else values.plots,
            summary=values.summary,
            platform_name=values.platform,
            resume=values.resume,
            checkpoint_every=values.checkpoint_every,
            keep=values.keep,
        )
        accuracy = result["summary"]["test_accuracy"]
        print(f"Results: {workdir}")
        spread = f" (standard deviation {100 * accuracy['std']:.2f}, n={accuracy['n']})" if accuracy["n"] > 1 else ""
        print(f"Baseline Error: {100 * (1 - accuracy['mean']):.2f}%{spread}")

    command(doc, (recipe, Where()), train)
