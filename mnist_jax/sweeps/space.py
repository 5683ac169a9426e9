"""What a sweep varies: values of a grid, and ranges or choices of a search space, read from text or from Python."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from mnist_jax.config import Config
from mnist_jax.errors import ConfigError, suggest_name
from mnist_jax.experiment import Experiment
from mnist_jax.fields import Flag, Value, flags_of, validate_field

Point: TypeAlias = dict[str, Value]  # field -> value
Spec: TypeAlias = str | Sequence[Value]  # as on the command line, or the values themselves
# What would make the scores of two trials incomparable, or has a flag of its own.
_FIXED = ("seed", "num_seeds", "validation_fraction", "validation_rows", "dataset", "data_dir", "image_size", "resplit")
_DIGITS = 6  # of a number that a range gives, so that the command beside it is short and exact


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One field that varies: over its values, or over a range where it has none."""

    name: str
    values: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    is_int: bool = False

    @property
    def is_numeric(self) -> bool:
        """Whether all values are numbers, so that there is an order."""
        return not self.values or all(type(value) in (int, float) for value in self.values)

    def round(self, value: float) -> Value:
        """Returns a number of the range as a short one within it."""
        return min(max(round_value(value, self.is_int), self.low), self.high)

    def at(self, fraction: float) -> Value:
        """Returns the value at a fraction of the way, in [0, 1]."""
        if self.values:
            return self.values[min(int(fraction * len(self.values)), len(self.values) - 1)]
        low, high = map(math.log, (self.low, self.high)) if self.log else (self.low, self.high)
        value = low + fraction * (high - low)
        return self.round(math.exp(value) if self.log else value)

    def describe(self) -> str:
        """Returns the dimension as text, in the words of the command line."""
        if self.values:
            return "|".join(format_value(value) for value in self.values)
        return f"{format_value(self.low)}:{format_value(self.high)}{':log' if self.log else ''}"


def format_value(value: Value) -> str:
    """Formats a value as its flag takes it.

    >>> format_value((64, 128)), format_value(0.001), format_value(True)
    ('64,128', '0.001', 'true')
    """
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def round_value(value: float, is_int: bool) -> Value:
    """Rounds what a range gives to a short decimal number.

    >>> round_value(0.00123456789, False)
    0.00123457
    """
    return round(value) if is_int else float(f"{value:.{_DIGITS}g}")


def _number(text: str, flag: Flag, what: str) -> Value:
    try:
        return flag.item_type(text)
    except ValueError:
        kind = "a whole number" if flag.item_type is int else "a number"
        raise ConfigError(f"{what}: {text!r:.40} is not {kind}") from None


def _parse_value(text: str, flag: Flag, what: str) -> Value:
    if flag.is_tuple:
        parts = [part for part in text.split(",") if part]
        return tuple(_number(part, flag, what) if flag.item_type is int else part for part in parts)
    if flag.item_type is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{what}: {text!r:.40} must be true or false")
        return text.lower() == "true"
    return _number(text, flag, what) if flag.item_type in (int, float) else text


def _parse_range(name: str, text: str, flag: Flag, what: str, steps: bool) -> Dimension:
    form = "LOW:HIGH:N or LOW:HIGH:log:N" if steps else "LOW:HIGH or LOW:HIGH:log"
    parts = text.split(":")
    log = len(parts) > 2 and parts[2] == "log"
    if flag.item_type not in (int, float) or flag.is_tuple:
        raise ConfigError(f"{what}: {name} is no number; write its values as A|B|C")
    if len(parts) != 2 + log + steps:
        raise ConfigError(f"{what}: a range is {form}")
    low, high = (_number(part, flag, what) for part in parts[:2])
    if not math.isfinite(high - low):
        raise ConfigError(f"{what}: the ends of a range must be finite")
    if not low < high:
        raise ConfigError(f"{what}: the range is {'inverted' if low > high else 'empty'}; write the smaller end first")
    if log and low <= 0:
        raise ConfigError(f"{what}: a logarithmic range must begin above 0")
    is_int = flag.item_type is int
    if not steps:
        return Dimension(name, low=low, high=high, log=log, is_int=is_int)
    if not parts[-1].isdigit() or int(parts[-1]) < 2:
        raise ConfigError(f"{what}: {parts[-1]!r:.20} must be the number of values, at least 2")
    count = int(parts[-1])
    if count > 10_000:
        raise ConfigError(f"{what}: {count} values are too many; at most 10,000")
    numbers = np.geomspace(low, high, count) if log else np.linspace(low, high, count)
    values = tuple(dict.fromkeys(round_value(float(x), is_int) for x in numbers))
    if len(values) < count:
        raise ConfigError(f"{what}: has only {len(values)} different values; name fewer")
    return Dimension(name, values=values)


