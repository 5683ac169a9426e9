"""Save and restore any pytree of arrays and PRNG keys, such as a TrainState, with orbax.

A checkpoint is a folder: orbax's files, and a manifest with the SHA-256 of each of them, so that a damaged one is
recognized before any of it is used. It appears completely or not at all. orbax's CheckpointManager has neither the
digests nor the one rename, and deletes by age alone, where the best on validation must stay.
"""

import concurrent.futures
import errno
import hashlib
import json
import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax.errors import DataError, summarize_exception
from mnist_jax.files import read_json, utf8_path
from mnist_jax.types import Array, PyTree, Record, TrainState
from mnist_jax.workdir import is_disk_full

MANIFEST = "manifest.json"
FORMAT = 3  # of the manifest and of the array's names; others are not read


def _is_key(leaf: PyTree) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key)


def _to_arrays(tree: PyTree) -> dict[str, PyTree]:
    """From each leaf's place in the tree to its array; a key becomes the integers that it is made of."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path) for path, _ in leaves]
    return {
        f"{number:05d}{name}": jax.random.key_data(leaf) if _is_key(leaf) else leaf
        for number, (name, (_, leaf)) in enumerate(zip(names, leaves, strict=True))
    }


def _is_elsewhere(leaf: PyTree) -> bool:
    """Whether other processes hold parts of an array, which they write themselves."""
    return isinstance(leaf, jax.Array) and not leaf.is_fully_addressable


def _to_host(leaf: PyTree) -> Array:
    if _is_elsewhere(leaf):
        return leaf
    array = np.asarray(leaf)
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)  # a Python float is no float64 to JAX


def _copy(leaf: PyTree) -> PyTree:
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.array(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    return jnp.copy(leaf) if _is_elsewhere(leaf) else np.array(leaf)


def _key_impls(tree: PyTree) -> list[str]:
    impls: list[str] = []

    def collect(tree: PyTree) -> None:
        impls.extend(str(jax.random.key_impl(leaf)) for leaf in jax.tree.leaves(tree) if _is_key(leaf))

    jax.eval_shape(collect, tree)  # of a ShapeDtypeStruct JAX tells the kind of key only while it traces
    return impls


def _sharding_of(leaf: PyTree) -> jax.sharding.Sharding:
    """Where a target says that its array lies; the first device where it says nothing."""
    return getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def _check_shape_dtype(name: str, saved: jax.ShapeDtypeStruct, target: jax.ShapeDtypeStruct) -> None:
    if tuple(saved.shape) != target.shape or saved.dtype != target.dtype:
        raise ValueError(f"{name[5:]} is {saved.dtype}{list(saved.shape)}, expected {target.dtype}{list(target.shape)}")


def _digests(folder: pathlib.Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise ValueError(f"{path.name} is a symbolic link")
        if path.is_file() and path != folder / MANIFEST:
            with path.open("rb") as file:
                digests[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _manifest_digest(manifest: Record) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _remove(path: pathlib.Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _sync(folder: pathlib.Path) -> None:
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def save_state(path: str | os.PathLike[str], state: PyTree, metadata: Record | None = None) -> None:
    """Writes a state; the folder appears completely or not at all.

    Several processes of jax.distributed all call it, and each writes its part; process 0 completes the folder.

    Args:
      path: a folder, replaced if it exists.
      state: a pytree of arrays, numbers and typed PRNG keys; its dtypes become JAX's.
      metadata: of JSON's types; read_metadata returns it.

    Raises:
      DataError: it can't be written, such as on a full disk; what was there before stays.
    """
    import orbax.checkpoint as ocp

    path = pathlib.Path(path).absolute()
    arrays = {name: _to_host(leaf) for name, leaf in _to_arrays(state).items()}
    one_process = jax.process_count() == 1
    tmp_name = f".{path.name}.{os.getpid() if one_process else 0}"  # the same in all
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(path.parent).free
        if free_bytes < 2 * sum(array.nbytes for array in arrays.values()) + (1 << 20):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # orbax's threads would report it over many lines
        for attempt in range(2):
            tmp = path.with_name(f"{tmp_name}.{attempt}")
            try:
                with utf8_path(tmp) as target, ocp.StandardCheckpointer() as checkpointer:
                    checkpointer.save(target, arrays, force=True)
                break
            except TimeoutError:  # orbax waits by the wall clock, which may have been set
                if attempt or not one_process:
                    raise
        if jax.process_index():
            return
        manifest = {"format": FORMAT, "metadata": metadata or {}, "files": _digests(tmp), "keys": _key_impls(state)}
        (tmp / MANIFEST).write_text(json.dumps(manifest | {"sha256": _manifest_digest(manifest)}) + "\n")
        _sync(tmp)
        _remove(path)
        tmp.rename(path)
    except Exception as error:  # orbax raises many kinds, over many lines
        if not (one_process or isinstance(error, OSError)):
            raise  # another process was lost
        for leftover in path.parent.glob(f"{tmp_name}.*"):
            _remove(leftover)
        reason = getattr(error, "strerror", None) or summarize_exception(error).rpartition(": ")[2]
        advice = "make room, and start" if is_disk_full(error) else "start"
        raise DataError(f"{path}: can't be written ({reason}); {advice} the same run again") from None


def _read_manifest(path: pathlib.Path) -> Record:
    if not path.is_dir():
        raise DataError(f"{path}: no such checkpoint; run the experiment again")
    try:
        if path.is_symlink() or (path / MANIFEST).is_symlink():
            raise ValueError("a symbolic link")
        if (path / MANIFEST).exists() and not (path / MANIFEST).is_file():
            raise ValueError("its manifest is not a file")
        manifest = read_json(path / MANIFEST)
        digest = manifest.pop("sha256")
        if manifest["format"] != FORMAT:
            raise DataError(f"{path}: a checkpoint of another version of mnist_jax; run the experiment again")
        if digest != _manifest_digest(manifest) or manifest["files"] != _digests(path):
            raise ValueError("its files are not those that were written")
        if not isinstance(manifest["metadata"], dict) or not isinstance(manifest["keys"], list):
            raise ValueError("its manifest is incomplete")
        return manifest
    except DataError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: a damaged checkpoint ({str(error)[:80]}); run the experiment again") from None


def read_metadata(path: str | os.PathLike[str]) -> Record:
    """Reads the metadata of a checkpoint, after every file was found as it was written.

    Args:
      path: a folder that save_state wrote.

    Returns:
      Its metadata.

    Raises:
      DataError: the checkpoint is missing, damaged or of another version.
    """
    return _read_manifest(pathlib.Path(path).absolute())["metadata"]


def restore_state(path: str | os.PathLike[str], target: PyTree) -> PyTree:
    """Reads a state.

    Args:
      path: a folder that save_state wrote.
      target: a pytree of the same structure, shapes and dtypes, such as init_state or jax.eval_shape of it returns.
        Where its leaves have shardings, on one device or many, the state gets them; it may have been saved from others.

    Returns:
      The saved state, equal bit for bit, in the target's structure.

    Raises:
      DataError: the checkpoint is missing, damaged or of another network, kind of key or version.
    """
    import orbax.checkpoint as ocp

    path = pathlib.Path(path).absolute()
    manifest = _read_manifest(path)
    arrays = {
        name: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=_sharding_of(leaf))
        for (name, shape), leaf in zip(jax.eval_shape(_to_arrays, target).items(), jax.tree.leaves(target), strict=True)
    }
    try:
        if manifest["keys"] != (impls := _key_impls(target)):
            raise ValueError(f"its PRNG keys are {manifest['keys']}, expected {impls}")
        with utf8_path(path) as source, ocp.StandardCheckpointer() as checkpointer:
            saved_shapes = dict(checkpointer.metadata(source).item_metadata.tree)
            if saved_shapes.keys() != arrays.keys():
                different = sorted(name[5:] for name in saved_shapes.keys() ^ arrays.keys())
                raise ValueError(f"its arrays have other names, such as {different[0]}")
            for name, saved_shape in saved_shapes.items():  # before memory is allocated
                _check_shape_dtype(name, saved_shape, arrays[name])
            saved = checkpointer.restore(source, arrays)
    except Exception as error:  # orbax raises many kinds, over many lines
        if jax.process_count() > 1:
            raise  # another process was lost, as what is damaged was found before
        raise DataError(f"{path}: not a checkpoint of this network ({summarize_exception(error)})") from None
    leaves = [
        jax.random.wrap_key_data(array, impl=impls.pop(0)) if _is_key(leaf) else array
        for array, leaf in zip(saved.values(), jax.tree.leaves(target), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(target), leaves)


class Checkpoints:
    """The checkpoints of one seed, a folder per step; a thread writes them, one at a time, while training continues."""

    def __init__(self, folder: pathlib.Path, max_to_keep: int):
        """Args: folder, made if missing; max_to_keep, how many of the newest stay, beside the best on validation."""
        self.folder, self.max_to_keep = folder, max_to_keep
        self.thread = concurrent.futures.ThreadPoolExecutor(1)
        self.future: concurrent.futures.Future[None] | None = None

    def steps(self) -> list[int]:
        """Lists the steps that have a checkpoint, the newest first."""
        names = (path.name for path in self.folder.glob("[0-9]*"))
        return sorted((int(name) for name in names if name.isascii() and name.isdigit()), reverse=True)

    def save(self, state: TrainState, metadata: Record) -> None:
        """Starts writing a state, once the previous one is written.

        Args:
          state: what to save; it is copied first, since the next step may reuse its memory.
          metadata: for save_state; its `best_step`, where it has one, names a step that stays.

        Raises:
          DataError: the previous one could not be written.
        """
        self.wait()
        self.future = self.thread.submit(self._write, jax.tree.map(_copy, state), metadata)
        if jax.process_count() > 1:  # orbax computes on all devices too, which must not meet a step on its way
            self.wait()

    def wait(self) -> None:
        """Waits for the state that is being written.

        Raises:
          DataError: it could not be written.
        """
        future, self.future = self.future, None
        if future:
            future.result()

    def close(self) -> None:
        """Ends the thread, after what it is writing."""
        self.thread.shutdown()

    def _write(self, state: TrainState, metadata: Record) -> None:
        save_state(self.folder / str(int(state.step)), state, metadata)
        reached = [step for step in self.steps() if step <= int(state.step)]  # a later one was found damaged
        for step in reached[self.max_to_keep :]:
            if step != metadata.get("best_step"):
                _remove(self.folder / str(step))
