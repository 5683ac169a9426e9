"""Signals: nothing is ever raised out of running code. A thread sees each signal at once, and decides.

An exception that a signal handler raises may surface anywhere: inside a library that is loading, or in a destructor
that swallows it; and Python's handlers run between two bytecodes, which may be seconds apart. So the handlers here do
nothing, and a thread reads the numbers that the interpreter's C code writes into a socket (signal.set_wakeup_fd).
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

NUMBERS = (signal.SIGINT, signal.SIGTERM)
_SAME_SECONDS = 0.3
# Held for good by whichever ends the process: the thread that a signal woke, or the main thread at its end.
_ending = threading.RLock()


def _listen(listener: socket.socket, on_signal: Callable[[int], None]) -> None:
    with listener:
        while received := listener.recv(1):
            if received[0] in NUMBERS:
                on_signal(received[0])


def _call_on_signals(on_signal: Callable[[int], None]) -> tuple[socket.socket, threading.Thread]:
    """Calls a function, in a thread that ends when the returned socket is closed, with each SIGINT and SIGTERM."""
    listener, speaker = socket.socketpair()
    speaker.setblocking(False)
    thread = threading.Thread(target=_listen, args=(listener, on_signal), daemon=True)
    thread.start()

    def ignore(*_: object) -> socket.socket:
        return speaker  # which stays open as long as this is the handler

    signal.set_wakeup_fd(speaker.fileno(), warn_on_full_buffer=False)
    for number in NUMBERS:
        signal.signal(number, ignore)
    return speaker, thread


def exit_on_signals(advice: str = "", cleanup: Callable[[], None] = lambda: None) -> None:
    """From now on, SIGINT and SIGTERM end the process at once: a line on stderr, and 128 plus the signal's number.

    Args:
      advice: the end of the line, such as "; to resume, give the same command again".
      cleanup: called first, in another thread than the main one.
    """

    def leave(number: int) -> None:
        _ending.acquire()
        try:
            cleanup()
            line = f"stopped by {signal.Signals(number).name}{advice}\n"
            stderr = sys.stderr.fileno() if sys.stderr else 2
            start = "\r" if os.isatty(stderr) else ""  # a terminal shows ^C
            os.write(stderr, f"{start}{line}".encode(errors="backslashreplace"))
        finally:  # the line may be lost, the signal may not
            os._exit(128 + number)

    _call_on_signals(leave)


def ignore_signals() -> None:
    """From now on, SIGINT and SIGTERM do nothing: everything is written, and the process ends by itself."""
    _ending.acquire()
    for number in NUMBERS:  # libraries are torn down for some tenths of a second after Python's own handlers are gone
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def defer_signals() -> Iterator[Callable[[], int]]:
    """Keeps the first SIGINT or SIGTERM for the caller to ask about; a second one ends the process at once.

    One that nobody asked about has its usual effect when the block ends.

    Yields:
      A function that returns the signal's number, or 0. Outside of the main thread it always returns 0.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    received: list[int] = []
    asked: list[int] = []
    times: list[float] = []

    def keep(number: int) -> None:
        now = time.monotonic()
        # A batch system or terminal may send it to a supervisor too, which sends it on: that is not a second one.
        if received and (number != received[0] or now - times[0] > _SAME_SECONDS):
            os._exit(128 + number)
        received.append(number)
        times.append(now)

    def stop_signal() -> int:
        asked[:] = received[:1]
        return asked[0] if asked else 0

    handlers = {number: signal.getsignal(number) for number in NUMBERS}
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    speaker, thread = _call_on_signals(keep)
    try:
        yield stop_signal
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        speaker.close()
        thread.join()  # after it has read what came before
        if received and not asked:
            os.kill(os.getpid(), received[0])
