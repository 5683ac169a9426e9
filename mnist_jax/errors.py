"""What can go wrong by the user's hand: each error is one line that says what, where and how to mend it."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


class MnistJaxError(Exception):
    """The base of every error that this library raises on purpose.

    `exit_status` is what a command ends with: 1 for a wrong file or a failed run, 2 for a wrong flag.
    """

    exit_status = 1


class ConfigError(MnistJaxError, ValueError):
    """A wrong flag or configuration value."""

    exit_status = 2


class DataError(MnistJaxError, ValueError):
    """A missing, broken or unfit data file."""


class DivergedError(MnistJaxError):
    """The loss stopped being a finite number."""


class StoppedError(MnistJaxError):
    """A signal ended the run before its time, after it was saved; `exit_status` is 128 and the signal's number."""


def first_line(error: BaseException) -> str:
    """What an error of somebody else's says, as a part of one line of ours.

    Args:
      error: any.

    Returns:
      Its first line, or its kind where it says nothing; 160 characters at most.

    >>> first_line(ValueError("wrong\\nand long")), first_line(EOFError())
    ('wrong', 'EOFError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def nearest(name: str, known) -> str:
    """Says which of the known names is nearest to a wrong one, then all of them.

    Args:
      name: what the user wrote.
      known: the names there are.

    Returns:
      Half a sentence for the end of an error.

    >>> nearest("adm", ["sgd", "adam"])
    "did you mean 'adam'? Known: adam, sgd"
    """
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return (f"did you mean {close[0]!r}? " if close else "") + "Known: " + ", ".join(sorted(known))


def lookup(table: Mapping[str, T], flag: str, name: str) -> T:
    """Takes an entry of one of the tables (MODELS, LOSSES, OPTIMIZERS) by the name the user gave.

    Args:
      table: from names to entries.
      flag: the flag that the name came from, without dashes.
      name: the name.

    Returns:
      The entry.

    Raises:
      ConfigError: there is no such entry.
    """
    if name not in table:
        raise ConfigError(f"--{flag}={name}: there is no such {flag}; {nearest(name, table)}")
    return table[name]
