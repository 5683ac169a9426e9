"""The folder that a run writes: acquired by one process at a time, and cleared of what a killed one left."""

import contextlib
import errno
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

from filelock import FileLock, Timeout

from mnist_jax.errors import ConfigError, DataError
from mnist_jax.files import check_writable, expand_user, read_json

LOCK = ".lock"
CONFIG, METRICS, RESULT = "config.json", "metrics.jsonl", "result.json"
FOLDERS = ("checkpoints", "state")
# What a killed run may have left half-written, by folder: files and plots, final states, checkpoints.
STALE_TEMP_PATTERNS = {
    "": r"\.\w+\.(json|jsonl|png)\.\d+",
    "state": r"\.seed-\d+\.\d+\.\d(\.orbax-checkpoint-tmp)?",
    "checkpoints/*": r"\.\d+\.\d+\.\d(\.orbax-checkpoint-tmp)?",
}
# The longest path that a run writes, in the folder that orbax renames once it is complete.
LONGEST_PATH = f"checkpoints/seed-{2**31}/.{2**31}.{2**22}.0.orbax-checkpoint-tmp/ocdbt.process_0/d/{'0' * 32}"


def checkpoint_folder(workdir: pathlib.Path, seed: int) -> pathlib.Path:
    """Returns where a seed's checkpoints are, a folder per step."""
    return workdir / "checkpoints" / f"seed-{seed}"


def final_state_folder(workdir: pathlib.Path, seed: int) -> pathlib.Path:
    """Returns where a seed's final state is."""
    return workdir / "state" / f"seed-{seed}"


def is_disk_full(error: BaseException) -> bool:
    """Says whether a disk or quota is full, by the error or by what a library quotes of it.

    Args:
      error: any exception.

    Returns:
      Whether it helps to make room.
    """
    return any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT))


def _os_error(workdir: pathlib.Path, what: str, error: OSError) -> ConfigError:
    advice = "make room, or choose another folder" if is_disk_full(error) else "choose another folder"
    return ConfigError(f"workdir={workdir}: can't be {what}: {error.strerror or error}; {advice}")


def check_workdir(workdir: pathlib.Path, seeds: range, epochs: int, overwrite: bool, resume: str) -> None:
    """Refuses a folder that a run can't or must not write. Writes nothing that stays.

    Args:
      workdir: the folder; it may be missing.
      seeds: those of this run.
      epochs: those of this run.
      overwrite: whether a result may be replaced.
      resume: auto, required or never.

    Raises:
      ConfigError: the folder can't be written, is not for a run, has a result that this run would not extend, or, for
        resume=required, has nothing to resume.
    """
    real_path = os.path.realpath(workdir)
    if real_path in (os.path.dirname(real_path), os.path.realpath(expand_user("~"))):
        raise ConfigError(f"workdir={workdir}: is not a folder for one run; choose a new one, such as runs/mine")
    try:
        with contextlib.suppress(FileNotFoundError):  # other errors are those of the first checkpoint
            os.lstat(workdir.absolute() / LONGEST_PATH)
        check_writable(workdir)
        _check_no_symlinks(workdir)
        if not overwrite:
            _check_result(workdir, seeds, epochs, can_extend=resume != "never")
            _check_files(workdir)
        has_seeds = any(any(workdir.glob(f"{name}/seed-*")) for name in FOLDERS)
        if resume == "required" and (not has_seeds or (overwrite and (workdir / RESULT).exists())):
            raise ConfigError(f"resume=required: {workdir} holds no unfinished run; leave it out to start one")
    except OSError as error:
        raise _os_error(workdir, "used", error) from None


def _check_result(workdir: pathlib.Path, seeds: range, epochs: int, can_extend: bool) -> None:
    if not (workdir / RESULT).exists():
        return
    more = ""
    with contextlib.suppress(ValueError, KeyError, TypeError):  # of a file that no run wrote
        result = read_json(workdir / RESULT)
        old_seeds, old_epochs = [one["seed"] for one in result["runs"]], result["config"]["epochs"]
        is_included = all(seed in seeds for seed in old_seeds) and epochs >= old_epochs
        if can_extend and is_included and (len(seeds) > len(old_seeds) or epochs > old_epochs):
            return
        more = f" of num_seeds={len(old_seeds)} and epochs={old_epochs}"
        more += ", which more seeds or epochs would extend" if can_extend else ""
    raise ConfigError(f"workdir={workdir}: already holds a result{more}; choose another folder, or use overwrite=True")


