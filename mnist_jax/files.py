"""Text and JSON files: written completely or not at all, read with a size limit."""

import contextlib
import itertools
import json
import math
import os
import pathlib
import re
import tempfile
import time
from collections.abc import Iterator
from typing import Any, TypeAlias

Json: TypeAlias = Any  # what json.loads returns
MAX_TEXT_BYTES = 1 << 24
DEFAULT_DATA_DIR = "~/.cache/mnist_jax"


def expand_user(path: str | os.PathLike[str]) -> pathlib.Path:
    """Replaces a leading ~ by the home directory; unlike pathlib, leaves one that is unknown as it is.

    Args:
      path: as the user wrote it.

    Returns:
      The path.
    """
    path = os.fspath(path)
    if path.partition("/")[0] == "~" and not os.environ.get("HOME", "unset"):  # expanduser would take / for the home
        with contextlib.suppress(ImportError, KeyError):
            import pwd

            return pathlib.Path(pwd.getpwuid(os.getuid()).pw_dir + path[1:])
        return pathlib.Path(path)
    return pathlib.Path(os.path.expanduser(path))


def has_home() -> bool:
    """Says whether there is a home directory to keep files in, which the root of all folders is not."""
    home = expand_user("~")
    return home.is_absolute() and home != home.parent and os.path.isdir(home)


def check_writable(folder: pathlib.Path) -> None:
    """Finds out whether a folder can be written, or made, without leaving anything behind.

    Args:
      folder: the folder; it and its parents may be missing.

    Raises:
      OSError: it can't.
    """
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    with tempfile.TemporaryDirectory(prefix=".", dir=existing) as beside:
        pathlib.Path(beside, folder.relative_to(existing)).mkdir(parents=True, exist_ok=True)


def make_new_folder(stem: str) -> pathlib.Path:
    """Makes a folder under runs/ in the current folder, one that was not there.

    Args:
      stem: what its name begins with; characters that do not belong into a name become _.

    Returns:
      runs/STEM-DATE-TIME, followed by -2, -3, ... where that is taken.
    """
    stem = re.sub(r"[^\w.-]+", "_", stem, flags=re.ASCII)[:150]
    name = f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(1):
        path = pathlib.Path("runs", name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError("itertools.count ended")


def remove_if_empty(folder: pathlib.Path) -> None:
    """Removes a folder that nothing was written to.

    Args:
      folder: the folder; it may be missing.
    """
    with contextlib.suppress(OSError):
        folder.rmdir()


def temp_path(path: pathlib.Path) -> pathlib.Path:
    """Names the hidden file that is written first and then renamed to the path, so that no reader sees half a file.

    Args:
      path: the file to write.

    Returns:
      A path in the same folder that no other process uses.
    """
    return path.with_name(f".{path.name}.{os.getpid()}")


def _nan_to_null(value: Json) -> Json:
    """JSON has neither NaN nor infinity: null replaces them."""
    if isinstance(value, dict):
        return {key: _nan_to_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nan_to_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def utf8_path(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a path to C++ code that takes only UTF-8: other folders by their descriptors, where there is /proc.

    Args:
      path: the path; its folder must exist.

    Yields:
      The same, or a path in UTF-8 while the block lasts.
    """
    try:
        str(path).encode()
        yield path
    except UnicodeEncodeError:
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            yield pathlib.Path(f"/proc/self/fd/{descriptor}", path.name)
        finally:
            os.close(descriptor)


def write_json(path: pathlib.Path, *values: Json) -> None:
    """Writes a JSON file atomically: one indented value, or for .jsonl one value per line.

    Args:
      path: the file.
      *values: what to write.
    """
    indent = None if path.suffix == ".jsonl" else 2
    tmp = temp_path(path)
    with tmp.open("w", encoding="utf-8") as file:
        file.write("".join(json.dumps(_nan_to_null(value), indent=indent) + "\n" for value in values))
        file.flush()
        os.fsync(file.fileno())
    tmp.replace(path)


def append_json(path: pathlib.Path, value: Json) -> None:
    """Appends a line to a .jsonl file.

    Args:
      path: the file.
      value: what to write.
    """
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(_nan_to_null(value)) + "\n")


def read_text(path: str | os.PathLike[str]) -> str:
    """Reads a text file of at most MAX_TEXT_BYTES.

    Args:
      path: the file.

    Returns:
      Its content.

    Raises:
      OSError: it can't be read.
      ValueError: it is too large, or not UTF-8.
    """
    with pathlib.Path(path).open("rb") as file:
        content = file.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise ValueError(f"more than {MAX_TEXT_BYTES} bytes")
    return content.decode()


def read_json(path: str | os.PathLike[str]) -> Json:
    """Reads a JSON file of at most MAX_TEXT_BYTES.

    Args:
      path: the file.

    Returns:
      Its value.

    Raises:
      OSError: it can't be read.
      ValueError: it is too large, or not JSON.
    """
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise ValueError("nested too deeply") from None
