"""The command line: flags made from dataclasses, errors of one line, exit statuses."""

import dataclasses
import functools
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from absl import logging as absl_logging
from absl.flags import FlagValues

from mnist_jax.config import Config, config_from_dict
from mnist_jax.console import silence_native_code, tolerant_output
from mnist_jax.errors import ConfigError, InterruptedRunError, MnistJaxError, summarize_exception
from mnist_jax.experiment import Experiment
from mnist_jax.fields import Flag, Value, flag_field, validate_fields
from mnist_jax.files import expand_user, make_new_folder, read_json, remove_if_empty
from mnist_jax.flags import add_dashes, define_flags, explicit_values, format_help, parse_flags
from mnist_jax.options import RunOptions
from mnist_jax.process import exit_on_signals, ignore_signals
from mnist_jax.supervisor import is_supervised, show_signs_of_life, supervise

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class TrainFlags(RunOptions):
    """Flags of every training experiment that are not of its configuration."""

    workdir: str = flag_field("", "folder of the run; empty: a new one, runs/EXPERIMENT-DATASET-TIME", group="output")
    config: str = flag_field("", "config.json of a run to repeat; other flags change it", group="run")


def _run(
    doc: str,
    holders: Sequence[Any],
    function: Callable[[FlagValues, list[str]], None],
    hidden_groups: Iterable[str] = (),
) -> None:
    """Parses the flags, calls the function, and turns errors into a line and an exit status."""
    if not os.environ.get("HOME"):
        os.environ.pop("HOME", None)  # where it is empty, libraries write to /.cache
    exit_on_signals()
    if _peek("coordinator"):
        silence_native_code()
    absl_logging.set_verbosity(absl_logging.FATAL)  # libraries log what we report in one line
    values, by_group = define_flags(holders, hidden_groups)
    try:
        with tolerant_output():
            _call(doc, values, by_group, function)
    finally:
        ignore_signals()


def _call(
    doc: str,
    values: FlagValues,
    by_group: dict[str, list[Flag]],
    function: Callable[[FlagValues, list[str]], None],
) -> None:
    try:
        positional = parse_flags(values)
        if values.help:
            print(format_help(doc, values, by_group))
        else:
            function(values, positional)
    except MnistJaxError as error:
        prefix = "" if isinstance(error, InterruptedRunError) else "error: "
        print(f"{prefix}{add_dashes(str(error), values)}", file=sys.stderr)
        sys.exit(error.exit_status)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else summarize_exception(error)
        print(f"error: {what}", file=sys.stderr)
        sys.exit(1)


def run_cli(doc: str, defaults: T, function: Callable[[T, list[str]], None]) -> None:
    """Runs a command, and ends the process with its exit status; each error is one line.

    Args:
      doc: its module docstring, shown by --help.
      defaults: dataclass instance; each flag_field is a flag, its value there the default.
      function: (the dataclass with the values given, positional arguments) -> None.
    """

    def call(values: FlagValues, positional: list[str]) -> None:
        given = dataclasses.replace(defaults, **explicit_values(values, defaults))  # type: ignore[type-var]
        validate_fields(given)
        _log_to_stderr(logging.INFO, values)
        function(given, positional)

    _run(doc, (defaults,), call)


def run_experiment_cli(doc: str, defaults: T, function: Callable[[Experiment, str, T, dict[str, Value]], None]) -> None:
    """Runs a command on an experiment: as run_cli, with the flags of the experiment that --experiment names too.

    Args:
      doc: its module docstring, shown by --help.
      defaults: dataclass instance with a field `experiment`.
      function: (experiment, its module, the dataclass, the fields of the configuration that were given) -> None.
    """
    experiment, module = Experiment(), ""
    if name := _peek("experiment"):
        try:
            experiment, module = find_experiment(name)
        except ConfigError as error:
            print(f"error: {add_dashes(str(error), ['experiment'])}", file=sys.stderr)
            sys.exit(error.exit_status)

    def call(values: FlagValues, positional: list[str]) -> None:
        reject_positionals(positional)
        given = dataclasses.replace(defaults, **explicit_values(values, defaults))  # type: ignore[type-var]
        validate_fields(given)
        if not module:
            raise ConfigError("experiment=: name a recipe, such as experiment=perceptron, or a module of your own")
        _log_to_stderr(logging.INFO, values)
        function(experiment, module, given, explicit_values(values, experiment.config))

    _run(doc, (defaults, experiment.config), call, experiment.owned_groups)


def _peek(name: str) -> str:
    """The value of a flag before flags are parsed, since it decides which flags there are."""
    for position, argument in enumerate(sys.argv[1:], start=1):
        flag, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and flag == name:
            return value if equals else "".join(sys.argv[position + 1 : position + 2])
    return ""


def reject_positionals(positional: Sequence[str]) -> None:
    """Refuses arguments that are not flags.

    Args:
      positional: the arguments.

    Raises:
      ConfigError: there are some.
    """
    if positional:
        raise ConfigError(f"{positional[0]!r} is not a flag; write --NAME=VALUE (--help lists the flags)")


