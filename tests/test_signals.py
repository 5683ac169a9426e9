"""SIGINT and SIGTERM at any moment: one line, exit status 130 or 143, and the same command ends with the same bits."""

import itertools
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from test_reliability import assert_same_run, checkpoints, finish, start

from mnist_jax.process import NUMBERS

FLAGS = ("--epochs=30", "--num_seeds=2", "--checkpoint_every=50")


def is_python_alone(child):
    """Whether only Python itself, or nobody, handles the signals: before our first line, and after our last one."""
    with open(f"/proc/{child.pid}/status") as status:
        caught = int(re.search(r"SigCgt:\s*(\w+)", status.read()).group(1), 16)
    return not caught >> (signal.SIGTERM - 1) & 1


def send_signal(child, number, moment):
    """Sends a signal at a moment, in seconds; returns where it came, and checks how the process ends."""
    time.sleep(moment)
    if child.poll() is not None:
        assert child.returncode == 0, child.communicate()[1]
        return "after the end"
    python_alone = is_python_alone(child)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    if child.returncode == 0 and not err:
        return "at the very end, with everything written"
    if python_alone:
        assert child.returncode in (-number, 128 + number), err
        return "while Python itself starts or ends"
    assert child.returncode == 128 + number and len(err.splitlines()) == 1, (child.returncode, err)
    assert err.startswith(f"stopped by {number.name}"), err
    return "in training" if "saved at step" in err else "elsewhere"


@pytest.mark.parametrize("count", [pytest.param(5, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.long)])
def test_signals_at_random_moments(tmp_path, folder, record_property, count):
    begin = time.monotonic()
    status, _, err = finish("perceptron", folder, tmp_path / "complete", *FLAGS)
    assert status == 0, err
    seconds = time.monotonic() - begin
    seed = random.randrange(10**6)
    print("random seed", seed)
    moments, sent, places = random.Random(seed), 0, {}
    workdirs = (tmp_path / f"stopped-{i}" for i in itertools.count())
    workdir = next(workdirs)
    for number in itertools.cycle(NUMBERS):
        child = start("perceptron", folder, workdir, *FLAGS)
        place = send_signal(child, number, moments.uniform(0, 1.1 * seconds))
        if place != "after the end":
            places[place] = places.get(place, 0) + 1
            sent += 1
        if sent == count and not (workdir / "result.json").exists():
            assert finish("perceptron", folder, workdir, *FLAGS)[0] == 0
        if (workdir / "result.json").exists():
            assert_same_run(workdir, tmp_path / "complete")
            workdir = next(workdirs)
        if sent == count:
            break
    print(places)
    for place, times in places.items():
        record_property("fault", (f"SIGINT or SIGTERM {place}", times, times))


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_in_training_saves_a_checkpoint(tmp_path, folder, number):
    child = start("perceptron", folder, tmp_path / "run", "--epochs=3000", "--checkpoint_every=100000")
    while child.poll() is None and not (tmp_path / "run" / "metrics.jsonl").exists():
        time.sleep(0.01)
    assert send_signal(child, number, 1.0) == "in training"
    assert checkpoints(tmp_path / "run")


@pytest.mark.parametrize("flags", [("--epochs=0", "--num_seeds=20000"), ("--epochs=0", "--num_seeds=1000000")])
def test_seeds_without_epochs_stop_too(tmp_path, folder, flags):
    child = start("perceptron", folder, tmp_path / "run", *flags)
    while child.poll() is None and not (tmp_path / "run" / "config.json").exists():
        time.sleep(0.01)
    assert send_signal(child, signal.SIGTERM, 1.0) == "elsewhere"


@pytest.mark.parametrize("argument", ["neuron --epochs=100000 --hidden_size=50 --output=OUT", "load_data --output=OUT"])
def test_other_commands_stop_in_one_line(tmp_path, argument):
    argv = [sys.executable, "-m", "mnist_jax", *argument.replace("OUT", str(tmp_path / "out")).split()]
    child = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while child.poll() is None and is_python_alone(child):
        time.sleep(0.001)
    assert send_signal(child, signal.SIGINT, 0.3) == "elsewhere"
    assert not (tmp_path / "out").exists()


def run_script(body):
    script = f"import ctypes, os, signal, time\nfrom mnist_jax.process import defer_signals, exit_on_signals\n{body}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)


def test_a_second_signal_ends_the_process_at_once():
    process = run_script("""
with defer_signals() as stop_signal:
    os.kill(os.getpid(), signal.SIGINT)
    while not stop_signal():
        time.sleep(0.001)
    print("deferred", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    ctypes.CDLL(None).sleep(60)  # runs no Python bytecode
    print("not reached", flush=True)
""")
    assert process.returncode == 128 + signal.SIGTERM and process.stdout == "deferred\n"


def test_a_signal_is_seen_while_no_python_runs():
    process = run_script("""
exit_on_signals("; more", lambda: print("cleaned up", flush=True))
import threading
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
for _ in range(2):  # the signal ends the first one
    ctypes.CDLL(None).sleep(60)
""")
    assert process.returncode == 130 and process.stdout == "cleaned up\n"
    assert process.stderr == "stopped by SIGINT; more\n"


def test_a_deferred_signal_that_nobody_asked_about_has_its_usual_effect():
    process = run_script("""
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process may have been started to ignore it
try:
    with defer_signals():
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    print("interrupted", flush=True)
exit_on_signals()
with defer_signals():
    os.kill(os.getpid(), signal.SIGTERM)
time.sleep(5)
""")
    assert process.returncode == 143 and process.stdout == "interrupted\n", process.stderr
    assert process.stderr == "stopped by SIGTERM\n"


def test_a_signal_after_the_end_does_not_stop_what_has_ended():
    process = run_script("""
from mnist_jax.process import ignore_signals
exit_on_signals()
ignore_signals()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(0.2)
print("ended")
""")
    assert (process.returncode, process.stdout, process.stderr) == (0, "ended\n", "")
