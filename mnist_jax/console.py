"""Standard output and error of a command: what can't be written there is lost, and ends nothing else."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


def _discard(descriptor: int) -> None:
    """Lets what is written to a descriptor from now on go nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


class _Stream:
    """A text stream that goes quiet at its first error; otherwise the stream that it stands for."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _try(self, function: Any, *args: Any) -> Any:
        try:
            return function(*args)
        except OSError as error:
            self.error = self.error or error
            # What is in its buffer, and what others write there, goes nowhere from now on.
            _discard(self.stream.fileno())

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        self._try(self.stream.flush)


def _open_missing_descriptors() -> None:
    """Opens what the caller closed, so that no file of ours gets the number of stderr, where libraries print."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def silence_native_code() -> None:
    """Gives Python's own output other descriptors, and lets what C++ code writes to 1 and 2 get lost.

    Of several processes, those that remain where one was lost report that over pages. Where NCCL or JAX are asked to
    report, by NCCL_DEBUG or JAX_DISTRIBUTED_DEBUG, nothing is silenced.
    """
    if {"NCCL_DEBUG", "JAX_DISTRIBUTED_DEBUG"} & os.environ.keys():
        return
    _open_missing_descriptors()
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if (stream := getattr(sys, name)) is not None:
            stream.flush()
            setattr(sys, name, open(os.dup(descriptor), "w", encoding=stream.encoding, buffering=1))  # noqa: SIM115
        _discard(descriptor)


@contextlib.contextmanager
def tolerant_output() -> Iterator[None]:
    """Makes stdout and stderr never raise: closed pipes, full disks, closed descriptors, characters they can't encode.

    Where stdout could not be written, other than because its reader had enough, the block ends with SystemExit(1)
    after a line on stderr.
    """
    _open_missing_descriptors()
    before = sys.stdout, sys.stderr
    streams = []
    for stream in before:
        if stream is None:  # closed by the caller
            stream = open(os.devnull, "w")  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
        streams.append(_Stream(stream))
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before
    error = streams[0].error
    if error and error.errno != errno.EPIPE:
        print(f"error: standard output can't be written: {error.strerror}", file=streams[1])
        streams[1].flush()
        sys.exit(1)
