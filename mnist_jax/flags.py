"""Command-line flags made from dataclasses: definition, help, and the values that the user gave."""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from absl import flags as absl_flags

from mnist_jax.errors import ConfigError
from mnist_jax.fields import Flag, flags_of

_DEFINE: dict[type, Callable[..., Any]] = {
    bool: absl_flags.DEFINE_boolean,
    int: absl_flags.DEFINE_integer,
    float: absl_flags.DEFINE_float,
    str: absl_flags.DEFINE_string,
}


def add_dashes(message: str, names: Iterable[str]) -> str:
    """Writes the arguments in a message of the library as the flags that they were given by.

    Args:
      message: such as "workdir=x: already holds a result; use overwrite=True".
      names: of the flags that there are.

    Returns:
      The message for the command line.

    >>> add_dashes("workdir=x: already holds a result; use overwrite=True", ["workdir", "overwrite"])
    '--workdir=x: already holds a result; use --overwrite'
    """
    any_name = "|".join(map(re.escape, names))
    message = re.sub(rf"(?<![\w./=:'-])({any_name})(?==)", r"--\1", message)
    message = re.sub(rf"^({any_name})(?=:)", r"--\1", message)
    return re.sub(rf"(--(?:{any_name}))=True\b", r"\1", message)


def define_flags(
    holders: Sequence[Any], hidden_groups: Iterable[str] = ()
) -> tuple[absl_flags.FlagValues, dict[str, list[Flag]]]:
    """Defines a flag for each flag_field of some dataclasses, and --help.

    Args:
      holders: instances, whose values are the defaults.
      hidden_groups: groups of flags to leave out.

    Returns:
      absl's flag values, and the flags by group.
    """
    values = absl_flags.FlagValues()
    by_group: dict[str, list[Flag]] = {}
    for holder in holders:
        for flag in flags_of(type(holder)).values():
            if flag.group in hidden_groups:
                continue
            by_group.setdefault(flag.group, []).append(flag)
            default = getattr(holder, flag.name)
            if flag.is_tuple:
                absl_flags.DEFINE_list(flag.name, [*map(str, default)], flag.help, flag_values=values)
            else:
                _DEFINE[flag.item_type](flag.name, default, flag.help, flag_values=values)
    absl_flags.DEFINE_boolean("help", False, "show this help", short_name="h", flag_values=values)
    return values, by_group


def format_help(doc: str, values: absl_flags.FlagValues, by_group: dict[str, list[Flag]]) -> str:
    """Formats what --help prints.

    Args:
      doc: the program's docstring.
      values: as define_flags returns them.
      by_group: as define_flags returns them.
    """
    lines = [doc.strip()]
    for group, members in by_group.items():
        lines += ["", f"Flags: {group}" if len(by_group) > 1 else "Flags:"]
        for flag in members:
            default = str(values[flag.name].default_as_str or "").strip("'")
            lines.append(f"  --{flag.name}: {flag.help}" + (f" (default: {default})" if default else ""))
    return "\n".join(lines)


def explicit_values(values: absl_flags.FlagValues, holder: Any) -> dict[str, Any]:
    """Collects the values of the flags that the user gave.

    Args:
      values: parsed flags.
      holder: instance of one of the dataclasses.

    Returns:
      From names to values.
    """
    explicit = {}
    for flag in flags_of(type(holder)).values():
        if flag.name in values and values[flag.name].present:
            value = getattr(values, flag.name)
            if flag.is_tuple:
                is_int = flag.item_type is int
                items = [item for item in value if item]
                value = tuple(int(item) if is_int and re.fullmatch(r"-?\d+", item) else item for item in items)
            explicit[flag.name] = value
    return explicit


def parse_flags(values: absl_flags.FlagValues) -> list[str]:
    """Parses the command line.

    Args:
      values: as define_flags returns them; they are set.

    Returns:
      What is not a flag.

    Raises:
      ConfigError: an unknown flag, or a value that can't be read.
    """
    try:
        return values(sys.argv)[1:]
    except absl_flags.Error as error:
        raise ConfigError(f"{' '.join(str(error).split())} (--help lists the flags)") from None
