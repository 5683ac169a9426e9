"""Save and restore a TrainState, with orbax; its keys are stored as the integers they are made of."""

import os
import pathlib

import jax

from mnist_jax.types import TrainState


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
    """
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        target = like._replace(key=jax.random.key_data(like.key))._asdict()
        saved = checkpointer.restore(pathlib.Path(path).absolute(), target)
    return TrainState(**{**saved, "key": jax.random.wrap_key_data(saved["key"])})
