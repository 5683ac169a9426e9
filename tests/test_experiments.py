"""Every experiment from its command line, shrunk; what a user types wrong; and the README's own script."""

import json
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from mnist_jax.runner import load_run

ROOT = pathlib.Path(__file__).parents[1]
RECIPES = [path.stem for path in (ROOT / "experiments").glob("[!_]*.py") if "RECIPE" in path.read_text()]


def command(*args, experiment="perceptron"):
    words = [sys.executable, "-m", f"experiments.{experiment}", *map(str, args)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("experiment", RECIPES)
def test_recipe_runs_and_its_config_repeats_it(tmp_path, folder, experiment):
    shrunk = (f"--dataset=idx:{folder}", "--epochs=1", "--batch_size=100", "--hidden=16", "--filters=4,8")
    first = command(*shrunk, "--plots", f"--workdir={tmp_path / 'a'}", experiment=experiment)
    assert first.returncode == 0, first.stderr
    assert re.search(r"^Baseline Error: \d+\.\d\d%$", first.stdout.splitlines()[-1])
    assert "epoch 1/1" in first.stderr and "images/s" in first.stderr
    drawn = {path.stem for path in (tmp_path / "a").glob("*.png")}
    assert drawn >= {"learning_curves", "confusion", "mistakes"}
    again = command(f"--config={tmp_path / 'a' / 'config.json'}", "--quiet", f"--workdir={tmp_path / 'b'}")
    assert again.stderr == ""
    runs = [json.loads((tmp_path / name / "result.json").read_text())["runs"] for name in "ab"]
    assert runs[0] == runs[1]
    params = [load_run(tmp_path / name).state.params for name in "ab"]
    jax.tree.map(np.testing.assert_array_equal, *params)  # two processes, the same bits


def test_help_shows_our_flags_with_their_help():
    told = command("--help")
    assert told.returncode == 0
    for name in ("learning_rate", "batch_size", "epochs", "seed", "optimizer", "num_seeds", "dataset", "platform"):
        assert f"--{name}:" in told.stdout
    assert "absl" not in told.stdout


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["--dataset=mnsit"], 2, "did you mean 'mnist'"),
        (["--optimizer=adm"], 2, "did you mean 'adam'"),
        (["--batch_size=0"], 2, "--batch_size=0: must be at least 1"),
        (["--batch_size=-3"], 2, "must be at least 1"),
        (["--batch_size=ten"], 2, "--batch_size"),
        (["--epochs=-1"], 2, "--epochs=-1: must be at least 0"),
        (["--learning_rate=nan"], 2, "must be a finite number"),
        (["--validation_fraction=1"], 2, r"must be in \[0, 1\)"),
        (["--hidden=12,x"], 2, "--hidden=12,x: must be whole numbers"),
        (["--learning_rat=1"], 2, "learning_rate"),
        (["surplus"], 2, "is not a flag"),
        (["--platform=abacus"], 2, "platform=abacus"),
        (["--platform=tpu"], 2, "--platform=tpu: JAX finds no such platform"),
        (["--config=nowhere.json"], 2, "can't be read"),
        (["--dataset=idx:nowhere"], 1, "no such folder"),
        (["--data_dir=nowhere"], 1, "no such folder"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(tmp_path, args, status, message):
    told = command(*args, f"--workdir={tmp_path / 'work'}")
    assert told.returncode == status
    assert re.search(message, told.stderr) and len(told.stderr.splitlines()) == 1, told.stderr
    assert told.stdout == "" and not (tmp_path / "work").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"epocks": 1}', '{"epochs": "1"}', '{"hidden": [1.5]}'])
def test_bad_config_file_is_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    told = command(f"--config={tmp_path / 'config.json'}")
    assert told.returncode == 2 and len(told.stderr.splitlines()) == 1 and "--config" in told.stderr


def test_the_readmes_research_script(readme):
    (script,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    told = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert float(re.search(r"accuracy (\d\.\d+)", told.stdout)[1]) > 0.9
