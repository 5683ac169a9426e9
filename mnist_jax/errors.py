"""What can go wrong: each error is one line that names the argument or file, what is wrong, and how to fix it."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class MnistJaxError(Exception):
    """The base of every error that this library raises on purpose.

    `exit_status` is what a command ends with: 1 for a bad file or a failed run, 2 for a bad flag.
    """

    exit_status = 1


class ConfigError(MnistJaxError, ValueError):
    """An invalid configuration value; the message begins with the name of its field."""

    exit_status = 2


class ArgumentError(MnistJaxError, ValueError):
    """Arrays or functions that do not fit each other: shapes, dtypes, signatures. Raised while a program is traced."""

    exit_status = 2


class DataError(MnistJaxError, ValueError):
    """A missing, damaged or unsuitable file."""


class DivergedError(MnistJaxError):
    """The loss or a parameter is no longer finite."""


class InterruptedRunError(MnistJaxError):
    """A signal ended the run after its state was saved; `exit_status` is 128 plus the signal's number."""


def summarize_exception(error: BaseException) -> str:
    """Shortens the message of another library's exception so that it fits into one line.

    Args:
      error: any exception.

    Returns:
      The first line of its message, or its type where it has none; at most 160 characters.

    >>> summarize_exception(ValueError("wrong\\nand long")), summarize_exception(EOFError())
    ('wrong', 'EOFError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def suggest_name(name: str, known: Iterable[str]) -> str:
    """Suggests the closest known name, whatever its case, dashes and underscores; then lists all of them.

    Args:
      name: the name that was not found.
      known: the names that exist.

    Returns:
      A phrase to end an error message with.

    >>> suggest_name("adm", ["sgd", "adam"]), suggest_name("Fashion-MNIST", ["fashion_mnist"])
    ("did you mean 'adam'? Known: adam, sgd", "did you mean 'fashion_mnist'? Known: fashion_mnist")
    >>> suggest_name("foo", ["", "tpe"])
    'Known: tpe'
    """
    known = sorted(filter(None, known))  # where a choice may be left out, it is empty
    by_plain_name = {re.sub("[-_ ]", "", one.lower()): one for one in known}
    close = difflib.get_close_matches(re.sub("[-_ ]", "", name.lower()), by_plain_name, n=1, cutoff=0.5)
    return (f"did you mean {by_plain_name[close[0]]!r}? " if close else "") + "Known: " + ", ".join(known)


def get_entry(table: Mapping[str, T], what: str, name: str) -> T:
    """Gets an entry of a table (MODELS, LOSSES, OPTIMIZERS, ...) by name.

    Args:
      table: from names to entries.
      what: the argument that the name was given for.
      name: the name.

    Returns:
      The entry.

    Raises:
      ConfigError: there is no such entry.
    """
    if name not in table:
        raise ConfigError(f"{what}={name}: there is no such {what}; {suggest_name(name, table)}")
    return table[name]
