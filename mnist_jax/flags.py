"""Command-line flags made from dataclasses: definition, help, and the values that the user gave."""

import ast
import difflib
import importlib.util
import pathlib
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags as absl_flags

from mnist_jax.errors import ConfigError
from mnist_jax.fields import Flag, flags_of

# Groups of flags in the order of --help, and their headings; those of a researcher's own come last.
HEADINGS = {
    "sweep": "sweep",
    "data": "data",
    "model": "network",
    "augmentation": "augmentation",
    "loss": "loss",
    "metrics": "metrics",
    "optimizer": "optimizer",
    "training": "training",
    "run": "run",
    "output": "output",
}
# What people type who come from other code.
SYNONYMS = {
    "bs": "batch_size",
    "hidden": "hidden_sizes",
    "lr": "learning_rate",
    "num_epochs": "epochs",
    "units": "hidden_sizes",
    "wd": "weight_decay",
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
    message = re.sub(rf"(^|; )({any_name})(?=:)", r"\1--\2", message)
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
            if flag.is_tuple and flag.repeated:
                absl_flags.DEFINE_multi_string(flag.name, [*default], flag.help, flag_values=values)
            elif flag.is_tuple:
                absl_flags.DEFINE_list(flag.name, [*map(str, default)], flag.help, flag_values=values)
            elif flag.item_type is bool:
                absl_flags.DEFINE_boolean(flag.name, default, flag.help, flag_values=values)
            else:  # a number is read by explicit_values, whose message people understand
                text = None if default is None else str(default)
                absl_flags.DEFINE_string(flag.name, text, flag.help, flag_values=values)
    absl_flags.DEFINE_boolean("help", False, "show this help", short_name="h", flag_values=values)
    return values, by_group


def _table_names(module: str, table: str) -> list[str]:
    """The names in a table of the library, from its source where it is not imported: --help must not wait for JAX."""
    if module in sys.modules:
        return list(getattr(sys.modules[module], table))
    spec = importlib.util.find_spec(module)
    assert spec and spec.origin
    tree = ast.parse(pathlib.Path(spec.origin).read_text(encoding="utf-8"))
    literals = {node.target.id: node.value for node in tree.body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]
    names: list[str] = []
    for key, value in zip(literals[table].keys, literals[table].values, strict=True):  # type: ignore[union-attr]
        if key is not None:
            names.append(ast.literal_eval(key))
        else:  # **{name: ... for name, ... in OTHER.items()}
            names += _table_names(module, value.generators[0].iter.func.value.id)
    return names


def _describe(flag: Flag, default: str) -> str:
    text = f"  --{flag.name}: {flag.help}" + (f" (default: {default})" if default else "")
    if found := re.search(r"(mnist_jax\.\w+)\.([A-Z]+)", flag.help):
        text += ": " + ", ".join(
            f"{name}PATH" if name.endswith(":") else name for name in _table_names(*found.groups())
        )
    width = min(shutil.get_terminal_size().columns, 120)
    return textwrap.fill(text, width, subsequent_indent=" " * 6, break_long_words=False, break_on_hyphens=False)


def format_help(doc: str, values: absl_flags.FlagValues, by_group: dict[str, list[Flag]]) -> str:
    """Formats what --help prints: the flags that the experiment's model uses, in groups.

    Args:
      doc: the program's docstring.
      values: as define_flags returns them, parsed.
      by_group: as define_flags returns them.
    """
    model = values["model"].value if "model" in values else None
    lines, num_hidden = [doc.strip()], 0
    order = [*HEADINGS, *by_group]
    for group, members in sorted(by_group.items(), key=lambda item: order.index(item[0])):
        lines += ["", f"Flags: {HEADINGS.get(group, group)}" if len(by_group) > 1 else "Flags:"]
        for flag in members:
            if model in flag.unused_by:
                num_hidden += 1
                continue
            lines.append(_describe(flag, str(values[flag.name].default_as_str or "").strip("'")))
    if num_hidden:
        lines += ["", f"{num_hidden} flags of other networks are not listed; --model=cnn --help lists those of cnn."]
    return "\n".join(lines)


def _to_number(flag: Flag, text: str) -> Any:
    """A number where the text is one; otherwise the text, which its field refuses."""
    try:
        return flag.item_type(text)
    except ValueError:
        return text


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
                items = (item.strip() for item in value)
                value = tuple(_to_number(flag, item) for item in items if item)
            elif isinstance(value, str):
                value = _to_number(flag, value)
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
    except absl_flags.UnrecognizedFlagError as error:
        raise ConfigError(
            f"--{error.flagname}: there is no such flag; {_suggest_flag(error.flagname, values)}"
        ) from None
    except absl_flags.Error as error:
        message = " ".join(str(error).split())
        if found := re.search(r"--(\w+)=(.*?): .*Non-boolean", message):
            message = f"--{found[1]}={found[2]}: must be true or false"
        elif found := re.search(r"Missing value for flag -*(\w+)", message):
            example = str(values[found[1]].default_as_str or "VALUE").strip("'")
            message = f"--{found[1]}: needs a value, as in --{found[1]}={example}"
        raise ConfigError(f"{message} (--help lists the flags)") from None


def _suggest_flag(name: str, values: absl_flags.FlagValues) -> str:
    plain = name.lower().replace("-", "_")
    known = [plain, SYNONYMS.get(plain, ""), re.sub("^no_", "no", plain)]
    close = [one for one in known if one in values] or difflib.get_close_matches(plain, list(values), n=1, cutoff=0.6)
    return f"did you mean --{close[0]}? (--help lists the flags)" if close else "--help lists the flags"
