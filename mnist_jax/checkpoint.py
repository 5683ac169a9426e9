"""Save and restore a TrainState, with orbax; its keys are stored as the integers they are made of.

A checkpoint is a folder: orbax's files, and MANIFEST with the SHA-256 of each of them, so that a damaged one is told
from a whole one before any of it is believed. It appears whole or not at all.
"""

import concurrent.futures
import errno
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any

import jax
import numpy as np

from mnist_jax.errors import DataError, first_line
from mnist_jax.files import read_json
from mnist_jax.types import TrainState

MANIFEST = "manifest.json"
FORMAT = 2  # of the manifest; another one is not read


def _same_kind(saved: jax.Array, wanted: jax.Array) -> None:
    if saved.shape != wanted.shape or saved.dtype != wanted.dtype:
        raise ValueError(f"{saved.dtype}{list(saved.shape)} where {wanted.dtype}{list(wanted.shape)} is wanted")


def _refuse_other_sizes(saved: Any, wanted: Any) -> None:
    sizes = [sorted((leaf.dtype.name, leaf.shape) for leaf in jax.tree.leaves(tree)) for tree in (saved, wanted)]
    if sizes[0] != sizes[1]:
        raise ValueError("its arrays are of other sizes")


def _digests(folder: pathlib.Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise ValueError(f"{path.name} is a symbolic link")
        if path.is_file() and path != folder / MANIFEST:
            with path.open("rb") as file:
                digests[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _seal(manifest: dict[str, Any]) -> str:
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


def save_state(path: str | os.PathLike, state: TrainState, about: dict[str, Any] | None = None) -> None:
    """Writes a state; the folder appears whole or not at all.

    Args:
      path: a folder, replaced if it is there.
      state: what to save.
      about: what else there is to say, of JSON's types; read_about gives it back.

    Raises:
      DataError: it can't be written, such as on a full disk; what was there before stays.
    """
    import orbax.checkpoint as ocp

    path = pathlib.Path(path).absolute()
    begun = f".{path.name}.{os.getpid()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        room = shutil.disk_usage(path.parent).free
        if room < 2 * sum(leaf.nbytes for leaf in jax.tree.leaves((state.params, state.opt_state))) + (1 << 20):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # orbax's threads tell it over many lines
        for attempt in range(2):
            aside = path.with_name(f"{begun}.{attempt}")
            try:
                with ocp.StandardCheckpointer() as checkpointer:
                    checkpointer.save(aside, state._replace(key=jax.random.key_data(state.key))._asdict(), force=True)
                break
            except TimeoutError:  # orbax waits by the clock on the wall, which may have been set
                if attempt:
                    raise
        manifest = {"format": FORMAT, "about": about or {}, "files": _digests(aside)}
        (aside / MANIFEST).write_text(json.dumps(manifest | {"sha256": _seal(manifest)}) + "\n")
        _sync(aside)
        _remove(path)
        aside.rename(path)
    except Exception as error:  # orbax raises many kinds, over many lines
        for left in path.parent.glob(f"{begun}.*"):
            _remove(left)
        why = getattr(error, "strerror", None) or first_line(error).rpartition(": ")[2]
        raise DataError(f"{path}: can't be written ({why}); make room, and start the same run again") from None


def read_about(path: str | os.PathLike) -> dict[str, Any]:
    """Reads what save_state was told of a state, once every file has been found as it was written.

    Args:
      path: a folder that save_state wrote.

    Returns:
      Its `about`.

    Raises:
      DataError: the checkpoint is missing, damaged or of another version.
    """
    path = pathlib.Path(path).absolute()
    if not path.is_dir():
        raise DataError(f"{path}: no such checkpoint; run the experiment again")
    try:
        if path.is_symlink() or (path / MANIFEST).is_symlink():
            raise ValueError("a symbolic link")
        if (path / MANIFEST).exists() and not (path / MANIFEST).is_file():
            raise ValueError("its manifest is no file")
        manifest = read_json(path / MANIFEST)
        seal = manifest.pop("sha256")
        if manifest["format"] != FORMAT:
            raise DataError(f"{path}: a checkpoint of another version of mnist_jax; run the experiment again")
        if seal != _seal(manifest) or manifest["files"] != _digests(path):
            raise ValueError("its files are not the ones that were written")
        if not isinstance(manifest["about"], dict):
            raise ValueError("its manifest says nothing of it")
        return manifest["about"]
    except DataError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: a damaged checkpoint ({str(error)[:80]}); run the experiment again") from None


def restore_state(path: str | os.PathLike, like: TrainState) -> TrainState:
    """Reads a state back.

    Args:
      path: a folder that save_state wrote.
      like: a state of the same shapes and dtypes, such as init_state or jax.eval_shape of it gives.

    Returns:
      The saved state, equal bit for bit.

    Raises:
      DataError: the checkpoint is missing, damaged or of another network or version.
    """
    import orbax.checkpoint as ocp

    path = pathlib.Path(path).absolute()
    read_about(path)
    target = jax.eval_shape(lambda like: like._replace(key=jax.random.key_data(like.key))._asdict(), like)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), target)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            _refuse_other_sizes(checkpointer.metadata(path).item_metadata.tree, target)  # before memory is taken
            saved = checkpointer.restore(path, target)
        jax.tree.map(_same_kind, saved, target)
    except Exception as error:  # orbax raises many kinds, over many lines
        raise DataError(f"{path}: not a checkpoint of this network ({first_line(error)})") from None
    return TrainState(**{**saved, "key": jax.random.wrap_key_data(saved["key"])})


class Checkpoints:
    """A run's checkpoints, a folder a step; a thread writes them, one at a time, while training goes on."""

    def __init__(self, folder: pathlib.Path, keep: int):
        """Args: folder, made if missing; keep, how many of the newest stay, beside the best on validation."""
        self.folder, self.keep = folder, keep
        self.thread, self.pending = concurrent.futures.ThreadPoolExecutor(1), None

    def steps(self) -> list[int]:
        """Lists the steps there are, the newest first."""
        names = (path.name for path in self.folder.glob("[0-9]*"))
        return sorted((int(name) for name in names if name.isascii() and name.isdigit()), reverse=True)

    def save(self, state: TrainState, about: dict[str, Any]) -> None:
        """Begins to write a state, once the one before is written.

        Args:
          state: what to save; it is copied first.
          about: for save_state; its `best_step`, where it has one, names a step that stays.

        Raises:
          DataError: the one before could not be written.
        """
        self.wait()
        data = jax.tree.map(np.array, state._replace(key=jax.random.key_data(state.key)))
        data = data._replace(key=jax.random.wrap_key_data(data.key))
        self.pending = self.thread.submit(self._write, data, about)

    def wait(self) -> None:
        """Waits for what is being written.

        Raises:
          DataError: it could not be written.
        """
        pending, self.pending = self.pending, None
        if pending:
            pending.result()

    def close(self) -> None:
        """Ends the thread, after what it is writing."""
        self.thread.shutdown()

    def _write(self, state: TrainState, about: dict[str, Any]) -> None:
        save_state(self.folder / str(int(state.step)), state, about)
        reached = [step for step in self.steps() if step <= int(state.step)]  # a later one was found damaged
        for step in reached[self.keep :]:
            if step != about.get("best_step"):
                _remove(self.folder / str(step))