def load_experiment(name: str) -> Experiment | None:
    """Imports the module that the user names, and takes its EXPERIMENT; see find_experiment.

    Args:
      name: of a module; empty for none.

    Returns:
      The experiment, or None.
    """
    return find_experiment(name)[0] if name else None


def find_experiment(name: str) -> tuple[Experiment, str]:
    """Imports the module that the user names, and takes its EXPERIMENT.

    Args:
      name: of a module on Python's path or in the current folder, such as my_lab.maxout; without a dot first of the
        recipes in experiments/.

    Returns:
      The experiment, and the module's full name.

    Raises:
      ConfigError: there is no such module, or no EXPERIMENT in it.
    """
    if os.getcwd() not in sys.path:  # as for the script mnist-jax
        sys.path.insert(0, os.getcwd())
    names = [name] if "." in name else [f"experiments.{name}", name]
    try:
        found = next(candidate for candidate in names if _is_importable(candidate))
        experiment = getattr(importlib.import_module(found), "EXPERIMENT", None)
    except StopIteration:
        raise ConfigError(f"experiment={name}: there is no such module; name one that defines EXPERIMENT") from None
    except Exception as error:  # whatever the module does
        what = f"{type(error).__name__}: {summarize_exception(error)}"
        raise ConfigError(f"experiment={name}: can't be imported ({what})") from error
    if not isinstance(experiment, Experiment):
        raise ConfigError(f"experiment={name}: defines no EXPERIMENT = Experiment(...)")
    return experiment, found


def _is_importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # of its package
        return False


def _read_config(path: str, base: Config) -> Config:
    try:
        stored = read_json(path)
        if not isinstance(stored, dict):
            raise ConfigError("must hold one JSON object, as a run's config.json does")
        if (name := stored.get("name", base.name)) != base.name:
            raise ConfigError(f"is of the experiment {name!r:.60}, not of {base.name!r}; give it to that one")
        return config_from_dict(stored, base)
    except OSError as error:
        raise ConfigError(f"config={path}: can't be read: {error.strerror}") from None
    except ConfigError as error:
        raise ConfigError(f"config={path}: {error}") from None
    except ValueError as error:
        raise ConfigError(f"config={path}: not JSON: {error}") from None


class _OneLine(logging.Formatter):
    def __init__(self, flag_names: Iterable[str]):
        super().__init__()
        self.flag_names = [*flag_names]

    def format(self, record: logging.LogRecord) -> str:
        message = add_dashes(record.getMessage(), self.flag_names)
        prefix = {logging.WARNING: "warning: ", logging.ERROR: "error: "}.get(record.levelno, "")
        return f"{prefix}{message}"


def _log_to_stderr(level: int, flag_names: Iterable[str]) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine(flag_names))
    logger = logging.getLogger("mnist_jax")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level)


def main(experiment: Experiment, doc: str | None) -> None:
    """Runs a training experiment from the command line: its configuration's fields are flags.

    Args:
      experiment: what to run.
      doc: its module docstring, shown by --help.
    """

    def train(values: FlagValues, positional: list[str]) -> None:
        reject_positionals(positional)
        chosen = explicit_values(values, TrainFlags())
        draws = sys.stderr.isatty() and not chosen.get("coordinator")  # of several processes each has its own stderr
        given = TrainFlags(**{"plots": draws, **chosen})
        if given.restarts and not is_supervised():
            supervise(given.restarts)
        show_signs_of_life()
        if given.coordinator and not given.workdir:
            raise ConfigError("workdir=: several processes need one that all of them share; name it")
        config = _read_config(given.config, experiment.config) if given.config else experiment.config
        explicit = explicit_values(values, config)
        changed = experiment.with_config(dataclasses.replace(config, **explicit))
        _log_to_stderr(logging.WARNING if given.quiet else logging.INFO, values)
        logging.getLogger("mnist_jax").info("starting JAX")  # which may take some seconds

        from mnist_jax.devices import enable_compilation_cache
        from mnist_jax.processes import join
        from mnist_jax.report import format_headline, format_seconds
        from mnist_jax.runner import run

        enable_compilation_cache()
        stem = f"{changed.config.name}-{changed.config.dataset.partition(':')[0]}"
        workdir = expand_user(given.workdir) if given.workdir else make_new_folder(stem)
        cleanup = functools.partial(remove_if_empty, workdir) if not given.workdir else lambda: None
        exit_on_signals(f"; to resume, give the same command with --workdir={workdir}", cleanup)
        try:
            result = run(experiment.with_config(config), workdir, given, **explicit)
        finally:
            cleanup()
        if not join(given).is_first:
            return
        print(f"Results: {workdir}")
        print(format_seconds(result.record["seconds"]))
        print(format_headline(result.record))

    _run(doc or "", (experiment.config, TrainFlags()), train, experiment.owned_groups)
