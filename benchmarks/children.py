"""The processes that the benchmark starts, and their end with it."""

import subprocess
import threading
from collections.abc import Mapping, Sequence

_running: list[subprocess.Popen[str]] = []
_lock = threading.Lock()  # held to change _running; once everything was killed, for good


def run_child(
    argv: Sequence[str], timeout_s: float, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end, as subprocess.run does.

    Args:
      argv: the program and its arguments.
      timeout_s: seconds after which it is killed.
      env: its environment; None for that of this process.

    Returns:
      Its exit status and what it wrote.

    Raises:
      OSError: it can't be started.
      subprocess.TimeoutExpired: it took too long.
    """
    with _lock:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        _running.append(process)
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    finally:
        with _lock:
            process.kill()
            process.wait()
            _running.remove(process)
    return subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)


def kill_children() -> None:
    """Kills what run_child runs in other threads, which wait from then on: they neither return nor start anything."""
    _lock.acquire()
    for process in _running:
        process.kill()
        process.wait()
