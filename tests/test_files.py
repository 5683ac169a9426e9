"""Where files lie and what they hold, whatever the environment says."""

import os
import pathlib
import pwd
import types

import pytest

from mnist_jax import devices
from mnist_jax.files import append_json, check_writable, expand_user, has_home, make_new_folder, read_json, write_json


def no_entry(uid):
    raise KeyError(uid)


def entry(home):
    return lambda uid: types.SimpleNamespace(pw_dir=str(home))


@pytest.mark.parametrize("home", ["", None])
def test_without_home_the_users_entry_counts(tmp_path, monkeypatch, home):
    monkeypatch.delenv("HOME") if home is None else monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(pwd, "getpwuid", entry(tmp_path))
    assert expand_user("~/some") == tmp_path / "some" and expand_user("~") == tmp_path and has_home()
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    assert expand_user("~/some") == pathlib.Path("~/some") and not has_home()


def test_only_a_leading_tilde_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/some/home")
    assert expand_user("~/a") == pathlib.Path("/some/home/a")
    for path in ("a/~", "/a", "~nobody-of-this-name/a", ""):
        assert expand_user(path) == pathlib.Path(path)


@pytest.fixture
def cache_folder(monkeypatch):
    """Where compiled programs are kept for a HOME and an entry in the password database; None: nowhere."""

    def find(home, getpwuid):
        config = types.SimpleNamespace(jax_compilation_cache_dir=None)
        config.update = lambda name, value: setattr(config, name, value)
        monkeypatch.setattr(devices, "_config", config)
        monkeypatch.setattr(pwd, "getpwuid", getpwuid)
        monkeypatch.setenv("HOME", home)
        devices.enable_compilation_cache()
        return config.jax_compilation_cache_dir

    return find


def test_compiled_programs_are_kept_in_the_users_home_only(tmp_path, cache_folder):
    below = os.path.join(".cache", "mnist_jax", "compiled")
    (tmp_path / "own").mkdir()
    (tmp_path / "entry").mkdir()
    assert cache_folder(str(tmp_path / "own"), no_entry) == str(tmp_path / "own" / below)
    assert cache_folder("", entry(tmp_path / "entry")) == str(tmp_path / "entry" / below)
    before = os.listdir("/")
    for home in ("", "/", "/proc", str(tmp_path / "nowhere")):  # none, no home, not writable, missing
        assert cache_folder(home, no_entry) is None
    assert cache_folder("", entry("/")) is None
    assert os.listdir("/") == before and not (tmp_path / "nowhere").exists()


def test_a_new_folder_is_new_and_its_name_is_valid_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = {make_new_folder(stem) for stem in ("a", "a", "../b/ü 1", "x" * 400)}
    assert len(folders) == 4 and all((tmp_path / folder).is_dir() for folder in folders)
    assert {folder.parent for folder in folders} == {pathlib.Path("runs")}
    assert any(folder.name.startswith(".._b_1-") for folder in folders)


def test_whether_a_folder_can_be_written_is_found_out_without_a_trace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for folder in (".", "new", "new/and/deep", tmp_path, tmp_path / "new"):
        check_writable(pathlib.Path(folder))
    for folder in ("file", "file/new", "x" * 300, "new/" + "x" * 300, "/proc/new"):
        with pytest.raises(OSError):
            check_writable(pathlib.Path(folder))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_every_string_survives_json(tmp_path):
    value = {"ü": os.fsdecode(b"\xff/digits"), "number": float("inf")}
    write_json(tmp_path / "a.json", value)
    append_json(tmp_path / "b.jsonl", value)
    for name in ("a.json", "b.jsonl"):
        assert read_json(tmp_path / name) == value | {"number": None}
