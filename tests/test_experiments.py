"""Every experiment from its command line, shrunk; what a user types wrong; and the README's own script."""

import dataclasses
import importlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import write_folder

from mnist_jax.config import config_from_dict
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


def test_a_second_start_takes_its_programs_from_the_cache(tmp_path, folder):
    script = """
import sys
import jax
from experiments import flags, perceptron
jax.monitoring.register_event_listener(lambda event, **_: print(event))
flags.main(perceptron.RECIPE, perceptron.__doc__)
"""
    told = []
    for workdir in ("first", "second"):
        words = (f"--dataset=idx:{folder}", "--epochs=1", "--quiet", f"--workdir={tmp_path / workdir}")
        place = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "kept")}
        child = subprocess.run(
            [sys.executable, "-c", script, *words], capture_output=True, text=True, env=place, cwd=ROOT
        )
        assert child.returncode == 0, child.stderr
        kept = len(list((tmp_path / "kept").glob("*-cache")))
        told.append((child.stdout.count("cache_hits"), child.stdout.count("cache_misses"), kept))
    (hits, misses, kept), (later_hits, later_misses, _) = told  # which are worth keeping depends on their seconds
    assert kept and hits == 0 and later_hits == kept and later_misses < misses


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


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"experiment": "../../x"}', '{"epocks": 1}', '{"epochs": "1"}', '{"hidden": [1.5]}']
)
def test_bad_config_file_is_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    told = command(f"--config={tmp_path / 'config.json'}")
    assert told.returncode == 2 and len(told.stderr.splitlines()) == 1 and "--config" in told.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory, folder):
    workdir = tmp_path_factory.mktemp("finished") / "run"
    words = (f"--dataset=idx:{folder}", "--epochs=3", "--hidden=32", "--num_seeds=2", "--quiet", f"--workdir={workdir}")
    assert command(*words).returncode == 0
    return workdir


def test_evaluate_repeats_the_runs_own_score(finished):
    own = json.loads((finished / "result.json").read_text())["runs"]
    for words, run, split in ((), own[0], "test"), (["--run_seed=8", "--split=validation"], own[1], "validation"):
        told = command(f"--workdir={finished}", *words, experiment="evaluate")
        assert told.returncode == 0, told.stderr
        found = json.loads((finished / f"evaluate-idx-{split}" / "evaluation.json").read_text())
        assert {name: found[name] for name in ("count", "loss", "accuracy")} == pytest.approx(run[split])
        assert f"accuracy {100 * found['accuracy']:.2f} %" in told.stdout
        matrix = np.array(found["confusion"])
        assert matrix.sum() == found["count"] and np.trace(matrix) == round(found["accuracy"] * found["count"])
        for i, row in enumerate(found["classes"].values()):
            answered = matrix[:, i].sum()
            assert row["precision"] == (pytest.approx(matrix[i, i] / answered) if answered else None)
            assert row["recall"] == pytest.approx(matrix[i, i] / matrix[i].sum())
        assert (finished / f"evaluate-idx-{split}" / "confusion.png").stat().st_size > 1000


def test_predict_tells_each_image(tmp_path, finished, folder, small):
    shutil.copy(folder / "t10k-images-idx3-ubyte.gz", tmp_path / "some")
    told = command(f"--workdir={finished}", "--json", tmp_path / "some", tmp_path / "none.png", experiment="predict")
    assert told.returncode == 1 and told.stderr.count("\n") == 1 and "none.png" in told.stderr
    answers = [json.loads(line) for line in told.stdout.splitlines()]
    assert len(answers) == 130 and answers[0]["runner_up"] != answers[0]["digit"]
    right = np.mean(
        [int(answer["digit"]) == label for answer, label in zip(answers, small["test_labels"], strict=True)]
    )
    scored = json.loads((finished / "result.json").read_text())["runs"][0]["test"]["accuracy"]
    assert right == pytest.approx(scored)
    plain = command(f"--workdir={finished}", tmp_path / "some", experiment="predict").stdout.splitlines()
    assert re.fullmatch(rf".*some\[0\]: {answers[0]['digit']}  [\d.]+ %  \(then \d, [\d.]+ %\)  \[as it is\]", plain[0])


def damage(name):
    return {
        "no result": lambda run: (run / "result.json").unlink(),
        "result not JSON": lambda run: (run / "result.json").write_text("{"),
        "result of something else": lambda run: (run / "result.json").write_text('{"a": 1}'),
        "no state": lambda run: shutil.rmtree(run / "state"),
        "half a state": lambda run: shutil.rmtree(next((run / "state" / "seed-7").glob("d"), run / "state" / "seed-7")),
        "another model": lambda run: (run / "result.json").write_text(
            (run / "result.json").read_text().replace('"model": "perceptron"', '"model": "softmax"')
        ),
    }[name]


@pytest.mark.parametrize(
    "name", ["no result", "result not JSON", "result of something else", "no state", "half a state", "another model"]
)
def test_a_broken_run_is_one_line(tmp_path, finished, name):
    run = shutil.copytree(finished, tmp_path / "run")
    damage(name)(run)
    told = command(f"--workdir={run}", experiment="evaluate")
    assert told.returncode == 1 and len(told.stderr.splitlines()) == 1 and str(run) in told.stderr, told.stderr


