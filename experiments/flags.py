"""The only file that defines flags: one for each field of Config, and those that say where and how to run."""

import dataclasses
import json
import pathlib
import sys
import time

from absl import flags

from mnist_jax.config import Config, config_from_dict
from mnist_jax.errors import ConfigError, MnistJaxError


def define(recipe: Config) -> flags.FlagValues:
    """Defines the flags of an experiment, in a FlagValues of their own.

    Args:
      recipe: its values are the flags' defaults.

    Returns:
      Flags, not yet parsed.
    """
    values = flags.FlagValues()
    define_by_type = {int: flags.DEFINE_integer, float: flags.DEFINE_float, str: flags.DEFINE_string}
    for field in dataclasses.fields(Config):
        default, help = getattr(recipe, field.name), field.metadata["help"]
        if field.name == "experiment":
            continue
        if field.type in define_by_type:
            define_by_type[field.type](field.name, default, help, flag_values=values)
        else:
            flags.DEFINE_list(field.name, [str(item) for item in default], help, flag_values=values)
    flags.DEFINE_string(
        "workdir", "", "folder for the results; empty: runs/EXPERIMENT-DATASET-TIME", flag_values=values
    )
    flags.DEFINE_boolean("overwrite", False, "replace a result that workdir already holds", flag_values=values)
    flags.DEFINE_boolean("quiet", False, "report no progress", flag_values=values)
    flags.DEFINE_enum(
        "platform", None, ["cpu", "gpu", "tpu"], "where to run; left out: the best that JAX finds", flag_values=values
    )
    flags.DEFINE_string("config", "", "config.json of a run to repeat; other flags change it", flag_values=values)
    flags.DEFINE_boolean("help", False, "show this help", short_name="h", flag_values=values)
    return values


def read(values: flags.FlagValues, recipe: Config) -> Config:
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
            stored = json.loads(pathlib.Path(values.config).read_text())
        except OSError as error:
            raise ConfigError(f"--config={values.config}: can't be read: {error.strerror}") from None
        except ValueError as error:
            raise ConfigError(f"--config={values.config}: not JSON: {error}") from None
        if not isinstance(stored, dict):
            raise ConfigError(f"--config={values.config}: must hold one JSON object, as a run's config.json does")
        chosen |= stored
    for field in dataclasses.fields(Config):
        if field.name in values and values[field.name].present:
            value = getattr(values, field.name)
            if isinstance(value, list):
                try:
                    value = tuple(int(item) for item in value if item)
                except ValueError:
                    raise ConfigError(f"--{field.name}={','.join(value)}: must be whole numbers") from None
            chosen[field.name] = value
    return config_from_dict(chosen)


def main(recipe: Config, doc: str) -> None:
    """Runs an experiment from the command line, and ends the process with its exit status.

    Args:
      recipe: the experiment's Config.
      doc: its module docstring, shown by --help.
    """
    try:
        values = define(recipe)
        try:
            rest = values(sys.argv)[1:]
        except flags.Error as error:
            raise ConfigError(f"{' '.join(str(error).split())} (--help lists the flags)") from None
        if values.help:
            print(f"{doc.strip()}\n\nFlags:\n{values.module_help(__spec__.name)}")
            sys.exit(0)
        if rest:
            raise ConfigError(f"{rest[0]!r} is not a flag; write --NAME=VALUE (--help lists the flags)")
        config = read(values, recipe)
        source = config.dataset.partition(":")[0]
        workdir = values.workdir or f"runs/{config.experiment}-{source}-{time.strftime('%Y%m%d-%H%M%S')}"

        from mnist_jax import runner

        result, _ = runner.run(
            config, workdir, overwrite=values.overwrite, quiet=values.quiet, platform_name=values.platform or ""
        )
        accuracy = result["summary"]["test_accuracy"]
        print(f"Results: {workdir}")
        spread = f" (standard deviation {100 * accuracy['std']:.2f}, n={accuracy['n']})" if accuracy["n"] > 1 else ""
        print(f"Baseline Error: {100 * (1 - accuracy['mean']):.2f}%{spread}")
    except MnistJaxError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
