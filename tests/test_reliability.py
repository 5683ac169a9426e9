"""Runs that survive: killed, stopped, damaged, starved; each ends with the bits of the run that nobody touched.

`pytest -m long` has the long forms, and prints a table of the faults injected, survived and lost.
"""

import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time

import jax
import numpy as np
import psutil
import pytest
from conftest import write_folder

from mnist_jax import process, runner
from mnist_jax.checkpoint import FORMAT, MANIFEST, Checkpoints, _seal, read_about, restore_state, save_state
from mnist_jax.config import Config
from mnist_jax.errors import ConfigError, DataError

ROOT = pathlib.Path(__file__).parents[1]
SHRUNK = ("--batch_size=90", "--hidden=16", "--filters=4,8", "--quiet")


def start(experiment, folder, workdir, *words, before=(), **options):
    words = (f"--dataset=idx:{folder}", f"--workdir={workdir}", *SHRUNK, *words)
    words = [*before, sys.executable, "-m", f"experiments.{experiment}", *words]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(*args, **options):
    child = start(*args, **options)
    out, err = child.communicate()
    return child.returncode, out, err


def assert_same_run(ours, theirs):
    assert (ours / "metrics.jsonl").read_bytes() == (theirs / "metrics.jsonl").read_bytes()
    results = [json.loads((path / "result.json").read_text()) for path in (ours, theirs)]
    for result in results:
        del result["seconds"]
    assert results[0] == results[1]
    for run in results[0]["runs"]:
        states = [runner.load_run(path, run["seed"]).state for path in (ours, theirs)]
        states = [state._replace(key=jax.random.key_data(state.key)) for state in states]
        jax.tree.map(np.testing.assert_array_equal, *states)


def checkpoints(workdir):
    return {path for path in workdir.glob("checkpoints/*/[0-9]*")}


def kill_until_done(experiment, folder, workdir, words, kills, dice):
    """Kills a run again and again, half of the times inside the writing of a checkpoint; how often it came to that."""
    killed = written = 0
    while killed < kills:
        before, child = checkpoints(workdir), start(experiment, folder, workdir, *words)
        while child.poll() is None and not checkpoints(workdir) - before:
            time.sleep(0.005)
        time.sleep(dice.uniform(0, 0.2))
        is_writing = dice.random() < 0.5
        until = time.monotonic() + 3
        while is_writing and child.poll() is None and time.monotonic() < until:
            if any(workdir.glob("checkpoints/*/.*")):
                break
        if child.poll() is not None:
            assert child.returncode == 0, child.communicate()[1]
            break
        child.kill()
        child.communicate()
        killed += 1
        written += any(workdir.glob("checkpoints/*/.*"))
    if not (workdir / "result.json").exists():
        status, _, err = finish(experiment, folder, workdir, *words)
        assert status == 0, err
    return killed, written


@pytest.mark.parametrize(
    ("experiment", "kills", "epochs"),
    [("perceptron", 2, 6), ("cnn", 1, 3), ("deep_cnn", 1, 3)]
    + [pytest.param(name, 18, 40, marks=pytest.mark.long) for name in ("perceptron", "cnn", "deep_cnn")],
)
def test_a_killed_run_ends_with_the_same_bits(tmp_path, folder, record_property, experiment, kills, epochs):
    words = (f"--epochs={epochs}", "--num_seeds=2", "--checkpoint_every=3")
    status, _, err = finish(experiment, folder, tmp_path / "whole", f"--epochs={epochs}", "--num_seeds=2")
    assert status == 0, err
    seed = random.randrange(10**6)
    killed, written = kill_until_done(experiment, folder, tmp_path / "killed", words, kills, random.Random(seed))
    told = f"{experiment}: SIGKILL ({written} inside the writing of a checkpoint)"
    record_property("fault", (told, killed, 0))
    assert killed == kills, f"the run was over after {killed} kills (dice {seed})"
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    record_property("fault", (told, 0, killed))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(tmp_path, folder, record_property, number):
    words = ("--epochs=3000", "--checkpoint_every=100000")
    child = start("perceptron", folder, tmp_path / "stopped", *words)
    while child.poll() is None and not (tmp_path / "stopped" / "metrics.jsonl").exists():
        time.sleep(0.01)
    child.send_signal(number)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 128 + number, err
    assert f"stopped by {number.name}, saved at step" in err and f"--workdir={tmp_path / 'stopped'}" in err
    assert len(err.splitlines()) == 1 and checkpoints(tmp_path / "stopped")
    record_property("fault", (number.name, 1, 1))


