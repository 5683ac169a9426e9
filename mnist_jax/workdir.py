"""The folder that a run writes: acquired by one process at a time, and cleared of what a killed one left."""

import contextlib
import pathlib
import re
import shutil
from collections.abc import Iterator

from filelock import FileLock, Timeout

from mnist_jax.errors import ConfigError, DataError
from mnist_jax.files import temp_path

LOCK = ".lock"
CONFIG, METRICS, RESULT = "config.json", "metrics.jsonl", "result.json"
FOLDERS = ("checkpoints", "state")
# What a killed run may have left half-written, by folder: files and plots, final states, checkpoints.
STALE_TEMP_PATTERNS = {
    "": r"\.(\w+\.(json|jsonl|png)|probe)\.\d+",
    "state": r"\.seed-\d+\.\d+\.\d",
    "checkpoints/*": r"\.\d+\.\d+\.\d",
}


def checkpoint_folder(workdir: pathlib.Path, seed: int) -> pathlib.Path:
    """Returns where a seed's checkpoints are, a folder per step."""
    return workdir / "checkpoints" / f"seed-{seed}"


def final_state_folder(workdir: pathlib.Path, seed: int) -> pathlib.Path:
    """Returns where a seed's final state is."""
    return workdir / "state" / f"seed-{seed}"


def check_no_result(workdir: pathlib.Path, overwrite: bool) -> None:
    """Refuses to overwrite a result.

    Args:
      workdir: the folder of a run.
      overwrite: whether a result may be replaced.

    Raises:
      ConfigError: the folder holds a result, or can't be read.
    """
    try:
        if (workdir / RESULT).exists() and not overwrite:
            raise ConfigError(
                f"workdir={workdir}: already holds a result; choose another folder, or use overwrite=True"
            )
    except OSError as error:
        raise ConfigError(f"workdir={workdir}: can't be read: {error.strerror}; choose another folder") from None


def check_resumable(workdir: pathlib.Path) -> None:
    """Refuses a folder without an unfinished run, for resume=required.

    Args:
      workdir: the folder.

    Raises:
      ConfigError: there is nothing to resume.
    """
    if (workdir / RESULT).exists() or not any((workdir / name).exists() for name in FOLDERS):
        raise ConfigError(f"resume=required: {workdir} holds no unfinished run; leave it out to start one")


def check_seeds(workdir: pathlib.Path, seeds: range) -> None:
    """Refuses to mix the seeds of two runs.

    Args:
      workdir: the folder.
      seeds: those of this run.

    Raises:
      ConfigError: the folder holds another seed.
    """
    names = {f"seed-{seed}" for seed in seeds}
    for folder in (*workdir.glob("checkpoints/seed-*"), *workdir.glob("state/seed-*")):
        if folder.name not in names:
            raise ConfigError(
                f"seed={seeds[0]}: {folder} is of another run; choose another workdir, or use resume=never to start "
                "from scratch"
            )


def _check_no_symlinks(workdir: pathlib.Path) -> None:
    names = (LOCK, CONFIG, METRICS, RESULT, *FOLDERS)
    for path in (*(workdir / name for name in names), *workdir.glob("checkpoints/*")):
        if path.is_symlink():
            raise ConfigError(
                f"workdir={workdir}: {path.relative_to(workdir)} is a symbolic link, which a run does not follow; "
                "remove it, or choose another folder"
            )


def _remove_stale_files(workdir: pathlib.Path) -> None:
    for folder, pattern in STALE_TEMP_PATTERNS.items():
        for path in workdir.glob(f"{folder}/.*" if folder else ".*"):
            if re.fullmatch(pattern, path.name):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _remove_run(workdir: pathlib.Path) -> None:
    # The result goes first: were this process killed here, its states would no longer belong to it.
    for name in (RESULT, METRICS):
        (workdir / name).unlink(missing_ok=True)
    for name in FOLDERS:
        if (workdir / name).exists():
            shutil.rmtree(workdir / name)


@contextlib.contextmanager
def acquire_workdir(workdir: pathlib.Path, overwrite: bool, resume: str) -> Iterator[None]:
    """Makes a folder this process's own, ready to write; the lock is released when the process ends, however it does.

    Args:
      workdir: the folder, made if missing.
      overwrite: whether a result may be replaced.
      resume: never removes an unfinished run first.

    Raises:
      ConfigError: another process holds it, it holds a result or symbolic links, or it can't be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        _check_no_symlinks(workdir)
        with FileLock(workdir / LOCK, timeout=0):
            check_no_result(workdir, overwrite)  # it may have appeared while this process compiled
            _remove_stale_files(workdir)
            if resume == "never" or (workdir / RESULT).exists():
                _remove_run(workdir)
            probe = temp_path(workdir / "probe")
            probe.touch()
            probe.unlink()
            yield
    except Timeout:
        raise ConfigError(
            f"workdir={workdir}: another process is writing there; wait for it, or choose another folder"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"workdir={workdir}: can't be written: {error.strerror}; make room, or choose another folder"
        ) from None


def find_result(workdir: pathlib.Path) -> pathlib.Path:
    """Finds the result of a finished run.

    Args:
      workdir: the folder of the run.

    Returns:
      The path of its result.json.

    Raises:
      DataError: there is no such folder, or no finished run in it.
    """
    if not workdir.is_dir():
        raise DataError(f"workdir={workdir}: no such folder; use one that an experiment wrote")
    if not (workdir / RESULT).exists():
        raise DataError(f"workdir={workdir}: no finished run, as it holds no result.json; run the experiment again")
    return workdir / RESULT
