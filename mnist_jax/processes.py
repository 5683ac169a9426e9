"""The processes of one run: they start together, agree on what they do, and end together.

Every process runs the same program. JAX moves the arrays between them (jax.distributed); what Python decides, such as
where to stop, process 0 decides or all of them agree on, by a channel of our own.
"""

import atexit
import contextlib
import logging
import os
import pathlib
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax

from mnist_jax.channel import LOST, Channel
from mnist_jax.errors import ConfigError, MnistJaxError, summarize_exception
from mnist_jax.files import Json
from mnist_jax.options import RunOptions
from mnist_jax.rendezvous import accept, connect, free_port
from mnist_jax.report import versions

logger = logging.getLogger("mnist_jax")
T = TypeVar("T")
UNEXPECTED = 70  # exit status after an error that is not ours (EX_SOFTWARE of sysexits.h)
_joined: "list[Processes]" = []  # at most one, as of JAX's own processes, which can't be left and joined again


class Processes:
    """The processes of a run, as one of them sees them; by default it is alone."""

    def __init__(self, channel: Channel | None = None, size: int = 1):
        """Takes the channel to the others, and their number with this one."""
        self.channel, self.size, self.index = channel, size, channel.index if channel else 0

    @property
    def is_first(self) -> bool:
        """Whether this is process 0, which alone writes, locks and reports."""
        return self.index == 0

    def advance(self) -> None:
        """Notes that this process goes on; one that does not for long is given up."""
        if self.channel:
            self.channel.advance()

    def gather(self, value: Json) -> list[Any]:
        """Collects a value of JSON's types of every process, in their order; all must call it."""
        return self.channel.gather(value) if self.channel else [value]

    def first(self, function: Callable[[], T]) -> T:
        """Calls a function in process 0 only, and returns its value, of JSON's types, in all; all must call it."""
        value = function() if self.is_first else None
        return self.gather(value)[0] if self.channel else value  # type: ignore[return-value]

    def check_same(self, what: dict[str, Json]) -> None:
        """Refuses processes that disagree.

        Args:
          what: must be the same in all, by name.

        Raises:
          ConfigError: in all of them; it names a process and in what it differs.
        """
        first, *others = self.gather(what)
        for index, other in enumerate(others, start=1):
            for name in {**first, **other}:
                one, another = first.get(name), other.get(name)
                if one != another:
                    raise ConfigError(
                        f"{name}: is {str(one)[:60]} in process 0, {str(another)[:60]} in process {index}; give all "
                        "the same"
                    )

    def check_shared(self, workdir: pathlib.Path) -> None:
        """Refuses a folder that process 0 has made and not all processes see.

        Args:
          workdir: the folder; process 0 can write it.

        Raises:
          ConfigError: in all processes.
        """
        if not self.channel:
            return
        token = self.first(lambda: secrets.token_hex(8))
        path = workdir / f".{token}.json.0"  # removed with what a killed run left
        self.first(path.touch)
        deadline = time.monotonic() + 10  # a network's file system shows new files late
        while not (sees_it := path.exists()) and time.monotonic() < deadline:
            time.sleep(0.2)
        sees = self.gather(sees_it)
        self.first(path.unlink)
        if not all(sees):
            raise ConfigError(
                f"workdir={workdir}: process {sees.index(False)} does not see what process 0 writes there; choose a "
                "folder that all of them share"
            )

    @contextlib.contextmanager
    def taking_part(self) -> Iterator[None]:
        """Tells the others where the block ends by an exception, so that they end too."""
        if not self.channel:
            yield
            return
        self.channel.is_active = True
        try:
            yield
            self.gather("done")
        except BaseException as error:
            is_ours = isinstance(error, MnistJaxError)
            if not is_ours:
                time.sleep(2)  # if it follows from the loss of another process, the channel ends this one
                while self.channel.has_failed:
                    time.sleep(1)
            status = error.exit_status if isinstance(error, MnistJaxError) else UNEXPECTED
            reason = str(error) if is_ours else f"{type(error).__name__}: {summarize_exception(error)}"
            self.channel.fail(f"process {self.index}: {reason}", status)
            atexit.register(_end, status)
            atexit.register(self.channel.wait_for_the_others, 2)
            raise
        self.channel.is_active = False


def _end(status: int) -> None:
    """Ends the process without JAX's own good-bye, which waits for processes that have ended."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _on_failure(channel: Channel, reason: str, status: int) -> None:
    if status != LOST:
        time.sleep(0.5)  # this process may be about to say the same by itself
    if not channel.has_failed_itself:
        logger.error("%s", reason)
        channel.wait_for_the_others(2)
        _end(status)


def _find_cluster(options: RunOptions) -> tuple[str, int, int, Any]:
    """Address, number of processes, number of this one and its devices; from the environment what is not given."""
    from jax._src.clusters import ClusterEnv  # as jax.distributed.initialize does

    address = None if options.coordinator == "auto" else options.coordinator
    size = options.num_processes or None
    index = options.process_id if options.process_id >= 0 else None
    devices = None
    if None in (address, size, index):
        try:
            found = ClusterEnv.auto_detect_unset_distributed_params(
                address, size, index, None, None, int(options.join_timeout)
            )
            address, size, index, devices = found
        except Exception as error:  # of whatever the environment lacks
            raise ConfigError(f"coordinator=auto: {summarize_exception(error)}") from None
    for name, value in (("coordinator", address), ("num_processes", size), ("process_id", index)):
        if value is None:
            raise ConfigError(
                f"{name}: is not given, and not found in the environment of Slurm, Open MPI, Kubernetes or Cloud TPU; "
                "name it"
            )
    assert address is not None and size is not None and index is not None
    if not 0 <= index < size:
        raise ConfigError(f"process_id={index}: must be from 0 to {size - 1} (num_processes={size})")
    return address, size, index, devices


def join(options: RunOptions) -> Processes:
    """Joins the processes of a run, before JAX uses a device.

    Args:
      options: its coordinator, num_processes and process_id; without a coordinator this process is alone.

    Returns:
      The processes; the same again at a second call.

    Raises:
      ConfigError: an option is missing or wrong, some process does not come in time, or they don't fit each other.
    """
    if not options.coordinator:
        if options.num_processes > 1 or options.process_id > 0:
            raise ConfigError("coordinator=: name HOST:PORT of process 0, or auto")
        return Processes()
    if _joined:
        return _joined[0]
    address, size, index, devices = _find_cluster(options)
    host = address.rpartition(":")[0]
    same, timeout = versions(), options.join_timeout
    if index == 0:
        port = free_port()
        connections = accept(address, size, same, timeout, port)
    else:
        connection, port = connect(address, index, size, same, timeout)
        connections = {0: connection}
    channel = Channel(index, connections, options.stall_timeout, _on_failure)
    try:
        with contextlib.suppress(AttributeError):  # of a version without this service, which only makes noise here
            jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(
            f"{host}:{port}",
            size,
            index,
            local_device_ids=devices,
            cluster_detection_method="deactivate",
            initialization_timeout=int(timeout),
            heartbeat_timeout_seconds=100,  # ours are quicker, and end a process in one line
            shutdown_timeout_seconds=30,
        )
    except Exception as error:
        reason = f"coordinator={address}: JAX's processes can't connect: {summarize_exception(error)}"
        channel.fail(reason, LOST)
        atexit.register(_end, LOST)
        raise ConfigError(reason) from None
    atexit.register(channel.close)
    if index:
        logger.setLevel(logging.WARNING)
    _joined.append(Processes(channel, size))
    return _joined[0]
