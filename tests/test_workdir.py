"""The folder of a run: which ones are refused, and what the message names as the cause."""

import errno
import json
import os
import pathlib

import pytest

from mnist_jax.errors import ConfigError
from mnist_jax.experiment import Experiment
from mnist_jax.runner import run
from mnist_jax.workdir import LONGEST_PATH, acquire_workdir, check_workdir, find_seeds

ORBAX = ("", ".orbax-checkpoint-tmp")  # what orbax appends until it has written everything


def check(workdir, overwrite=False, resume="auto"):
    check_workdir(pathlib.Path(workdir), range(7, 8), 1, overwrite, resume)


def acquire(workdir):
    return acquire_workdir(workdir, range(7, 8), 1, overwrite=False, resume="auto")


def test_folders_that_are_not_for_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "home")
    for folder in (
        "/",
        "/..",
        "//",
        os.path.relpath("/"),
        tmp_path / "home",
        tmp_path / "link",
        tmp_path / "home" / ".",
    ):
        with pytest.raises(ConfigError, match="is not a folder for one run; choose a new one, such as runs/mine"):
            check(folder)
    check(tmp_path / "home" / "runs" / "mine")
    assert list((tmp_path / "home").iterdir()) == []


def test_what_cannot_be_written_is_refused_by_its_cause(tmp_path):
    (tmp_path / "file").touch()
    for folder, cause in (
        ("file", "Not a directory"),
        ("file/run", "Not a directory"),
        (300 * "x", "File name too long"),
    ):
        with pytest.raises(ConfigError, match=f"can't be used: {cause}; choose another folder$"):
            check(tmp_path / folder)
    if os.getuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(ConfigError, match=r"can't be used: Permission denied; choose another folder$"):
            check(tmp_path / "closed" / "run")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "closed") == ["file"]


def test_a_path_is_refused_at_once_where_a_checkpoint_would_be_too_long(tmp_path, folder):
    length = os.pathconf("/", "PC_PATH_MAX") - 2 - len(LONGEST_PATH)
    missing = length - len(str(tmp_path))
    path = tmp_path / "/".join(["x" * 199] * (missing // 200 - 1)) / ("y" * (missing % 200 + 98)) / ("z" * 100)
    assert len(str(path)) == length
    experiment = Experiment(dataset=f"idx:{folder}", hidden_sizes=(4,), epochs=1, batch_size=300)
    with pytest.raises(ConfigError, match=r"can't be used: File name too long; choose another folder$"):
        run(experiment, f"{path}z", quiet=True)
    assert list(tmp_path.iterdir()) == []
    run(experiment, path, quiet=True, seed=2**31 - 2)
    assert (path / "result.json").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", '{"compilerOptions": {}}'),
        ("config.json", "[1, 2]"),
        ("config.json", "not JSON"),
        ("metrics.jsonl", '{"loss": 1}'),
        ("result.json", "{}"),
    ],
)
def test_files_of_others_are_not_overwritten(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=f"holds a {name} that is not of a run|already holds a result"):
        check(tmp_path)
    check(tmp_path, overwrite=True)
    assert (tmp_path / name).read_text() == content


def test_a_folder_may_hold_other_files(tmp_path, folder):
    for name in ("log.txt", ".hidden", "checkpoints/mine.pt", "state/notes"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    fields = {"hidden_sizes": (4,), "epochs": 1, "batch_size": 300, "dataset": f"idx:{folder}"}
    for options in ({}, {"overwrite": True}, {"resume": "never", "overwrite": True}):
        run(Experiment(**fields), tmp_path, quiet=True, **options)
        assert (tmp_path / "checkpoints" / "mine.pt").exists() and (tmp_path / "state" / "notes").exists()
    assert (tmp_path / "log.txt").exists() and json.loads((tmp_path / "result.json").read_text())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            "No space left on device; make room, or choose another folder",
        ),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "Disk quota exceeded; make room, or choose another folder"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error; choose another folder"),
    ],
)
def test_only_a_full_disk_needs_room(tmp_path, error, message):
    with pytest.raises(ConfigError, match=f"can't be written: {message}$"), acquire(tmp_path):
        raise error


def test_an_error_about_another_file_does_not_blame_the_workdir(tmp_path):
    with pytest.raises(FileNotFoundError), acquire(tmp_path / "run"):
        (tmp_path / "other").read_text()
    with pytest.raises(ConfigError, match="can't be written: No such file"), acquire(tmp_path / "run"):
        (tmp_path / "run" / "other").read_text()


def test_what_a_killed_process_left_is_removed(tmp_path):
    kept = [".result.json.7.orig", "checkpoints/seed-7/.14.8.0.mine"]
    unfinished = [f"{name}.8.0{suffix}" for name in ("state/.seed-7", "checkpoints/seed-7/.14") for suffix in ORBAX]
    for name in (".result.json.7", *unfinished, *kept):
        (tmp_path / name).mkdir(parents=True)
    with acquire(tmp_path):
        left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob(".*")}
    assert left == {".lock", *kept}


def test_seeds_are_found_without_a_look_at_each(tmp_path):
    for name in ("state/seed-9", "checkpoints/seed-7", "checkpoints/seed-007", "checkpoints/seed-x", "state/seed-10"):
        (tmp_path / name).mkdir(parents=True)
    assert find_seeds(tmp_path, range(7, 10**9)) == [7, 9, 10]
    assert find_seeds(tmp_path, range(7, 9)) == [7], "a run of fewer seeds leaves the others alone"
    with pytest.raises(ConfigError, match=r"seed=8: .*seed-7 is of another run; .*resume=never to start from scratch"):
        find_seeds(tmp_path, range(8, 11))
