"""Save and restore a TrainState, with orbax; its keys are stored as the integers they are made of."""

import os
import pathlib

import jax

from mnist_jax.errors import DataError
from mnist_jax.types import TrainState


def _same_kind(saved: jax.Array, wanted: jax.Array) -> None:
    if saved.shape != wanted.shape or saved.dtype != wanted.dtype:
        raise ValueError(f"{saved.dtype}{list(saved.shape)} where {wanted.dtype}{list(wanted.shape)} is wanted")


def save_state(path: str | os.PathLike, state: TrainState) -> None:
    """Writes a state; the folder appears whole or not at all.

    Args:
      path: a folder, replaced if it is there.
      state: what to save.
    """
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        path = pathlib.Path(path).absolute()
        checkpointer.save(path, state._replace(key=jax.random.key_data(state.key))._asdict(), force=True)


def restore_state(path: str | os.PathLike, like: TrainState) -> TrainState:
    """Reads a state back.

    Args:
      path: a folder that save_state wrote.
      like: a state of the same shapes and dtypes, such as init_state gives.

    Returns:
      The saved state, equal bit for bit.

    Raises:
      DataError: the checkpoint is missing, broken or of another network.
    """
    import orbax.checkpoint as ocp

    if not pathlib.Path(path).is_dir():
        raise DataError(f"{path}: no such checkpoint; run the experiment again")
    target = like._replace(key=jax.random.key_data(like.key))._asdict()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            saved = checkpointer.restore(pathlib.Path(path).absolute(), target)
        jax.tree.map(_same_kind, saved, target)
    except Exception as error:  # orbax raises many kinds, over many lines
        raise DataError(
            f"{path}: not a checkpoint of this network ({str(error).strip().splitlines()[0][:120]})"
        ) from None
    return TrainState(**{**saved, "key": jax.random.wrap_key_data(saved["key"])})