def test_a_second_signal_ends_the_process_at_once():
    script = """
import ctypes, os, signal
from mnist_jax.process import deferred_signals
with deferred_signals() as told:
    os.kill(os.getpid(), signal.SIGINT)
    assert told() == signal.SIGINT
    print("deferred", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    ctypes.CDLL(None).sleep(60)  # no step of Python comes between
    print("not reached", flush=True)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert told.returncode == 128 + signal.SIGTERM and told.stdout == "deferred\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_training_is_one_line(tmp_path, folder, number):
    child = start("perceptron", folder, tmp_path / "run", "--summary")
    time.sleep(1.5)  # while JAX is loaded, or data, or the program is compiled
    child.send_signal(number)
    _, err = child.communicate(timeout=30)
    assert child.returncode in (0, 128 + number), err
    assert child.returncode == 0 or (f"stopped by {number.name}" in err and len(err.splitlines()) == 1), err


@pytest.fixture(scope="module")
def config(folder):
    return Config(dataset=f"idx:{folder}", hidden=(16,), epochs=3, batch_size=100)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, config):
    workdir = tmp_path_factory.mktemp("whole")
    runner.run(config, workdir, quiet=True)
    return workdir


@pytest.fixture
def unfinished(tmp_path, whole):
    workdir = shutil.copytree(whole, tmp_path / "unfinished")
    (workdir / "result.json").unlink()
    shutil.rmtree(workdir / "state")
    shutil.rmtree(workdir / "checkpoints" / "seed-7" / "21")
    return workdir


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-10] ^= 1  # of a manifest's seal: the last digit of a long number may change without changing it
    path.write_bytes(content)


def reseal(folder, **changes):
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    del manifest["sha256"]
    (folder / MANIFEST).write_text(json.dumps(manifest | {"sha256": _seal(manifest)}))


DAMAGE = {
    "truncated": lambda step: largest(step).write_bytes(largest(step).read_bytes()[:100]),
    "bit flipped": lambda step: flip(largest(step)),
    "bit flipped in the manifest": lambda step: flip(step / MANIFEST),
    "half deleted": lambda step: shutil.rmtree(step / "d"),
    "without a manifest": lambda step: (step / MANIFEST).unlink(),
    "of another version": lambda step: reseal(step, format=FORMAT + 1),
    "a link": lambda step: step.rename(step.parent / "away") and step.symlink_to(step.parent / "away"),
    "a file": lambda step: shutil.rmtree(step) or step.write_text("no folder"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over(tmp_path, config, whole, capsys, record_property, name):
    workdir = tmp_path / "damaged"
    (workdir / "checkpoints").mkdir(parents=True)
    shutil.copytree(whole / "checkpoints" / "seed-7", workdir / "checkpoints" / "seed-7")
    DAMAGE[name](workdir / "checkpoints" / "seed-7" / "21")
    record_property("fault", (f"checkpoint {name}", 1, 0))
    runner.run(config, workdir)
    told = capsys.readouterr().err
    assert "21: " in told and "passed over" in told and "seed 7: going on from step 14" in told
    assert_same_run(workdir, whole)
    record_property("fault", (f"checkpoint {name}", 0, 1))


def test_nothing_whole_begins_anew(config, whole, unfinished, capsys):
    for step in checkpoints(unfinished):
        flip(step / MANIFEST)
    runner.run(config, unfinished)
    assert "passed over" in capsys.readouterr().err
    assert_same_run(unfinished, whole)


def test_a_damaged_final_state_is_written_again(config, whole, unfinished):
    shutil.copytree(whole / "state", unfinished / "state")
    flip(unfinished / "state" / "seed-7" / MANIFEST)
    runner.run(config, unfinished, quiet=True)
    assert_same_run(unfinished, whole)


def test_another_run_is_not_gone_on_with(tmp_path, config, small, unfinished):
    before = (unfinished / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"learning_rate was 0\.001, is 0\.01\); name another"):
        runner.run(dataclasses.replace(config, learning_rate=0.01), unfinished, quiet=True)
    changed = small | {"test_labels": small["test_labels"][::-1]}
    pathlib.Path(config.dataset[4:]).rename(tmp_path / "aside")
    try:
        write_folder(pathlib.Path(config.dataset[4:]), changed)
        with pytest.raises(ConfigError, match=r"--dataset: .*sha256 was \w+, is \w+"):
            runner.run(config, unfinished, quiet=True)
    finally:
        shutil.rmtree(config.dataset[4:])
        (tmp_path / "aside").rename(config.dataset[4:])
    assert (unfinished / "metrics.jsonl").read_bytes() == before
    runner.run(dataclasses.replace(config, learning_rate=0.01), unfinished, quiet=True, resume="never")


def test_resume_must_needs_a_run(tmp_path, config, unfinished):
    with pytest.raises(ConfigError, match="holds no unfinished run"):
        runner.run(config, tmp_path / "new", quiet=True, resume="must")
    assert not (tmp_path / "new").exists()
    runner.run(config, unfinished, quiet=True, resume="must")


def test_damaged_checkpoints_alone_are_no_run_that_must_be_there(config, whole, unfinished):
    for step in checkpoints(unfinished):
        flip(step / MANIFEST)
    with pytest.raises(ConfigError, match="holds no unfinished run"):
        runner.run(config, unfinished, quiet=True, resume="must")


def test_another_seed_does_not_take_over_an_unfinished_run(config, unfinished):
    before = (unfinished / "config.json").read_bytes()
    with pytest.raises(ConfigError, match=r"--seed=8: .*seed-7 is of another run"):
        runner.run(dataclasses.replace(config, seed=8), unfinished, quiet=True)
    assert (unfinished / "config.json").read_bytes() == before


def test_a_result_that_appears_meanwhile_is_not_overwritten(config, whole, monkeypatch):
    before = (whole / "result.json").read_bytes()
    seen = []
    refuse = runner._refuse_result
    monkeypatch.setattr(runner, "_refuse_result", lambda *words: seen.append(1) or (len(seen) > 1 and refuse(*words)))
    with pytest.raises(ConfigError, match="already holds a result"):
        runner.run(config, whole, quiet=True)
    assert (whole / "result.json").read_bytes() == before


@pytest.mark.parametrize("name", ["state", "checkpoints", "checkpoints/seed-7", "metrics.jsonl", process.LOCK])
def test_links_in_a_workdir_are_not_followed(tmp_path, config, name):
    (tmp_path / "away" / "kept").mkdir(parents=True)
    link = tmp_path / "run" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "away")
    (tmp_path / "run" / ".mine.7").touch()
    with pytest.raises(ConfigError, match="is a symbolic link, which a run does not follow"):
        runner.run(config, tmp_path / "run", quiet=True)
    assert [path.name for path in (tmp_path / "away").iterdir()] == ["kept"]
    link.unlink()
    runner.run(config, tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / ".mine.7").exists(), "only what a run of ours began to write is cleared away"


HOSTILE = {
    "nothing": lambda about: about.clear(),
    "no records": lambda about: about.pop("records"),
    "records that are none": lambda about: about.update(records=5),
    "too few records": lambda about: about.update(records=about["records"][:1]),
    "records without steps": lambda about: about.update(records=[{}] * 2),
    "steps that are none": lambda about: about.update(per_step=[["x"]] * 3),
    "too many steps": lambda about: about.update(per_step=[[1] * 99] * 3),
    "a configuration that is none": lambda about: about.update(config=[]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_checkpoint_that_says_nonsense_is_passed_over(config, whole, unfinished, capsys, name):
    step = unfinished / "checkpoints" / "seed-7" / "14"
    about = json.loads((step / MANIFEST).read_text())["about"]
    HOSTILE[name](about)
    reseal(step, about=about)
    runner.run(config, unfinished)
    assert "14: no checkpoint of a run: passed over" in capsys.readouterr().err
    assert_same_run(unfinished, whole)


def test_the_newest_and_the_best_are_kept(tmp_path, whole):
    state = runner.load_run(whole).state
    kept = Checkpoints(tmp_path, keep=2)
    for step in (5, 10, 15, 20, 100):
        kept.save(state._replace(step=jax.numpy.int32(step)), {"best_step": 10})
    kept.wait()
    kept.close()
    assert kept.steps() == [100, 20, 10] and read_about(tmp_path / "10") == {"best_step": 10}
    kept._write(state._replace(step=jax.numpy.int32(30)), {"best_step": 10})
    assert kept.steps() == [100, 30, 20, 10], "one that lies ahead was passed over as damaged: it counts for none"
    assert int(restore_state(tmp_path / "20", state).step) == 20


def test_a_state_that_cannot_be_written_leaves_the_one_before(tmp_path, whole, monkeypatch):
    state = runner.load_run(whole).state
    save_state(tmp_path / "state", state)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DataError, match="No space left on device"):
        save_state(tmp_path / "state", state)
    assert [path.name for path in tmp_path.iterdir()] == ["state"] and read_about(tmp_path / "state") == {}


def test_two_processes_do_not_share_a_workdir(tmp_path, config):
    script = "import mnist_jax.process as p, pathlib, sys, time\nwith p.locked(pathlib.Path(sys.argv[1])): "
    script += "print(1, flush=True); time.sleep(99)"
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE) as owner:
        owner.stdout.readline()
        with pytest.raises(ConfigError, match="another process is writing there"):
            runner.run(config, tmp_path, quiet=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == [process.LOCK]
        owner.kill()
    runner.run(config, tmp_path, quiet=True)
    assert (tmp_path / "result.json").exists()


def test_no_room_is_one_line_and_the_run_goes_on_later(tmp_path, config, whole, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 0))
        with pytest.raises(DataError, match=r"can't be written \(No space left on device\); make room"):
            runner.run(config, tmp_path, quiet=True)
    assert not (tmp_path / "result.json").exists()
    runner.run(config, tmp_path, quiet=True)
    assert_same_run(tmp_path, whole)


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(tmp_path, folder, record_property):
    workdir = tmp_path / "small"
    workdir.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", workdir], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        status, _, err = finish("perceptron", folder, workdir, "--epochs=3")
        assert status == 1 and len(err.splitlines()) == 1 and "No space left on device" in err, err
        subprocess.run(["mount", "-o", "remount,size=64m", workdir], check=True)
        status, _, err = finish("perceptron", folder, workdir, "--epochs=3")
        assert status == 0 and (workdir / "result.json").exists(), err
        subprocess.run(["mount", "-o", "remount,ro", workdir], check=True)
        status, _, err = finish("perceptron", folder, workdir, "--epochs=3", "--overwrite")
        assert status == 2 and len(err.splitlines()) == 1 and "Read-only file system" in err, err
        assert (workdir / "result.json").exists()
    finally:
        subprocess.run(["umount", workdir], check=True)
    record_property("fault", ("full disk, then a read-only one", 2, 2))


def test_a_write_that_fails_ends_the_run_in_order(tmp_path, folder, record_property):
    words = ("--epochs=3",)
    quiet = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    status, _, err = finish(
        "perceptron", folder, tmp_path / "run", *words, before=("bash", "-c", 'ulimit -f 20; exec "$@"', "-"), env=quiet
    )
    assert status in (1, 2) and "; make room, and start the same run again" in err, err
    assert not (tmp_path / "run" / "result.json").exists()
    assert finish("perceptron", folder, tmp_path / "run", *words)[0] == 0
    record_property("fault", ("no room for a checkpoint", 1, 1))


def test_no_memory_is_one_line(tmp_path, config, monkeypatch):
    def starved(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    monkeypatch.setattr(runner.Trainer, "run", starved)
    with pytest.raises(ConfigError, match=r"--batch_size=100: the device ran out of memory"):
        runner.run(config, tmp_path, quiet=True)


def test_on_nan_skip_counts_what_it_drops(tmp_path, config):
    wild = dataclasses.replace(config, optimizer="sgd", learning_rate=1e30, on_nan="skip")
    _, (state,) = runner.run(wild, tmp_path, quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["train"]["skipped"] for line in lines][1:] == [7, 7] and int(state.step) == 21
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_a_clock_that_jumps_changes_nothing(tmp_path, config, whole, monkeypatch):
    calls, now = [], time.time
    monkeypatch.setattr(time, "time", lambda: now() + (calls.append(1) or 0) + 1e8 * (len(calls) > 60))
    runner.run(config, tmp_path, quiet=True)
    assert len(calls) > 60
    assert_same_run(tmp_path, whole)


@pytest.mark.long
def test_a_long_run_holds_memory_files_and_speed(tmp_path, dataset, record_property):
    """350,000 steps: two hours of the lecture's CNN on two slow cores."""
    arrays = {part: getattr(dataset, part) for part in ("train_images", "train_labels", "test_images", "test_labels")}
    arrays = {part: array[..., 0] if array.ndim == 4 else array for part, array in arrays.items()}
    folder = write_folder(tmp_path / "all", arrays)
    steps_per_epoch = -(-round(0.9 * len(arrays["train_labels"])) // 20)
    words = (f"--epochs={350_000 // steps_per_epoch}", "--checkpoint_every=3500", "--batch_size=20")
    child = start("softmax", folder, tmp_path / "run", "--hidden=", *words)
    own, told = psutil.Process(child.pid), []
    while child.poll() is None:
        time.sleep(1)
        steps = [int(path.name) for path in checkpoints(tmp_path / "run")]
        if steps and child.poll() is None:
            told.append((time.monotonic(), max(steps), own.memory_info().rss, own.num_fds()))
    assert child.returncode == 0, child.communicate()[1]
    quarter = len(told) // 4
    early, late = told[quarter : 2 * quarter], told[3 * quarter :]
    grown = statistics.median(row[2] for row in late) / statistics.median(row[2] for row in early) - 1
    speeds = [(part[-1][1] - part[0][1]) / (part[-1][0] - part[0][0]) for part in (early, late)]
    line = f"350,000 steps: memory {100 * grown:+.1f} %, speed {100 * (speeds[1] / speeds[0] - 1):+.0f} %"
    record_property("fault", (line, 1, 0))
    assert abs(grown) < 0.02 and max(row[3] for row in late) <= max(row[3] for row in early)
    record_property("fault", (line, 0, 1))
