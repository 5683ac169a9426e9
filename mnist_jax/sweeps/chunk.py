"""What a lane is given to train, and what it returns: chunks of runs of one program, and their outcomes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import jax
import numpy as np

from mnist_jax.config import Config
from mnist_jax.types import Array, PyTree, Record

Splits: TypeAlias = Mapping[str, tuple[Array, Array]]


def count_runs(hparams: Mapping[str, Sequence[float]]) -> int:
    """Counts the runs that hyperparameters are of; one where nothing varies."""
    return max(map(len, hparams.values()), default=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chunk:
    """Runs to train together, from one epoch to another."""

    config: Config  # what they have in common
    seeds: tuple[int, ...]  # each seed has all of the hyperparameters
    hparams: dict[str, tuple[float, ...]]  # of traced fields: a value for each run of a seed
    end_epoch: int
    states: Sequence[PyTree] = ()  # of each run, seed by seed, to continue from; empty to start
    records: Sequence[list[Record]] = ()  # of each run, as far as it has come
    keep_states: bool = False  # whether the states are returned

    @property
    def width(self) -> int:
        """Runs of each seed."""
        return count_runs(self.hparams)


class Outcome(NamedTuple):
    """One run of a chunk, trained."""

    seed: int
    records: list[Record]  # as in metrics.jsonl, one per epoch; the last one has the validation scores
    seconds: float  # its part of the chunk's time
    error: str  # why it failed; empty
    state: PyTree  # where it was asked for


class DataShape(NamedTuple):
    """What a program must know of the data, beside the arrays that it is given."""

    num_classes: int
    image: jax.ShapeDtypeStruct  # (H, W, C) of a stored image


def why_not_finite(losses: np.ndarray, is_finite: bool, epoch: int, size: int) -> str:
    """Says where a run became NaN or infinite; empty where it did not.

    Args:
      losses: [S] of an epoch's steps.
      is_finite: whether the parameters are, after the epoch.
      epoch: its number.
      size: its steps.
    """
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        return f"the loss became {losses[bad[0]]} in epoch {epoch}, at step {(epoch - 1) * size + bad[0] + 1}"
    return "" if is_finite else f"a parameter is no longer finite after epoch {epoch}"
