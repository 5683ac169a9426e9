"""A process that starts a command, and starts it again where it was lost."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time

from mnist_jax.process import NUMBERS

CHILD = "MNIST_JAX_SUPERVISOR"  # in the environment of a command that is supervised: where to send signs of life
_SILENCE_SECONDS = 30.0
_FINAL = (0, 1, 2)  # done, or an error of the user's, which the same command would make again


def supervise(restarts: int) -> None:
    """Runs this very command in a process of its own, and again as often as it was lost; ends with its exit status.

    It was lost where it was killed, where another process of its run was, after an error that is none of ours, and
    where it sent no sign of life for half a minute, as a stopped one. It resumes from its last checkpoint.

    Args:
      restarts: how many times at most.
    """
    for attempt in range(restarts + 1):
        status = _run()
        if status in _FINAL or status - 128 in NUMBERS:
            break
        if attempt < restarts:
            print(f"ended with status {status}; restart {attempt + 1} of {restarts}", file=sys.stderr)
            time.sleep(1)
    sys.stderr.flush()
    os._exit(status)


def _run() -> int:
    ours, theirs = os.pipe()
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    command = ["-m", spec.name.removesuffix(".__main__")] if spec else [sys.argv[0]]
    child = subprocess.Popen(
        [sys.executable, *command, *sys.argv[1:]],
        pass_fds=[theirs],
        env=os.environ | {CHILD: str(theirs)},
        stdout=sys.stdout.fileno(),
        stderr=sys.stderr.fileno(),
    )
    os.close(theirs)
    signal.set_wakeup_fd(-1)  # where exit_on_signals would hear of them
    for number in NUMBERS:
        signal.signal(number, lambda number, _: child.send_signal(number))
    heard = time.monotonic()
    while child.poll() is None:
        if select.select([ours], [], [], 0.2)[0] and os.read(ours, 1024):
            heard = time.monotonic()
        if time.monotonic() - heard > _SILENCE_SECONDS:
            child.kill()
    os.close(ours)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def is_supervised() -> bool:
    """Says whether this process was started by supervise."""
    return CHILD in os.environ


def show_signs_of_life() -> None:
    """In a supervised process: sends a byte each second, and ends the process where nobody receives it any more."""
    if descriptor := os.environ.pop(CHILD, ""):
        threading.Thread(target=_show, args=(int(descriptor),), daemon=True).start()


def _show(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        while True:
            os.write(descriptor, b".")
            time.sleep(1)
    os._exit(1)
