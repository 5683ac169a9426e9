"""The devices of a run as a mesh, and what lies where on it: batches, data and state.

A batch is split over the axis `data`, wide dense layers over the axis `model`; everything else is on every device. The
compiler inserts the communication (https://docs.jax.dev/en/latest/sharded-computation.html): for `data`, one
all-reduce of the gradients per step, those of batch norm, and one that collects the batch's images from the devices
that hold them.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from mnist_jax.errors import ConfigError, suggest_name
from mnist_jax.types import PyTree

logger = logging.getLogger("mnist_jax")

DATA, MODEL = "data", "model"
AXES = (DATA, MODEL)
_MIN_SPLIT = 2**16  # elements of an array that is worth splitting over `model`
T = TypeVar("T")


def has_mesh() -> bool:
    """Says whether this is traced for a mesh of devices, which jax.set_mesh set."""
    return not jax.sharding.get_abstract_mesh().empty


def batch_shards() -> int:
    """Returns over how many devices batches are split where this is traced; 1 without a mesh."""
    return dict(jax.sharding.get_abstract_mesh().shape).get(DATA, 1)


def shard_batch(batch: T) -> T:
    """Splits a batch over the mesh that jax.set_mesh set; without one it changes nothing.

    Args:
      batch: a pytree of arrays [B, ...].

    Returns:
      The same; each device holds B / batch_shards() rows.
    """
    return jax.lax.with_sharding_constraint(batch, PartitionSpec(DATA)) if batch_shards() > 1 else batch


def parse_mesh(text: str) -> dict[str, int]:
    """Reads the sizes of a mesh.

    Args:
      text: such as data:4,model:2; empty for none.

    Returns:
      From axes to sizes.

    Raises:
      ConfigError: it is no mesh.

    >>> parse_mesh("data:4,model:2")
    {'data': 4, 'model': 2}
    """
    sizes: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        axis, _, size = part.partition(":")
        if axis not in AXES:
            raise ConfigError(
                f"mesh={text}: {axis!r} is no axis; {suggest_name(axis, AXES)}, as in mesh=data:4,model:2"
            )
        if axis in sizes or not size.isascii() or not size.isdigit() or int(size) < 1:
            raise ConfigError(f"mesh={text}: each axis has one size, as in mesh=data:4,model:2")
        sizes[axis] = int(size)
    return sizes


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the arrays of a run lie: on one device, or on a mesh of them."""

    devices: tuple[jax.Device, ...]  # of all processes
    mesh: Mesh | None = None  # None for one device

    @property
    def device(self) -> jax.Device:
        """The first device of this process."""
        return next(one for one in self.devices if one.process_index == jax.process_index())

    @property
    def num_shards(self) -> int:
        """Devices that a batch is split over."""
        return self.shape[DATA]

    @property
    def shape(self) -> dict[str, int]:
        """From axes to sizes."""
        return dict(self.mesh.shape) if self.mesh else {DATA: 1}

    def __str__(self) -> str:
        return ",".join(f"{axis}:{size}" for axis, size in self.shape.items())

    def describe(self) -> str:
        """Describes the devices, for a message."""
        return f"{self.device.platform} ({self} devices)" if self.mesh else self.device.platform

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """Makes this the place of what is traced and computed."""
        return jax.set_mesh(self.mesh) if self.mesh else jax.default_device(self.device)

    def sharding(self, *axes: str | None) -> jax.sharding.Sharding:
        """Returns the sharding whose dimensions are split over these axes of the mesh; none: on every device."""
        return NamedSharding(self.mesh, PartitionSpec(*axes)) if self.mesh else SingleDeviceSharding(self.device)

    def _axes_of(self, shape: tuple[int, ...]) -> tuple[str | None, ...]:
        """Over which axis each dimension of a state's array is split: by the shape, which optimizers' arrays share."""
        size = self.shape.get(MODEL, 1)
        if size == 1 or len(shape) not in (1, 2) or np.prod(shape) < _MIN_SPLIT:
            return ()
        widest = len(shape) - 1 if shape[-1] >= shape[0] else 0
        return () if shape[widest] % size else (None,) * widest + (MODEL,)

    def place_state(self, shapes: PyTree) -> PyTree:
        """Says where a state lies: dense layers of at least 65,536 weights are split along their wider dimension.

        Args:
          shapes: of a state, as jax.eval_shape returns them.

        Returns:
          The same with shardings.
        """
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=self.sharding(*self._axes_of(leaf.shape))
            ),
            shapes,
        )

    def fetch(self, tree: PyTree) -> PyTree:
        """Collects arrays, wherever they lie; all processes must call it.

        Args:
          tree: of arrays on the mesh.

        Returns:
          NumPy arrays.
        """
        if self.mesh:
            tree = jax.jit(lambda tree: tree, out_shardings=self.sharding())(tree)
        return jax.device_get(tree)

    def put_rows(self, array: np.ndarray, rows: np.ndarray) -> jax.Array:
        """Puts rows of an array on the devices, each holding its part of them; a process reads only its own.

        Args:
          array: [N, ...], in memory or in a file.
          rows: [M] int: which of them, in this order.

        Returns:
          [M', ...], where zeros pad M to a multiple of the number of devices.
        """
        if not self.mesh:
            return jax.device_put(array[rows], self.device)
        count = -(-len(rows) // self.num_shards) * self.num_shards

        def part(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(count)
            held = array[rows[start:stop]]
            return np.concatenate([held, np.zeros((stop - start - len(held), *array.shape[1:]), array.dtype)])

        return jax.make_array_from_callback((count, *array.shape[1:]), self.sharding(DATA), part)


def _check_batch(batch_size: int, sizes: dict[str, int], mesh: str) -> None:
    shards = sizes.get(DATA, 1)
    if batch_size % shards:
        nearest = max(round(batch_size / shards), 1) * shards
        raise ConfigError(
            f"batch_size={batch_size}: can't be divided among {shards} devices (mesh={mesh}); the nearest that can is "
            f"batch_size={nearest}"
        )


def make_placement(devices: Sequence[jax.Device], mesh: str, batch_size: int) -> Placement:
    """Arranges devices as a mesh.

    Args:
      devices: of all processes.
      mesh: such as data:4,model:2; empty for all devices in `data`, or, in one process, as many as divide the batch.
      batch_size: examples per step.

    Returns:
      Where a run's arrays lie.

    Raises:
      ConfigError: there are fewer devices, devices of some process would have no part, or they do not divide the batch.
    """
    sizes, one_process = parse_mesh(mesh), all(one.process_index == devices[0].process_index for one in devices)
    if not sizes:
        sizes = {DATA: len(devices)}
        if one_process:
            sizes = {DATA: max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)}
            if sizes[DATA] < len(devices):
                logger.info("batch_size=%d: divided among %d of %d devices", batch_size, sizes[DATA], len(devices))
    mesh = mesh or f"{DATA}:{sizes[DATA]}"
    count = int(np.prod([*sizes.values()]))
    if count > len(devices) or (count < len(devices) and not one_process):
        there = f"there {'is' if len(devices) == 1 else 'are'} {len(devices)}"
        raise ConfigError(f"mesh={mesh}: needs {count} devices, {there}; choose another mesh, or leave it out for all")
    _check_batch(batch_size, sizes, mesh)
    if count == 1:
        return Placement((devices[0],))
    sizes = {DATA: 1, **sizes}
    grid = np.array(devices[:count]).reshape(*sizes.values())
    return Placement((*devices[:count],), Mesh(grid, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes)))