def _check_files(workdir: pathlib.Path) -> None:
    """Refuses to overwrite files that have a run's names only."""
    names = [name for name in (CONFIG, METRICS, RESULT) if (workdir / name).exists()]
    try:
        if names and not {"name", "dataset", "num_seeds"} <= {*read_json(workdir / CONFIG)}:
            raise ValueError("not of a run")
    except (ValueError, TypeError, FileNotFoundError):
        raise ConfigError(
            f"workdir={workdir}: holds a {names[0]} that is not of a run; choose another folder, or use overwrite=True"
        ) from None


def start_over_advice(workdir: pathlib.Path) -> str:
    """Returns the end of a message about a folder whose run is another one."""
    how = "overwrite=True" if (workdir / RESULT).exists() else "resume=never"
    return f"choose another workdir, or use {how} to start from scratch"


def find_seeds(workdir: pathlib.Path, seeds: range) -> list[int]:
    """Finds the seeds that a folder has something of.

    Args:
      workdir: the folder.
      seeds: those of this run.

    Returns:
      Those of them that are there, in order.

    Raises:
      ConfigError: the folder is of a run with another first seed.
    """
    folders = {path.name: path for name in FOLDERS for path in workdir.glob(f"{name}/seed-*")}
    found = {int(name[5:]): path for name, path in folders.items() if re.fullmatch(r"seed-(0|[1-9][0-9]{0,9})", name)}
    if found and (first := min(found)) != seeds.start and any(seed not in seeds for seed in found):
        raise ConfigError(f"seed={seeds.start}: {found[first]} is of another run; {start_over_advice(workdir)}")
    return sorted(seed for seed in found if seed in seeds)


def _check_no_symlinks(workdir: pathlib.Path) -> None:
    names = (LOCK, CONFIG, METRICS, RESULT, *FOLDERS)
    for path in (*(workdir / name for name in names), *workdir.glob("checkpoints/*")):
        if path.is_symlink():
            raise ConfigError(
                f"workdir={workdir}: {path.relative_to(workdir)} is a symbolic link, which a run does not follow; "
                "remove it, or choose another folder"
            )


def _remove(path: pathlib.Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _remove_stale_files(workdir: pathlib.Path) -> None:
    for folder, pattern in STALE_TEMP_PATTERNS.items():
        for path in workdir.glob(f"{folder}/.*" if folder else ".*"):
            if re.fullmatch(pattern, path.name):
                _remove(path)


def _remove_run(workdir: pathlib.Path) -> None:
    # The result goes first: were this process killed here, its states would no longer belong to it.
    for name in (RESULT, METRICS):
        (workdir / name).unlink(missing_ok=True)
    for name in FOLDERS:
        for path in workdir.glob(f"{name}/seed-*"):
            _remove(path)


def _is_about(workdir: pathlib.Path, error: OSError) -> bool:
    path = pathlib.Path(error.filename).absolute() if isinstance(error.filename, str) else workdir.absolute()
    return path.is_relative_to(workdir.absolute()) or workdir.absolute().is_relative_to(path)


@contextlib.contextmanager
def acquire_workdir(workdir: pathlib.Path, seeds: range, epochs: int, overwrite: bool, resume: str) -> Iterator[None]:
    """Makes a folder this process's own, ready to write; the lock is released when the process ends, however it does.

    Args:
      workdir: the folder, made if missing.
      seeds: as for check_workdir.
      epochs: as for check_workdir.
      overwrite: whether a result may be replaced.
      resume: never removes an unfinished run first.

    Raises:
      ConfigError: as check_workdir; or another process holds the folder, or it can't be written any more.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        _check_no_symlinks(workdir)
        with FileLock(workdir / LOCK, timeout=0):
            check_workdir(workdir, seeds, epochs, overwrite, resume)  # again: another process may have written it
            _remove_stale_files(workdir)
            if resume == "never" or (overwrite and (workdir / RESULT).exists()):
                _remove_run(workdir)
            yield
    except Timeout:
        raise ConfigError(
            f"workdir={workdir}: another process is writing there; wait for it, or choose another folder"
        ) from None
    except OSError as error:
        if not _is_about(workdir, error):
            raise
        raise _os_error(workdir, "written", error) from None


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
