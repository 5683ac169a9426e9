"""Save and restore a TrainState, with orbax; its keys are stored as the integers they are made of.

A checkpoint is a folder: orbax's files, and MANIFEST with the SHA-256 of each of them, so that a damaged one is told
from a whole one before any of it is believed.
"""

import hashlib
import json
import os
import pathlib
import shutil

import jax

from mnist_jax.errors import DataError
from mnist_jax.types import TrainState

MANIFEST = "manifest.json"


def _same_kind(saved: jax.Array, wanted: jax.Array) -> None:
    if saved.shape != wanted.shape or saved.dtype != wanted.dtype:
        raise ValueError(f"{saved.dtype}{list(saved.shape)} where {wanted.dtype}{list(wanted.shape)} is wanted")


def _digests(folder: pathlib.Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def save_state(path: str | os.PathLike, state: TrainState) -> None:
    """Writes a state; the folder appears whole or not at all.

    Args:
      path: a folder, replaced if it is there.
      state: what to save.
    """
    import orbax.checkpoint as ocp

    path = pathlib.Path(path).absolute()
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(aside, state._replace(key=jax.random.key_data(state.key))._asdict(), force=True)
    (aside / MANIFEST).write_text(json.dumps(_digests(aside), indent=2) + "\n")
    shutil.rmtree(path, ignore_errors=True)
    aside.rename(path)


def restore_state(path: str | os.PathLike, like: TrainState) -> TrainState:
    """Reads a state back.

    Args:
      path: a folder that save_state wrote.
      like: a state of the same shapes and dtypes, such as init_state gives.

    Returns:
      The saved state, equal bit for bit.

    Raises:
      DataError: the checkpoint is missing, damaged or of another network.
    """
    import orbax.checkpoint as ocp

    path = pathlib.Path(path).absolute()
    if not path.is_dir():
        raise DataError(f"{path}: no such checkpoint; run the experiment again")
    try:
        whole = json.loads((path / MANIFEST).read_text()) == _digests(path)
    except (OSError, ValueError):
        whole = False
    if not whole:
        raise DataError(f"{path}: a damaged checkpoint, its files are not those of its {MANIFEST}; run it again")
    target = like._replace(key=jax.random.key_data(like.key))._asdict()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            saved = checkpointer.restore(path, target)
        jax.tree.map(_same_kind, saved, target)
    except Exception as error:  # orbax raises many kinds, over many lines
        raise DataError(
            f"{path}: not a checkpoint of this network ({str(error).strip().splitlines()[0][:120]})"
        ) from None
    return TrainState(**{**saved, "key": jax.random.wrap_key_data(saved["key"])})
