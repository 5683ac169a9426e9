"""What a run is to the machine: it locks its folder, finds memory free, and leaves in order when it is told to."""

import contextlib
import fcntl
import os
import pathlib
import signal
import socket
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
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(workdir / LOCK, flags, 0o666), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"--workdir={workdir}: another process is writing there; wait for it, or name another folder"
            ) from None
        yield


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM where nothing needs saving; the `number` of the signal is its argument."""


def raise_signals() -> None:
    """Lets SIGINT and SIGTERM raise Interrupted in the main thread, from now on."""

    def stop(number: int, _frame: object) -> None:
        raise Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _leave_at_the_second(listener: socket.socket) -> None:
    numbers = bytearray()
    while len(numbers) < 2:
        received = listener.recv(1)
        if not received:
            return
        numbers += bytes(number for number in received if number in (signal.SIGINT, signal.SIGTERM))
    os._exit(128 + numbers[1])


@contextlib.contextmanager
def deferred_signals() -> Iterator[Callable[[], int]]:
    """Keeps the first SIGTERM or SIGINT for the caller to ask about; a second one ends the process at once.

    Yields:
      A function that returns the signal's number, or 0. Outside of the main thread it is always 0.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    told = []
    before = {
        number: signal.signal(number, lambda number, _: told.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    # Python calls its handlers between two steps of Python, which may be a second away: a thread sees each at once.
    listener, speaker = socket.socketpair()
    speaker.setblocking(False)
    descriptor = signal.set_wakeup_fd(speaker.fileno(), warn_on_full_buffer=False)
    watch = threading.Thread(target=_leave_at_the_second, args=(listener,), daemon=True)
    watch.start()
    try:
        yield lambda: told[0] if told else 0
    finally:
        signal.set_wakeup_fd(descriptor)
        speaker.close()
        watch.join()
        listener.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def free_memory(group: pathlib.Path = pathlib.Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still take: the machine's, or what a container's limit leaves of them.

    Args:
      group: of the control group, version 2.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html#memory
    """
    import psutil

    free = psutil.virtual_memory().available
    try:
        limit, used, facts = ((group / f"memory.{name}").read_text() for name in ("max", "current", "stat"))
        given_back = dict(line.split() for line in facts.splitlines())["inactive_file"]  # at need: cached files
        return min(free, int(limit) - int(used) + int(given_back))
    except (OSError, ValueError, KeyError):  # no such group, or no limit
        return free
