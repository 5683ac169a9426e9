"""What happens after a chunk of steps: metrics.jsonl, progress, checkpoints. Each is a function of the SeedRun."""

import logging
import pathlib

from mnist_jax.checkpoint import Checkpoints, save_state
from mnist_jax.files import append_json
from mnist_jax.loop import Hook, SeedRun, best_step
from mnist_jax.report import Progress
from mnist_jax.types import Record
from mnist_jax.workdir import METRICS, final_state_folder

logger = logging.getLogger("mnist_jax")


def append_metrics(workdir: pathlib.Path) -> Hook:
    """Appends a line to metrics.jsonl at the end of each epoch.

    Args:
      workdir: the run's folder.

    Returns:
      The hook.
    """

    def hook(run: SeedRun) -> None:
        if run.is_epoch_end:
            append_json(workdir / METRICS, run.records[-1])

    return hook


def report_progress(progress: Progress) -> Hook:
    """Reports each epoch.

    Args:
      progress: where to.

    Returns:
      The hook.
    """

    def hook(run: SeedRun) -> None:
        if run.is_epoch_end:
            progress.epoch(run.records[-1], run.images / run.seconds)

    return hook


def _metadata(run: SeedRun, fingerprint: Record) -> Record:
    done = 0 if run.is_epoch_end else run.step % run.steps_per_epoch
    per_step = {name: [part[:done].tolist() for part in mean] for name, mean in run.per_step.items()}
    records = list(run.records)
    return fingerprint | {"records": records, "per_step": per_step, "best_step": best_step(records)}


def save_checkpoints(checkpoints: Checkpoints, fingerprint: Record, checkpoint_every: int) -> Hook:
    """Saves a checkpoint every so many steps, at the best validation loss, and when a signal asks to stop.

    Args:
      checkpoints: of this seed.
      fingerprint: what a resumed run must agree on.
      checkpoint_every: steps between checkpoints; 0 for the end of each epoch.

    Returns:
      The hook.
    """

    def hook(run: SeedRun) -> None:
        should_save = run.signal or (checkpoint_every and run.step % checkpoint_every == 0)
        if run.is_epoch_end:
            should_save = should_save or not checkpoint_every or best_step(run.records) == run.step
        if should_save:
            checkpoints.save(run.state, _metadata(run, fingerprint))
        if run.signal:
            checkpoints.wait()  # the process is about to end

    return hook


def save_final_state(workdir: pathlib.Path, run: SeedRun, fingerprint: Record) -> None:
    """Saves the state at the end of training, in the place of an earlier one, and reports dropped updates.

    Args:
      workdir: the run's folder.
      run: of one seed, trained; afterwards it is marked as final.
      fingerprint: what a resumed run must agree on.
    """
    if dropped := sum(record["train"].get("skipped", 0) for record in run.records):
        logger.warning("seed %d: %d of %d updates were dropped (on_nan=skip)", run.seed, dropped, run.step)
    save_state(final_state_folder(workdir, run.seed), run.state, _metadata(run, fingerprint))
    run.is_final = True