@pytest.mark.parametrize(
    ("experiment", "args", "status", "message"),
    [
        ("evaluate", [], 2, "name the folder of a run"),
        ("evaluate", ["--workdir=nowhere"], 1, "no such folder"),
        ("evaluate", ["--workdir=RUN", "--run_seed=99"], 2, "has 7, 8"),
        ("evaluate", ["--workdir=RUN", "--split=all"], 2, "must be test, validation or train"),
        ("evaluate", ["--workdir=RUN", "--dataset=idx:FEWER"], 1, "has 3 classes, the run has 10"),
        ("evaluate", ["--workdir=RUN", "--dataset=idx:SMALLER"], 1, "its images are 20x20x1, the run's are 28x28x1"),
        ("predict", ["--workdir=RUN"], 2, "no FILE"),
        ("neuron", ["--points=nowhere.csv"], 1, "nowhere.csv: can't be read"),
        ("neuron", ["--epochs=0"], 2, "--epochs=0: must be at least 1"),
        ("load_data", ["--dataset=mnsit"], 2, "did you mean 'mnist'"),
        ("cnn", ["--filters=8,8,8,8,8"], 2, "too small for 5 stages"),
        ("perceptron", ["--loss=hinge", "--label_smoothing=0.1"], 2, "hinge has none"),
        ("perceptron", ["--patience=2", "--eval_every=0"], 2, "--patience=2: needs"),
    ],
    ids=str,
)
def test_other_commands_bad_input_is_one_line(tmp_path, finished, small, experiment, args, status, message):
    few = {part: (array % 3 if part.endswith("labels") else array) for part, array in small.items()}
    cut = {part: (array if part.endswith("labels") else array[:, :20, :20]) for part, array in small.items()}
    places = {
        "RUN": finished,
        "FEWER": write_folder(tmp_path / "few", few),
        "SMALLER": write_folder(tmp_path / "cut", cut),
    }
    for name, place in places.items():
        args = [word.replace(name, str(place)) for word in args]
    if experiment in ("cnn", "perceptron"):
        args = [*args, f"--dataset=idx:{places['FEWER']}", f"--workdir={tmp_path / 'work'}"]
    told = command(*args, experiment=experiment)
    assert told.returncode == status and told.stdout == "" and not (tmp_path / "work").exists()
    assert re.search(message, told.stderr) and len(told.stderr.splitlines()) == 1, told.stderr


def test_load_data_tells_the_facts_and_draws(tmp_path, folder, small):
    told = command(f"--dataset=idx:{folder}", "--grid", f"--workdir={tmp_path}", experiment="load_data")
    assert told.returncode == 0, told.stderr
    assert "images (630, 28, 28, 1) uint8" in told.stdout and "images (130, 28, 28, 1)" in told.stdout
    assert f"pixel mean {small['test_images'].mean():.2f}" in told.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"images.png", "classes.png"}


def test_neuron_separates_explains_and_meets_xor(tmp_path):
    for words, told_of, drawn in (
        (["--explain"], "new C = ", set()),
        (["--points=xor"], "No line separates", {"rosenblatt.png", "gradient_descent.png"}),
        (["--points=xor", "--hidden=2"], "errors 0 of 100", {"network.png"}),
        ([], "Rosenblatt's rule: A = .*errors 0 of 100", {"rosenblatt.png", "gradient_descent.png"}),
    ):
        workdir = tmp_path / "-".join(["run", *words])
        told = command(*words, f"--workdir={workdir}", experiment="neuron")
        assert told.returncode == 0 and re.search(told_of, told.stdout), told.stdout + told.stderr
        assert {path.name for path in workdir.glob("*")} == drawn


@pytest.fixture(scope="module")
def table():
    sys.path.insert(0, str(ROOT / "results"))
    return importlib.import_module("table")


def test_the_tables_are_made_from_the_result_files(table):
    for page in table.PAGES:
        assert table.render(page.read_text()) == page.read_text(), "run: python results/table.py"


@pytest.mark.parametrize("experiment", RECIPES)
def test_a_recipe_claims_what_its_result_file_holds(table, experiment):
    module = importlib.import_module(f"experiments.{experiment}")
    path = ROOT / "results" / f"{experiment}.json"
    mean, deviation, _, n = table.figures(table.errors_of(path))
    claim = f"Claim: test error {mean} (standard deviation {deviation}, n={n}), results/{path.name}."
    assert claim in module.__doc__
    made_by = config_from_dict(json.loads(path.read_text())["config"])
    where = {field: getattr(made_by, field) for field in ("dataset", "seed", "num_seeds")}
    assert made_by == dataclasses.replace(module.RECIPE, **where), "the recipe changed: measure it again"


def test_the_lectures_words_lead_to_what_is_there():
    rows = re.findall(
        r"^\| .*? \| .*? \| `(.*?)` \| `(\w+)(.*?)` \|$", (ROOT / "docs" / "lecture.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 35
    for file, experiment, words in rows:
        assert (ROOT / file).exists() and (ROOT / "experiments" / f"{experiment}.py").exists()
        source = (ROOT / "experiments" / f"{experiment}.py").read_text()
        source += (ROOT / "mnist_jax" / "config.py").read_text() + (ROOT / "experiments" / "flags.py").read_text()
        for flag in re.findall(r"--(?:no(?=from_))?(\w+)", words):
            assert f"    {flag}: " in source, (experiment, flag)


def test_the_readmes_research_script(readme):
    (script,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    told = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert float(re.search(r"accuracy (\d\.\d+)", told.stdout)[1]) > 0.9
