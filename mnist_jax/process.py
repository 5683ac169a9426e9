"""Signals: an interrupted run saves its state before the process ends."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM where nothing needs saving; the signal's number is its argument."""


def raise_signals() -> None:
    """Makes SIGINT and SIGTERM raise Interrupted in the main thread, from now on."""

    def stop(number: int, _frame: object) -> None:
        raise Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _exit_on_second_signal(listener: socket.socket) -> None:
    numbers = bytearray()
    while len(numbers) < 2:
        received = listener.recv(1)
        if not received:
            return
        numbers += bytes(number for number in received if number in (signal.SIGINT, signal.SIGTERM))
    os._exit(128 + numbers[1])


@contextlib.contextmanager
def defer_signals() -> Iterator[Callable[[], int]]:
    """Keeps the first SIGTERM or SIGINT for the caller to ask about; a second one ends the process at once.

    Yields:
      A function that returns the signal's number, or 0. Outside of the main thread it always returns 0.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    received: list[int] = []
    previous = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    # Python runs signal handlers between two bytecodes, which may be a second apart: a thread sees each signal at once.
    listener, speaker = socket.socketpair()
    speaker.setblocking(False)
    descriptor = signal.set_wakeup_fd(speaker.fileno(), warn_on_full_buffer=False)
    watch = threading.Thread(target=_exit_on_second_signal, args=(listener,), daemon=True)
    watch.start()
    try:
        yield lambda: received[0] if received else 0
    finally:
        signal.set_wakeup_fd(descriptor)
        speaker.close()
        watch.join()
        listener.close()
        for number, handler in previous.items():
            signal.signal(number, handler)
