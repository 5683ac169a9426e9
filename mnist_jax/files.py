"""Text and JSON files: written whole or not at all, read with a limit."""

import json
import os
import pathlib
from typing import Any

MAX_BYTES = 1 << 28


def write_json(path: pathlib.Path, *values: Any) -> None:
    """Writes a JSON file that appears whole or not at all: one value indented, or one value a line for .jsonl.

    Args:
      path: where to.
      *values: what to write.
    """
    indent = None if path.suffix == ".jsonl" else 2
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w") as file:
        file.write("".join(json.dumps(value, indent=indent) + "\n" for value in values))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def append_json(path: pathlib.Path, value: Any) -> None:
    """Adds a line to a .jsonl file.

    Args:
      path: the file.
      value: what to write.
    """
    with path.open("a") as file:
        file.write(json.dumps(value) + "\n")


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
