"""Runs that are killed, interrupted, damaged, or short of memory or disk: each resumes, and ends with the same bits.

`pytest -m long` runs the long forms, and prints a table of the faults injected, survived and lost.
"""

import json
import logging
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time

import jax
import numpy as np
import psutil
import pytest
from conftest import ROOT, update_manifest, write_folder
from launch import Python, run_python

from mnist_jax import runner
from mnist_jax.checkpoint import FORMAT, MANIFEST, Checkpoints, read_metadata, restore_state, save_state
from mnist_jax.errors import ConfigError, DataError
from mnist_jax.experiment import Experiment
from mnist_jax.loaded_run import load_run
from mnist_jax.runner import run
from mnist_jax.workdir import LOCK

SMALL = ("--batch_size=90", "--hidden_sizes=16", "--filters=4,8", "--quiet")


def command_line(experiment, folder, workdir, *flags):
    return ("-m", f"experiments.{experiment}", f"--dataset=idx:{folder}", f"--workdir={workdir}", *SMALL, *flags)


def start(*args, before=(), **options):
    """Starts a run, from Python's own first instruction."""
    argv = [*before, sys.executable, *command_line(*args)]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(*args):
    done = run_python(*command_line(*args))
    return done.returncode, done.stdout, done.stderr


def assert_same_run(*workdirs, experiment=None):
    first, second = ((path / "metrics.jsonl").read_bytes() for path in workdirs)
    assert first == second
    first, second = (json.loads((path / "result.json").read_text()) for path in workdirs)
    assert first | {"seconds": None} == second | {"seconds": None}
    for one in first["runs"]:
        states = [load_run(path, experiment, one["seed"]).state for path in workdirs]
        states = [state._replace(key=jax.random.key_data(state.key)) for state in states]
        jax.tree.map(np.testing.assert_array_equal, *states)


def checkpoints(workdir):
    return {path for path in workdir.glob("checkpoints/*/[0-9]*")}


def kill_repeatedly(experiment, folder, workdir, flags, kills, random):
    """Kills a run so many times, about half of them while it writes a checkpoint; returns both counts."""
    killed = written = 0
    while killed < kills:
        line = command_line(experiment, folder, workdir, *flags)
        before, child = checkpoints(workdir), Python(*line, stderr=workdir.with_suffix(".err"))
        while child.poll() is None and not checkpoints(workdir) - before:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.2))
        is_writing = random.random() < 0.5
        until = time.monotonic() + 3
        while is_writing and child.poll() is None and time.monotonic() < until:
            if any(workdir.glob("checkpoints/*/.*")):
                break
        if child.poll() is not None:
            assert child.poll() == 0, child.stderr.read_text()
            break
        child.kill()
        child.wait()
        killed += 1
        written += any(workdir.glob("checkpoints/*/.*"))
    if not (workdir / "result.json").exists():
        status, _, err = finish(experiment, folder, workdir, *flags)
        assert status == 0, err
    return killed, written


@pytest.mark.parametrize(
    ("experiment", "kills", "epochs"),
    [("perceptron", 2, 6)]
    + [pytest.param(name, 1, 3, marks=pytest.mark.slow) for name in ("cnn", "deep_cnn")]
    + [pytest.param(name, 18, 40, marks=pytest.mark.long) for name in ("perceptron", "cnn", "deep_cnn")],
)
def test_a_killed_run_ends_with_the_same_bits(tmp_path, folder, record_property, experiment, kills, epochs):
    flags = (f"--epochs={epochs}", "--num_seeds=2")
    status, _, err = finish(experiment, folder, tmp_path / "complete", *flags)
    assert status == 0, err
    seed = random.randrange(10**6)
    flags = (*flags, "--checkpoint_every=3")
    killed, written = kill_repeatedly(experiment, folder, tmp_path / "killed", flags, kills, random.Random(seed))
    fault = f"{experiment}: SIGKILL ({written} while writing a checkpoint)"
    record_property("fault", (fault, killed, 0))
    assert killed == kills, f"the run had ended after {killed} kills (random seed {seed})"
    assert_same_run(tmp_path / "killed", tmp_path / "complete")
    record_property("fault", (fault, 0, killed))


@pytest.fixture(scope="module")
def experiment(folder):
    return Experiment(dataset=f"idx:{folder}", hidden_sizes=(16,), epochs=3, batch_size=100)


@pytest.fixture(scope="module")
def complete(tmp_path_factory, experiment):
    workdir = tmp_path_factory.mktemp("complete")
    run(experiment, workdir, quiet=True)
    return workdir


@pytest.fixture
def unfinished(tmp_path, complete):
    workdir = shutil.copytree(complete, tmp_path / "unfinished")
    (workdir / "result.json").unlink()
    shutil.rmtree(workdir / "state")
    shutil.rmtree(workdir / "checkpoints" / "seed-7" / "21")
    return workdir


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[-10] ^= 1  # of a manifest's digest: elsewhere a long number's last digit may not change its value
    path.write_bytes(content)


