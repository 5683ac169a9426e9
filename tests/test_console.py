"""Output that gets lost: closed pipes, full disks, closed descriptors, characters that can't be encoded."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.fixture
def tiny(folder):
    return (f"--dataset=idx:{folder}", "--epochs=1", "--hidden_sizes=8", "--batch_size=100")


def shell(command, *args, cwd=ROOT, **env):
    """Runs a command line; $0 in it is this Python, $1 and so on are the arguments."""
    argv = ["bash", "-c", command, sys.executable, *map(str, args)]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, env=os.environ | env)


@pytest.mark.parametrize(
    "redirection",
    [
        "| head -c 1 >/dev/null; exit ${PIPESTATUS[0]}",
        "2>/dev/full",
        "2>&-",
        "2>&1 | true",
        "0<&- >&- 2>&-",
    ],
)
def test_a_run_ends_well_wherever_its_output_goes(tmp_path, tiny, redirection):
    process = shell(f'"$0" -m experiments.perceptron "$@" --summary {redirection}', *tiny, f"--workdir={tmp_path}")
    assert process.returncode == 0, process.stderr
    assert json.loads((tmp_path / "result.json").read_text())["runs"]
    assert "Error" not in process.stderr.replace("Baseline Error", "").replace("Test Error", "")


def test_stdout_on_a_full_disk_is_said_after_the_files_are_written(tmp_path, tiny):
    process = shell('"$0" -m experiments.perceptron "$@" --quiet >/dev/full', *tiny, f"--workdir={tmp_path}")
    assert process.returncode == 1 and (tmp_path / "result.json").exists()
    assert process.stderr == "error: standard output can't be written: No space left on device\n"


@pytest.mark.parametrize("arguments", ["", "neuron --help", "neuron --explain", "nothing"])
def test_a_closed_pipe_is_no_error(arguments):
    process = shell(f'"$0" -m mnist_jax {arguments} | true')
    assert process.returncode == 0 and process.stderr in ("", shell('"$0" -m mnist_jax nothing').stderr)


def test_an_error_is_not_lost_with_its_message():
    assert shell('"$0" -m mnist_jax neuron --epochs=0 2>/dev/full').returncode == 2
    assert shell('"$0" -m mnist_jax neuron --epochs=0 2>&-').returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=lambda env: ",".join(env),
)
def test_a_path_that_is_not_ascii_is_written_and_printed_as_far_as_possible(tmp_path, folder, tiny, env):
    workdir = tmp_path / "größe-数"
    process = shell('"$0" -m experiments.perceptron "$@" --quiet --plots', *tiny, f"--workdir={workdir}", **env)
    assert process.returncode == 0 and process.stderr == ""
    assert process.stdout.startswith("Results: ") and process.stdout.isascii()
    assert {"result.json", "state", "confusion.png"} <= {path.name for path in workdir.iterdir()}
    files = [f"--workdir={workdir}", f"--dataset=idx:{folder}", f"--output={tmp_path / 'é'}"]
    process = shell('"$0" -m mnist_jax evaluate "$@"', *files, **env)
    assert process.returncode == 0 and process.stderr == "" and (tmp_path / "é" / "evaluation.json").exists()
