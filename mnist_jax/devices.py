"""The device that a process computes on: which one, how much memory it has, and the programs compiled for it."""

import contextlib
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import jax

from mnist_jax.errors import ConfigError
from mnist_jax.files import DEFAULT_DATA_DIR, check_writable, expand_user, has_home

_config: Any = jax.config  # whose options have no types in some versions
_ADVICE = "choose a smaller batch or network, or compute fewer images at a time with microbatch_size"


def choose_devices(platform: str) -> list[jax.Device]:
    """Chooses the devices to compute on.

    Args:
      platform: cpu, gpu or tpu; empty for JAX's own choice.

    Returns:
      The platform's devices, of all processes.

    Raises:
      ConfigError: there is none.
    """
    previous = _config.jax_platforms
    try:
        if platform:  # has no effect after JAX has started: then only the next line counts
            _config.update("jax_platforms", platform)
        return jax.devices(platform or None)
    except (RuntimeError, AssertionError):  # the latter where JAX lacks the platform's plugin
        _config.update("jax_platforms", previous)
        raise ConfigError(
            f"platform={platform}: JAX finds no such platform here; leave it out, or install jax for it"
        ) from None


def choose_device(platform: str) -> jax.Device:
    """Chooses one device to compute on: the first of choose_devices."""
    return choose_devices(platform)[0]


def enable_compilation_cache() -> None:
    """Makes JAX keep compiled programs in the user's cache, for the whole process; JAX's own variables take precedence.

    Where there is no home directory, or it can't be written, nothing is kept.

    Source: https://docs.jax.dev/en/latest/persistent_compilation_cache.html
    """
    if _config.jax_compilation_cache_dir is None and has_home():
        folder = expand_user(DEFAULT_DATA_DIR) / "compiled"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            check_writable(folder)
            _config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        _config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    warnings.filterwarnings("ignore", message=".*persistent compilation cache")  # an unreadable one is written again


def free_memory(cgroup: pathlib.Path = pathlib.Path("/sys/fs/cgroup")) -> int:
    """Returns the bytes that this process can still allocate on the host.

    Args:
      cgroup: folder of the control group, version 2.

    Returns:
      What the machine has available, or what a container's limit leaves of it.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html#memory
    """
    import psutil

    free = psutil.virtual_memory().available
    try:
        limit, used, stat = ((cgroup / f"memory.{name}").read_text() for name in ("max", "current", "stat"))
        reclaimable = dict(line.split() for line in stat.splitlines())["inactive_file"]  # cached files
        return min(free, int(limit) - int(used) + int(reclaimable))
    except (OSError, ValueError, KeyError):  # no such group, or no limit
        return free


def check_memory(program: jax.stages.Compiled, device: jax.Device, batch_size: int) -> None:
    """Compares what a compiled epoch needs with the memory that is free, before it runs.

    Args:
      program: the epoch.
      device: the device that it is compiled for.
      batch_size: for the message.

    Raises:
      ConfigError: it needs more.
    """
    needs, memory_stats = program.memory_analysis(), device.memory_stats()
    assert needs is not None  # every backend that we know has it
    # The devices of a CPU share its memory.
    free = (
        memory_stats["bytes_limit"] - memory_stats["bytes_in_use"]
        if memory_stats
        else free_memory() // jax.local_device_count()
    )
    bytes_needed = needs.temp_size_in_bytes + needs.argument_size_in_bytes + needs.output_size_in_bytes
    bytes_needed -= needs.alias_size_in_bytes  # the new state takes the donated state's place
    if bytes_needed > free:
        raise ConfigError(
            f"batch_size={batch_size}: an epoch needs {bytes_needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} "
            f"are free; {_ADVICE}"
        )


@contextlib.contextmanager
def oom_as_config_error(batch_size: int) -> Iterator[None]:
    """Turns the device's out-of-memory error into one line.

    Args:
      batch_size: for the message.

    Raises:
      ConfigError: the device ran out of memory.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise ConfigError(f"batch_size={batch_size}: the device ran out of memory; {_ADVICE}") from None
