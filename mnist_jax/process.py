"""What a run is to the machine: it locks its folder, and leaves in order when it is told to."""

import contextlib
import fcntl
import pathlib
import signal
import threading
from collections.abc import Callable, Iterator

from mnist_jax.errors import ConfigError

LOCK = ".lock"


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Holds a folder for this process alone; the lock dies with its owner.

    Args:
      workdir: the folder.

    Raises:
      ConfigError: another process holds it.
    """
    with (workdir / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"--workdir={workdir}: another process is writing there; wait for it, or name another folder"
            ) from None
        yield


@contextlib.contextmanager
def deferred_signals() -> Iterator[Callable[[], int]]:
    """Keeps the first SIGTERM or SIGINT for the caller to ask about; a second one ends the process at once.

    Yields:
      A function that returns the signal's number, or 0. Outside of the main thread it is always 0.
    """
    told = []

    def note(number: int, _frame: object) -> None:
        told.append(number)
        signal.signal(number, signal.SIG_DFL)

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield lambda: told[0] if told else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
