"""Lines of JSON between the processes of a run: what they agree on, and which of them was lost.

Every other process is connected to process 0. Nothing of JAX is used: its own service ends a process with pages of
stack traces as soon as another one is missing, or waits for minutes.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from mnist_jax.files import Json

BEAT_SECONDS = 1.0
SILENCE_SECONDS = 15.0  # after which a process that sends nothing is given up
_MAX_LINE = 1 << 26
LOST = 75  # exit status where another process was lost (EX_TEMPFAIL of sysexits.h): the same again may succeed

OnFailure = Callable[["Channel", str, int], None]  # (the channel, what happened, exit status)


class Connection:
    """One end of a connection: values of JSON's types, a line each."""

    def __init__(self, connected: socket.socket):
        """Takes a connected socket."""
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket, self.file, self.lock = connected, connected.makefile("rb"), threading.Lock()
        self.heard = time.monotonic()
        self.position = [0, 0], 0.0  # how far the other process is, and for how many seconds it has been there
        self.said_bye, self.is_open = False, True

    def send(self, *message: Json) -> None:
        """Sends a value; what the other one no longer receives is lost."""
        with contextlib.suppress(OSError), self.lock:
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[Any]:
        """Receives a value; EOFError where there will be none."""
        try:
            line = self.file.readline(_MAX_LINE)
            message = json.loads(line)
        except (OSError, ValueError):
            raise EOFError from None
        if not isinstance(message, list) or not message:
            raise EOFError
        self.heard = time.monotonic()
        return message


class Channel:
    """The connections of a process to the others, while they work together."""

    def __init__(self, index: int, connections: dict[int, Connection], stall_seconds: float, on_failure: OnFailure):
        """Starts to listen.

        Args:
          index: of this process.
          connections: from other processes' numbers.
          stall_seconds: after which a process that does not go on, while it should, is given up.
          on_failure: called once, from a thread, when another process failed.
        """
        self.index, self.connections, self.stall_seconds = index, connections, stall_seconds
        self.on_failure = on_failure
        self.is_active = True  # whether the others need this process
        self.has_failed = self.has_failed_itself = False
        self.position, self.since = [0, 0], time.monotonic()  # calls of gather, and of advance since then
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._values: dict[int, dict[int, Json]] = {}
        self._gathered: dict[int, list[Any]] = {}
        self._calls = 0
        for other, connection in connections.items():
            connection.heard = self.since  # it may have waited for the last process for long
            threading.Thread(target=self._listen, args=(other, connection), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def advance(self) -> None:
        """Notes that this process goes on."""
        self.position, self.since = [self._calls, self.position[1] + 1], time.monotonic()

    def gather(self, value: Json) -> list[Any]:
        """Waits until every process has called this as often, and returns all their values, in their order."""
        call, self._calls = self._calls, self._calls + 1
        self.position, self.since = [self._calls, 0], time.monotonic()
        if self.index:
            self.connections[0].send("value", call, value)
        else:
            self._add(call, 0, json.loads(json.dumps(value)))
        with self._changed:
            self._changed.wait_for(lambda: call in self._gathered)
            self.advance()
            return self._gathered.pop(call)

    def fail(self, reason: str, status: int) -> None:
        """Tells the others that this process failed, so that they end too."""
        with self._lock:
            self.has_failed = self.has_failed_itself = True
        self._tell("failed", reason, status)

    def close(self) -> None:
        """Tells the others that this process has done its part."""
        self.is_active = False
        self._tell("bye")

    def _add(self, call: int, index: int, value: Json) -> None:
        with self._changed:
            values = self._values.setdefault(call, {})
            values[index] = value
            if len(values) <= len(self.connections):
                return
            gathered = [value for _, value in sorted(self._values.pop(call).items())]
            self._gathered[call] = gathered
            self._changed.notify_all()
        self._tell("gathered", call, gathered)

    def _tell(self, *message: Json) -> None:
        for connection in self.connections.values():
            connection.send(*message)

    def _listen(self, other: int, connection: Connection) -> None:
        while True:
            try:
                kind, *values = connection.receive()
            except EOFError:
                connection.is_open = False
                if self.is_active or not connection.said_bye:
                    self._give_up(f"process {other} was lost: it ended, or was killed", LOST)
                return
            if kind == "beat":
                connection.position = values[0], values[1]
            elif kind == "value":
                self._add(values[0], other, values[1])
            elif kind == "gathered":
                with self._changed:
                    self._gathered[values[0]] = values[1]
                    self._changed.notify_all()
            elif kind == "failed":
                # Where process 0 passes on what it saw of another one, the text names that one.
                self._give_up(*values)
            elif kind == "bye":
                connection.said_bye = True
                if self.is_active and other:  # process 0 may be done before its word arrives
                    time.sleep(5)
                    if self.is_active:
                        self._give_up(f"process {other} ended before the run did", LOST)
                        return

    def _beat(self) -> None:
        last = time.monotonic()
        while True:
            time.sleep(BEAT_SECONDS)
            now = time.monotonic()
            self._tell("beat", self.position, now - self.since)
            if now - last > 5 * BEAT_SECONDS:  # this process was stopped: what the others sent is still to be read
                for connection in self.connections.values():
                    connection.heard = now
            last = now
            for other, connection in self.connections.items():
                if now - connection.heard > SILENCE_SECONDS and not connection.said_bye:
                    self._give_up(
                        f"process {other} has been silent for {SILENCE_SECONDS:g} s: it is stopped, or its machine or "
                        "network is gone",
                        LOST,
                    )
            if self.index == 0 and self.is_active:
                self._watch(now)

    def _watch(self, now: float) -> None:
        """Finds a process that is alive but stands still: of all, the one that is not as far as the others."""
        positions = {0: (self.position, now - self.since)}
        positions |= {other: one.position for other, one in self.connections.items()}
        if min(seconds for _, seconds in positions.values()) > self.stall_seconds:
            last = min(positions, key=lambda index: positions[index][0])
            are_alike = all(position == positions[last][0] for position, _ in positions.values())
            what = "no process has gone on" if are_alike else f"process {last} has not gone on"
            self._give_up(f"{what} for {self.stall_seconds:g} s", LOST)

    def _give_up(self, reason: str, status: int) -> None:
        with self._lock:
            if self.has_failed:
                return
            self.has_failed = True
        self._tell("failed", reason, status)
        self.on_failure(self, reason, status)

    def wait_for_the_others(self, timeout: float) -> None:
        """Waits, in process 0, until the others have ended: JAX ends them noisily where process 0 ends first."""
        deadline = time.monotonic() + timeout
        while self.index == 0 and time.monotonic() < deadline and any(one.is_open for one in self.connections.values()):
            time.sleep(0.02)