def parse_dimension(name: str, spec: Spec, config: Config, kind: str) -> Dimension:
    """Reads what one field varies over.

    Args:
      name: of a field of the configuration.
      spec: `A,B,C` or `A|B|C`, the latter for lists (`64|128,64`); in a grid `LOW:HIGH:N` or `LOW:HIGH:log:N`, in a
        space `LOW:HIGH` or `LOW:HIGH:log`; or a sequence of values.
      config: of the experiment.
      kind: "grid" or "space".

    Returns:
      The dimension, with values of the field's type.

    Raises:
      ConfigError: no such field, one that a sweep can't vary, or values that it refuses; the message says which.
    """
    flags = flags_of(type(config))
    if name not in flags:
        raise ConfigError(f"{kind}={name}: is no field of the configuration; {suggest_name(name, flags)}")
    if name in _FIXED:
        how = "; use seeds=N" if "seed" in name else ", since the scores could not be compared"
        raise ConfigError(f"{kind}={name}: can't vary in a sweep{how}")
    flag, what = flags[name], f"{kind}={name}={spec}" if isinstance(spec, str) else f"{kind}={name}"
    if isinstance(spec, str) and ":" in spec and flag.item_type is not str:
        dimension = _parse_range(name, spec, flag, what, steps=kind == "grid")
    else:
        texts = spec.split("|" if "|" in spec or flag.is_tuple else ",") if isinstance(spec, str) else spec
        texts = texts if isinstance(texts, Sequence) else np.atleast_1d(texts).tolist()  # a number, or an array
        values = [_parse_value(text, flag, what) if isinstance(text, str) else text for text in texts if text != ""]
        if not values:
            raise ConfigError(f"{what}: names no value")
        dimension = Dimension(name, values=tuple(values))
    checked = [_checked(config, name, value) for value in dimension.values or (dimension.low, dimension.high)]
    if dimension.values:
        if len(set(checked)) < len(checked):
            raise ConfigError(f"{what}: has the same value twice")
        return dataclasses.replace(dimension, values=tuple(checked))
    return dimension


def _checked(config: Config, name: str, value: Value) -> Value:
    """The value as its field's type; a ConfigError where the field refuses it whatever the others are."""
    return validate_field(flags_of(type(config))[name], value)


def parse_space(specs: Sequence[str] | Mapping[str, Spec], config: Config, kind: str) -> tuple[Dimension, ...]:
    """Reads all dimensions of a grid or a search space.

    Args:
      specs: texts NAME=SPEC, or a mapping from names to specs; see parse_dimension.
      config: of the experiment.
      kind: "grid" or "space".

    Returns:
      The dimensions in their order.

    Raises:
      ConfigError: as parse_dimension; or a name that is given twice.

    >>> parse_space(["learning_rate=1e-3:1e-1:log:3", "hidden_sizes=64|64,32"], Config(), "grid")[1].values
    ((64,), (64, 32))
    """
    pairs: list[tuple[str, Spec]] = []
    for spec in specs if not isinstance(specs, Mapping) else ():
        if not isinstance(spec, str):
            raise ConfigError(f"{kind}: must be a dict from names to values, or texts NAME=VALUES; got {spec!r:.40}")
        name, equals, text = spec.partition("=")
        if not (name and equals):
            example = "learning_rate=1e-4:1e-1:log" + (":8" if kind == "grid" else "")
            raise ConfigError(f"{kind}={spec}: must be NAME=VALUES, such as {kind}={example}")
        pairs.append((name.strip().lstrip("-"), text.strip()))
    pairs += specs.items() if isinstance(specs, Mapping) else []
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{kind}={name}: is given twice; name all its values in one")
    return tuple(parse_dimension(name, spec, config, kind) for name, spec in pairs)


def grid_points(dimensions: Sequence[Dimension]) -> Iterator[Point]:
    """Lists all combinations; the last dimension varies fastest."""
    for values in itertools.product(*(dimension.values for dimension in dimensions)):
        yield {dimension.name: value for dimension, value in zip(dimensions, values, strict=True)}


def check_points(experiment: Experiment, dimensions: Sequence[Dimension], points: Sequence[Point]) -> None:
    """Refuses values that the configuration or the parts refuse, before anything runs.

    Args:
      experiment: with the values of what does not vary.
      dimensions: what varies.
      points: of a grid; empty for a search, of which the ends of each range and each choice are tried.

    Raises:
      ConfigError: a value is refused; the message names it.
    """
    if not points:
        first = {d.name: d.values[0] if d.values else round_value(d.high, d.is_int) for d in dimensions}
        ends = [(d.name, value) for d in dimensions for value in d.values or (d.low, d.high)]
        points = [first | {name: value} for name, value in ends]
    for point in points:
        try:
            experiment.with_config(dataclasses.replace(experiment.config, **point)).check()
        except ConfigError as error:
            shown = ", ".join(f"{name}={format_value(value)}" for name, value in point.items())
            raise ConfigError(f"the trial with {shown} would be refused: {error}") from None
