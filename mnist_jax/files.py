"""Text and JSON files: written whole or not at all, read with a limit."""

import json
import math
import os
import pathlib
from typing import Any

MAX_BYTES = 1 << 24


def expanded(path: str | os.PathLike) -> pathlib.Path:
    """Reads a leading ~ as the user's home; a user who is not known stays as written.

    Args:
      path: as the user wrote it.

    Returns:
      The path.
    """
    return pathlib.Path(os.path.expanduser(path))


def aside(path: pathlib.Path) -> pathlib.Path:
    """Names the hidden file beside a path that is written first, then renamed to it: it appears whole or not at all.

    Args:
      path: what is to be written.

    Returns:
      A path in the same folder, this process's own.
    """
    return path.with_name(f".{path.name}.{os.getpid()}")


def _plain(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: null stands for them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: pathlib.Path, *values: Any) -> None:
    """Writes a JSON file that appears whole or not at all: one value indented, or one value a line for .jsonl.

    Args:
      path: where to.
      *values: what to write.
    """
    indent = None if path.suffix == ".jsonl" else 2
    begun = aside(path)
    with begun.open("w") as file:
        file.write("".join(json.dumps(_plain(value), indent=indent) + "\n" for value in values))
        file.flush()
        os.fsync(file.fileno())
    begun.replace(path)


def append_json(path: pathlib.Path, value: Any) -> None:
    """Adds a line to a .jsonl file.

    Args:
      path: the file.
      value: what to write.
    """
    with path.open("a") as file:
        file.write(json.dumps(_plain(value)) + "\n")


def read_text(path: str | os.PathLike) -> str:
    """Reads a text file, of at most MAX_BYTES.

    Args:
      path: the file.

    Returns:
      What it holds.

    Raises:
      OSError: it can't be read.
      ValueError: it is too large, or no UTF-8.
    """
    with pathlib.Path(path).open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return content.decode()


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file, of at most MAX_BYTES.

    Args:
      path: the file.

    Returns:
      What it holds.

    Raises:
      OSError: it can't be read.
      ValueError: it is too large, or not JSON.
    """
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise ValueError("nested too deeply") from None
