"""Dataclass fields that are command-line flags: default, help text, range, and whether a value can be traced."""

import dataclasses
import functools
import math
import sys
import typing
from typing import Any, NamedTuple, TypeAlias

from mnist_jax.errors import ConfigError, suggest_name

FLOAT32_MAX = 3.4e38
MAX_INT = 2**31
Value: TypeAlias = Any  # of a flag: str, int, float, bool, a tuple of them, or a traced scalar; or a type


def flag_field(
    default: Value,
    help: str,
    *,
    group: str = "training",
    minimum: float | None = None,
    exclusive_maximum: float | None = None,
    choices: tuple[str, ...] | None = None,
    traced: bool = False,
    decides_bits: bool = True,
    unused_by: tuple[str, ...] = (),
    repeated: bool = False,
) -> Value:
    """Makes a dataclass field that is also a command-line flag.

    Args:
      default: its default; str, int, float, bool, or a tuple of int or str.
      help: its text in --help.
      group: its heading in --help: data, model, augmentation, loss, metrics, optimizer, training, run, output, or one
        of your own. An experiment that brings its own part refuses the flags of that part's group.
      minimum: the smallest number allowed, of each item where it is a tuple.
      exclusive_maximum: a bound that numbers must stay below.
      choices: the strings allowed.
      traced: whether a float can vary inside a compiled program; 0 must then turn off what it controls.
      decides_bits: whether another value gives another result; if not, an unfinished run resumes in spite of it.
      unused_by: names of models that do not read it, and whose --help leaves it out.
      repeated: whether the flag of a tuple is given once for each item, instead of once with commas.

    Returns:
      A dataclass field.
    """
    return dataclasses.field(default=default, metadata={k: v for k, v in locals().items() if k != "default"})


class Flag(NamedTuple):
    """What a flag_field declares."""

    name: str
    type: Value
    help: str
    group: str
    minimum: float | None
    exclusive_maximum: float | None
    choices: tuple[str, ...] | None
    traced: bool
    decides_bits: bool
    unused_by: tuple[str, ...]
    repeated: bool

    @property
    def item_type(self) -> Value:
        """The type of a value, of a tuple's items where it is a tuple."""
        return typing.get_args(self.type)[0] if typing.get_args(self.type) else self.type

    @property
    def is_tuple(self) -> bool:
        """Whether it takes several values."""
        origin: Value = typing.get_origin(self.type)
        return origin is tuple


@functools.cache
def _flags_of(cls: Value) -> dict[str, Flag]:
    hints = typing.get_type_hints(cls)
    fields = [field for field in dataclasses.fields(cls) if "help" in field.metadata]
    return {field.name: Flag(field.name, hints[field.name], **field.metadata) for field in fields}


def flags_of(cls: Value) -> dict[str, Flag]:
    """Lists the flag_fields of a dataclass.

    Args:
      cls: the dataclass, a type.

    Returns:
      From field names to what they declare.
    """
    return _flags_of(cls)


def is_traced(value: Value) -> bool:
    """Says whether a value is known only when a program runs.

    Args:
      value: of a configuration's field.

    Returns:
      Whether it is a JAX tracer.
    """
    jax = sys.modules.get("jax")  # without it, nothing is traced; importing it would slow down --help
    return jax is not None and isinstance(value, jax.core.Tracer)


def is_on(value: Value) -> bool:
    """Says whether the part that a value controls belongs into the program.

    Args:
      value: of a traced field, or any other.

    Returns:
      True where it is not 0, and where it is not known: the part must then do nothing at 0.

    >>> is_on(0.1), is_on(0.0)
    (True, False)
    """
    return is_traced(value) or bool(value)


def _format(value: Value) -> str:
    return (",".join(map(str, value)) if isinstance(value, tuple) else str(value))[:60]


def _convert_item(flag: Flag, value: Value) -> Value:
    """A Python value of the item's type; None where it is none."""
    if getattr(value, "shape", None) == () and not is_traced(value):  # a numpy or JAX scalar
        value = value.item()
    if flag.item_type is float and type(value) is int:
        value = float(value) if abs(value) < FLOAT32_MAX else math.inf
    return value if type(value) is flag.item_type else None


def validate_field(flag: Flag, value: Value) -> Value:
    """Checks one value.

    Args:
      flag: what its field declares.
      value: of the field's type, or one that converts without loss: a list for a tuple, an int or a numpy scalar for a
        float.

    Returns:
      The value as its field's type.

    Raises:
      ConfigError: the wrong type, or out of range.
    """
    if is_traced(value):
        if flag.traced and value.shape == ():
            return value
        raise ConfigError(
            f"{flag.name}: shapes the program, so it can't be a traced value; only scalars that are "
            "marked as traced in the configuration can"
        )
    if value is None and type(None) in typing.get_args(flag.type):
        return value
    items = value if flag.is_tuple and isinstance(value, list | tuple) else [value]
    converted = [_convert_item(flag, item) for item in items]
    if None in converted or (flag.is_tuple and items is not value):
        kind = str(getattr(flag.item_type, "__name__", flag.item_type))
        kind = {
            "int": "a whole number, such as 10",
            "float": "a number, such as 0.1",
            "str": "a string",
            "bool": "true or false",
        }.get(kind, kind)
        shown = _format(tuple(value)) if items is value else f"{value!r:.60}"
        raise ConfigError(f"{flag.name}={shown}: {'each item of a list ' if flag.is_tuple else ''}must be {kind}")
    value = tuple(converted) if flag.is_tuple else converted[0]
    for number in converted:
        if isinstance(number, float) and not abs(number) < FLOAT32_MAX:
            raise ConfigError(f"{flag.name}={_format(value)}: must be a finite number of 32 bits")
        if isinstance(number, int) and not -MAX_INT <= number < MAX_INT:
            raise ConfigError(f"{flag.name}={_format(value)}: must be below {MAX_INT}")
        if flag.minimum is not None and number < flag.minimum:
            raise ConfigError(f"{flag.name}={_format(value)}: must be at least {flag.minimum}")
        if flag.exclusive_maximum is not None and number >= flag.exclusive_maximum:
            raise ConfigError(f"{flag.name}={_format(value)}: must be in [{flag.minimum}, {flag.exclusive_maximum})")
        if flag.choices is not None and number not in flag.choices:
            raise ConfigError(
                f"{flag.name}={number}: there is no such {flag.name}; {suggest_name(number, flag.choices)}"
            )
    return value


def validate_fields(instance: Value) -> None:
    """Checks and converts every flag_field of a frozen dataclass; for its __post_init__.

    Args:
      instance: of the dataclass.

    Raises:
      ConfigError: a value of the wrong type, or out of range.
    """
    for flag in flags_of(type(instance)).values():
        object.__setattr__(instance, flag.name, validate_field(flag, getattr(instance, flag.name)))