DAMAGE = {
    "truncated": lambda step: largest(step).write_bytes(largest(step).read_bytes()[:100]),
    "bit flipped": lambda step: flip_bit(largest(step)),
    "bit flipped in the manifest": lambda step: flip_bit(step / MANIFEST),
    "half deleted": lambda step: shutil.rmtree(step / "d"),
    "without a manifest": lambda step: (step / MANIFEST).unlink(),
    "of another version": lambda step: update_manifest(step, format=FORMAT + 1),
    "a symbolic link": lambda step: step.rename(step.parent / "away") and step.symlink_to(step.parent / "away"),
    "a file": lambda step: shutil.rmtree(step) or step.write_text("not a folder"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_skipped(tmp_path, experiment, complete, caplog, record_property, name):
    caplog.set_level(logging.INFO, "mnist_jax")
    workdir = tmp_path / "damaged"
    (workdir / "checkpoints").mkdir(parents=True)
    shutil.copytree(complete / "checkpoints" / "seed-7", workdir / "checkpoints" / "seed-7")
    DAMAGE[name](workdir / "checkpoints" / "seed-7" / "21")
    record_property("fault", (f"checkpoint {name}", 1, 0))
    run(experiment, workdir, quiet=True)
    (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert re.search("21: .*: skipped$", warning.message) and "seed 7: resuming from step 14" in caplog.messages
    assert_same_run(workdir, complete)
    record_property("fault", (f"checkpoint {name}", 0, 1))


def test_the_command_line_reports_what_it_skips_and_resumes(tmp_path, folder):
    workdir = tmp_path / "run"
    assert finish("perceptron", folder, workdir, "--epochs=2")[0] == 0
    shutil.rmtree(workdir / "state")
    (workdir / "result.json").unlink()
    flip_bit(workdir / "checkpoints" / "seed-7" / "14" / MANIFEST)
    status, _, err = finish("perceptron", folder, workdir, "--epochs=2", "--noquiet")
    expected = [
        f"loading idx:{folder}",
        r"compiling perceptron for cpu \(630 train, 70 validation, 130 test images\)",
        "warning: .*14: a damaged checkpoint .*: skipped",
        f"training seed 7, writing {workdir}",
        "seed 7: resuming from step 7",
        ".*epoch 2/2.*",
        "scoring",
    ]
    lines = iter(err.splitlines())
    assert status == 0 and all(any(re.fullmatch(one, line) for line in lines) for one in expected), err


def test_a_run_whose_checkpoints_are_all_damaged_starts_from_scratch(experiment, complete, unfinished, caplog):
    for step in checkpoints(unfinished):
        flip_bit(step / MANIFEST)
    run(experiment, unfinished, quiet=True)
    assert "skipped" in caplog.text
    assert_same_run(unfinished, complete)


def test_a_damaged_final_state_is_written_again(experiment, complete, unfinished):
    shutil.copytree(complete / "state", unfinished / "state")
    flip_bit(unfinished / "state" / "seed-7" / MANIFEST)
    run(experiment, unfinished, quiet=True)
    assert_same_run(unfinished, complete)


@pytest.mark.parametrize("name", ["state", "checkpoints", "checkpoints/seed-7", "metrics.jsonl", LOCK])
def test_symbolic_links_in_a_workdir_are_not_followed(tmp_path, experiment, name):
    (tmp_path / "away" / "kept").mkdir(parents=True)
    link = tmp_path / "run" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "away")
    (tmp_path / "run" / ".mine.7").touch()
    with pytest.raises(ConfigError, match="is a symbolic link, which a run does not follow"):
        run(experiment, tmp_path / "run", quiet=True)
    assert [path.name for path in (tmp_path / "away").iterdir()] == ["kept"]
    link.unlink()
    run(experiment, tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / ".mine.7").exists(), "only temporary files of runs are removed"


def test_the_newest_and_the_best_are_kept(tmp_path, complete):
    state = load_run(complete).state
    kept = Checkpoints(tmp_path, max_to_keep=2)
    for step in (5, 10, 15, 20, 100):
        kept.save(state._replace(step=jax.numpy.int32(step)), {"best_step": 10})
    kept.wait()
    kept.close()
    assert kept.steps() == [100, 20, 10] and read_metadata(tmp_path / "10") == {"best_step": 10}
    kept._write(state._replace(step=jax.numpy.int32(30)), {"best_step": 10})
    assert kept.steps() == [100, 30, 20, 10], "a later step was skipped as damaged, and does not count"
    assert int(restore_state(tmp_path / "20", state).step) == 20


def test_a_state_that_cannot_be_written_leaves_the_previous_one(tmp_path, complete, monkeypatch):
    state = load_run(complete).state
    save_state(tmp_path / "state", state)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DataError, match="No space left on device"):
        save_state(tmp_path / "state", state)
    assert [path.name for path in tmp_path.iterdir()] == ["state"] and read_metadata(tmp_path / "state") == {}


def test_two_processes_do_not_share_a_workdir(tmp_path, experiment):
    script = """
import pathlib, sys, time
from mnist_jax.workdir import acquire_workdir
with acquire_workdir(pathlib.Path(sys.argv[1]), range(1), epochs=1, overwrite=False, resume="auto"):
    print("acquired", flush=True)
    time.sleep(99)
"""
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE) as owner:
        owner.stdout.readline()
        with pytest.raises(ConfigError, match="another process is writing there"):
            run(experiment, tmp_path, quiet=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK]
        owner.kill()
    run(experiment, tmp_path, quiet=True)
    assert (tmp_path / "result.json").exists()


