"""How the processes of a run find each other: process 0 listens at the coordinator's address, the others connect.

Whoever can connect is trusted, as by JAX's own service: use it inside a private network.
"""

import errno
import socket
import time
from collections.abc import Iterable
from typing import Any, NoReturn

from mnist_jax.channel import Connection
from mnist_jax.errors import ConfigError
from mnist_jax.files import Json


def _split_address(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise ConfigError(f"coordinator={address}: must be HOST:PORT of process 0, or auto")
    return host.strip("[]"), int(port)


def _listen(address: str) -> socket.socket:
    host, port = _split_address(address)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server(("", port), family=family, backlog=1024)
    except OSError as error:
        why = "the port is in use; choose another" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise ConfigError(f"coordinator={address}: can't listen there: {why}") from None


def free_port() -> int:
    """Finds a port that nobody listens at."""
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def _refusal(hello: Json, size: int, versions: Json, there: Any) -> str:
    """Why a process can't take part; empty where it can."""
    if (
        not isinstance(hello, dict)
        or type(hello.get("index")) is not int
        or not isinstance(hello.get("versions"), dict)
    ):
        return "coordinator: something else than a process of this run connected"
    index = hello["index"]
    if hello.get("size") != size:
        return f"num_processes={hello.get('size')}: of process {index}, but {size} of process 0; they must be the same"
    if index in there or index == 0:
        return f"process_id={index}: of two processes; each needs its own, from 0 to {size - 1}"
    for name in {**versions, **hello["versions"]}:
        one, other = hello["versions"].get(name), versions.get(name)
        if one != other:
            return f"process {index} has {name} {one}, process 0 has {name} {other}; install the same versions"
    return ""


def _refuse(connections: Iterable[Connection], reason: str) -> NoReturn:
    for connection in connections:
        connection.send("refused", reason)
    raise ConfigError(reason)


def accept(address: str, size: int, versions: Json, timeout: float, welcome: Json) -> dict[int, Connection]:
    """Waits, as process 0, for all others.

    Args:
      address: HOST:PORT to listen at.
      size: number of processes.
      versions: what must be the same in all of them.
      timeout: seconds to wait.
      welcome: what to send to each, once all are there.

    Returns:
      From the other processes' numbers to their connections.

    Raises:
      ConfigError: the port is in use, some did not come, or one does not fit; those that came get the reason.
    """
    there: dict[int, Connection] = {}
    deadline = time.monotonic() + timeout
    with _listen(address) as listener:
        while len(there) < size - 1:
            listener.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connected, _ = listener.accept()
                connected.settimeout(10)
                newcomer = Connection(connected)
                hello = newcomer.receive()[0]
            except TimeoutError:
                missing = ", ".join(str(index) for index in range(1, size) if index not in there)
                _refuse(there.values(), f"coordinator={address}: process {missing} did not come within {timeout:g} s")
            except EOFError:  # a port scanner
                continue
            if reason := _refusal(hello, size, versions, there):
                _refuse([*there.values(), newcomer], reason)
            there[hello["index"]] = newcomer
    for other in there.values():
        other.socket.settimeout(None)
        other.send("welcome", welcome)
    return there


def connect(address: str, index: int, size: int, versions: Json, timeout: float) -> tuple[Connection, Any]:
    """Connects to process 0, and waits until all are there.

    Args:
      address: HOST:PORT where it listens.
      index: of this process.
      size: number of processes.
      versions: what must be the same in all of them.
      timeout: seconds to wait.

    Returns:
      The connection, and what process 0 sends to all.

    Raises:
      ConfigError: it does not answer, or refuses.
    """
    host, port = _split_address(address)
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection = Connection(socket.create_connection((host, port), timeout=3))
            break
        except OSError as error:
            if time.monotonic() > deadline:
                why = error.strerror or str(error)
                raise ConfigError(
                    f"coordinator={address}: no answer within {timeout:g} s ({why}); is process 0 running there?"
                ) from None
            time.sleep(0.2)
    connection.send({"index": index, "size": size, "versions": versions})
    connection.socket.settimeout(max(deadline - time.monotonic(), 1) + 10)  # process 0 gives up first
    try:
        kind, value = connection.receive()
    except (EOFError, ValueError):
        raise ConfigError(
            f"coordinator={address}: what listens there is no process 0 of such a run, or it ended"
        ) from None
    if kind != "welcome":
        raise ConfigError(str(value))
    connection.socket.settimeout(None)
    return connection, value