def test_without_disk_space_it_ends_in_one_line_and_resumes_later(tmp_path, experiment, complete, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 0))
        with pytest.raises(DataError, match=r"can't be written \(No space left on device\); make room"):
            run(experiment, tmp_path, quiet=True)
    assert not (tmp_path / "result.json").exists()
    run(experiment, tmp_path, quiet=True)
    assert_same_run(tmp_path, complete)


def test_on_a_full_disk_it_ends_in_one_line_and_resumes_later(tmp_path, folder, record_property):
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


def test_a_failed_write_ends_the_run_in_one_line(tmp_path, folder, record_property):
    env = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    limited = ("bash", "-c", 'ulimit -f 20; exec "$@"', "-")
    child = start("perceptron", folder, tmp_path / "run", "--epochs=3", before=limited, env=env)
    _, err = child.communicate()
    assert child.returncode in (1, 2) and "start the same run again" in err, err
    assert not (tmp_path / "run" / "result.json").exists()
    assert finish("perceptron", folder, tmp_path / "run", "--epochs=3")[0] == 0
    record_property("fault", ("no space for a checkpoint", 1, 1))


def test_out_of_memory_is_one_line(tmp_path, experiment, monkeypatch):
    def fail(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    monkeypatch.setattr(runner, "train_seed", fail)
    with pytest.raises(ConfigError, match=r"^batch_size=100: the device ran out of memory"):
        run(experiment, tmp_path, quiet=True)


def test_on_nan_skip_counts_the_dropped_updates(tmp_path, experiment, caplog):
    (state,) = run(experiment, tmp_path, quiet=True, optimizer="sgd", learning_rate=1e30, on_nan="skip").states
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["train"]["skipped"] for line in lines][1:] == [7, 7] and int(state.step) == 21
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    assert re.search(r"seed 7: \d+ of 21 updates were dropped", caplog.text)


def test_a_clock_that_jumps_changes_nothing(tmp_path, experiment, complete, monkeypatch):
    calls, now = [], time.time
    monkeypatch.setattr(time, "time", lambda: now() + (calls.append(1) or 0) + 1e8 * (len(calls) > 60))
    run(experiment, tmp_path, quiet=True)
    assert len(calls) > 60
    assert_same_run(tmp_path, complete)


@pytest.mark.long
def test_a_long_run_keeps_its_memory_files_and_speed(tmp_path, dataset, record_property):
    """350,000 steps: as many as the lecture's CNN takes in two hours on two slow cores."""
    arrays = {part: getattr(dataset, part) for part in ("train_images", "train_labels", "test_images", "test_labels")}
    arrays = {part: array[..., 0] if array.ndim == 4 else array for part, array in arrays.items()}
    folder = write_folder(tmp_path / "all", arrays)
    steps_per_epoch = -(-round(0.9 * len(arrays["train_labels"])) // 20)
    flags = (f"--epochs={350_000 // steps_per_epoch}", "--checkpoint_every=3500", "--batch_size=20")
    child = start("softmax", folder, tmp_path / "run", "--hidden_sizes=", *flags)
    process, samples = psutil.Process(child.pid), []
    while child.poll() is None:
        time.sleep(1)
        steps = [int(path.name) for path in checkpoints(tmp_path / "run")]
        if steps and child.poll() is None:
            samples.append((time.monotonic(), max(steps), process.memory_info().rss, process.num_fds()))
    assert child.returncode == 0, child.communicate()[1]
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[3 * quarter :]
    growth = statistics.median(row[2] for row in late) / statistics.median(row[2] for row in early) - 1
    speeds = [(part[-1][1] - part[0][1]) / (part[-1][0] - part[0][0]) for part in (early, late)]
    fault = f"350,000 steps: memory {100 * growth:+.1f} %, speed {100 * (speeds[1] / speeds[0] - 1):+.0f} %"
    record_property("fault", (fault, 1, 0))
    assert abs(growth) < 0.02 and max(row[3] for row in late) <= max(row[3] for row in early)
    record_property("fault", (fault, 0, 1))
