"""Every recipe and command from its command line, with small networks; wrong input; and the README's script."""

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import ROOT, command, error_line, mark_slow
from launch import run_python

from benchmarks.targets import TARGETS
from mnist_jax.cli import TrainFlags
from mnist_jax.config import Config, config_from_dict
from mnist_jax.fields import flags_of
from mnist_jax.flags import define_flags, explicit_values
from mnist_jax.loaded_run import load_run
from mnist_jax.models import make_model

RECIPES = sorted(path.stem for path in (ROOT / "experiments").glob("[!_]*.py"))
COMMANDS = sorted(path.stem for path in (ROOT / "mnist_jax" / "commands").glob("[!_]*.py"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, folder):
    workdir = tmp_path_factory.mktemp("teacher") / "run"
    assert command(f"--dataset=idx:{folder}", "--epochs=1", f"--workdir={workdir}").returncode == 0
    return workdir


@pytest.mark.parametrize("experiment", mark_slow(RECIPES, fast=["perceptron", "cnn_augmented", "deep_cnn"]))
def test_recipe_runs_and_its_config_repeats_it(tmp_path, folder, teacher, experiment):
    definition = importlib.import_module(f"experiments.{experiment}").EXPERIMENT
    taught = (f"--teacher={teacher}",) if "teacher" in definition.own_parts else ()
    small = (*taught, f"--dataset=idx:{folder}", "--epochs=1", "--batch_size=100", "--hidden_sizes=16", "--filters=4,8")
    first = command(*small, "--plots", f"--workdir={tmp_path / 'a'}", experiment=experiment)
    assert first.returncode == 0, first.stderr
    error = "Baseline Error" if experiment == "perceptron" else "Test Error"
    assert re.search(rf"^{error}: \d+\.\d\d%$", first.stdout.splitlines()[-1])
    assert re.search(r"^Time: [\d.]+ s \(load [\d.]+, compile .*, plots [\d.]+\)$", first.stdout.splitlines()[-2])
    assert "epoch 1/1" in first.stderr and "images/s" in first.stderr
    drawn = {path.stem for path in (tmp_path / "a").glob("*.png")}
    assert drawn >= {"learning_curves", "confusion", "mistakes"}
    flags = (f"--config={tmp_path / 'a' / 'config.json'}", "--quiet", f"--workdir={tmp_path / 'b'}")
    second = command(*flags, experiment=experiment)
    assert second.stderr == ""
    runs = [json.loads((tmp_path / name / "result.json").read_text())["runs"] for name in "ab"]
    assert runs[0] == runs[1]
    params = [load_run(tmp_path / name, definition if taught else None).state.params for name in "ab"]
    jax.tree.map(np.testing.assert_array_equal, *params)  # two processes, the same bits


def test_a_second_start_takes_its_programs_from_the_cache(tmp_path, folder):
    script = """
import jax
from experiments import perceptron
from mnist_jax import cli
jax.monitoring.register_event_listener(lambda event, **_: print(event))
cli.main(perceptron.EXPERIMENT, perceptron.__doc__)
"""
    counts = []
    for workdir in ("first", "second"):
        flags = (f"--dataset=idx:{folder}", "--epochs=1", "--quiet", f"--workdir={tmp_path / workdir}")
        env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
        del env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]  # which keeps everything, for the tests
        argv = [sys.executable, "-c", script, *flags]
        process = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=ROOT)
        assert process.returncode == 0, process.stderr
        cached = len(list((tmp_path / "cache").glob("*-cache")))
        counts.append((process.stdout.count("cache_hits"), cached))
    (hits, cached), (later_hits, _) = counts  # only what took long to compile is cached, which differs from run to run
    assert cached and hits == 0 and later_hits == cached


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]], ids=str)
def test_the_package_lists_its_commands_and_recipes(argv):
    process = run_python("-m", "mnist_jax", *argv)
    assert process.returncode == 0 and process.stderr == ""
    listed = dict(re.findall(r"^  (\w+) +(\S.*)$", process.stdout, re.MULTILINE))
    assert sorted(listed) == sorted(COMMANDS + RECIPES)
    for name, summary in listed.items():
        package = "experiments" if name in RECIPES else "mnist_jax.commands"
        assert importlib.import_module(f"{package}.{name}").__doc__.startswith(f"{summary}\n")


@pytest.mark.parametrize(("name", "suggestion"), [("evalaute", "evaluate"), ("perceptorn", "perceptron")])
def test_an_unknown_command_is_one_line(name, suggestion):
    process = run_python("-m", "mnist_jax", name)
    assert process.returncode == 2 and process.stdout == "" and len(process.stderr.splitlines()) == 1
    assert f"there is no command or recipe {name!r}; did you mean {suggestion!r}?" in process.stderr


def test_the_package_runs_recipes_too(tmp_path, folder):
    flags = (f"--dataset=idx:{folder}", "--epochs=0", "--quiet", f"--workdir={tmp_path / 'run'}")
    process = run_python("-m", "mnist_jax", "softmax", *flags)
    assert process.returncode == 0, process.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["experiment"] == "softmax"


def test_help_shows_our_flags_with_their_help():
    process = command("--help")
    assert process.returncode == 0
    for name in ("learning_rate", "batch_size", "epochs", "seed", "optimizer", "num_seeds", "dataset", "platform"):
        assert f"--{name}: " in process.stdout
    assert "absl" not in process.stdout


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
        (["--hidden_sizes=12,x"], 2, "--hidden_sizes=12,x: each item of a list must be a whole number"),
        (["--learning_rat=1"], 2, "learning_rate"),
        (["surplus"], 2, "is not a flag"),
        (["--platform=abacus"], 2, "--platform=abacus: JAX finds no such platform"),
        (["--platform=tpu"], 2, "--platform=tpu: JAX finds no such platform"),
        (["--config=nowhere.json"], 2, "can't be read"),
        (["--dataset=idx:nowhere"], 1, "no such folder"),
        (["--data_dir=nowhere"], 1, "no such folder"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(tmp_path, args, status, message):
    process = command(*args, f"--workdir={tmp_path / 'work'}")
    assert process.returncode == status
    assert re.search(message, error_line(process.stderr))
    assert process.stdout == "" and not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"name": "../../x"}', '{"epocks": 1}', '{"epochs": "1"}', '{"hidden_sizes": [1.5]}']
)
def test_bad_config_file_is_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    process = command(f"--config={tmp_path / 'config.json'}")
    assert process.returncode == 2 and len(process.stderr.splitlines()) == 1 and "--config" in process.stderr


@pytest.mark.parametrize(
    ("experiment", "args", "message"),
    [
        ("cnn", ["--filters=8,8,8,8,8"], "too small for 5 stages"),
        ("perceptron", ["--loss=hinge", "--label_smoothing=0.1"], "--label_smoothing=0.1: hinge does not have it"),
        ("perceptron", ["--batch_size=631"], "--batch_size=631: .* the number of images, 630"),
        ("perceptron", ["--patience=2", "--eval_every_epochs=0"], "--patience=2: needs"),
    ],
    ids=str,
)
def test_flags_that_do_not_fit_each_other_are_one_line(tmp_path, folder, experiment, args, message):
    process = command(*args, f"--dataset=idx:{folder}", f"--workdir={tmp_path / 'work'}", experiment=experiment)
    assert process.returncode == 2 and process.stdout == "" and not (tmp_path / "work").exists()
    assert re.search(message, error_line(process.stderr))


@pytest.fixture(scope="module")
def table():
    sys.path.insert(0, str(ROOT / "results"))
    return importlib.import_module("table")


def test_the_tables_hold_what_the_result_files_hold(table):
    for page in table.PAGES:
        assert table.render(page.read_text()) == page.read_text(), "run: python results/table.py"


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_claims_what_its_result_file_holds(table, recipe):
    module = importlib.import_module(f"experiments.{recipe}")
    path = ROOT / "results" / f"{recipe}.json"
    if "Result:" not in module.__doc__:
        assert not path.exists(), "state the result in the recipe's docstring"
        return
    mean, std, _, n = table.format_stats(table.read_test_errors(path))
    claim = f"Result: test error {mean} (standard deviation {std}, n={n}), results/{path.name}."
    assert claim in module.__doc__
    assert re.search(rf"^python -m experiments\.{recipe} .*--num_seeds={n}$", module.__doc__, re.MULTILINE)
    values = json.loads(path.read_text())["config"]
    config = module.EXPERIMENT.config
    measured = config_from_dict(values | {"teacher": ()} if "teacher" in values else values, config)
    assert (measured.name, measured.seed) == (config.name, config.seed)
    assert measured.deciding_bits() == config.deciding_bits(), "the recipe changed: measure it again"


ELSEWHERE = [path for folder in ("resplits", "digits") for path in sorted((ROOT / "results" / folder).glob("*.json"))]


@pytest.mark.parametrize("path", ELSEWHERE, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_is_not_tuned_again_for_other_test_images(path):
    recipe, _, split = path.stem.partition("-")
    values = json.loads(path.read_text())["config"]
    config = importlib.import_module(f"experiments.{recipe}").EXPERIMENT.config
    images = {name: values[name] for name in ("dataset", "image_size", "resplit", "seed", "num_seeds")}
    assert images["resplit"] == int(split or 0)
    measured = config_from_dict(values, config)
    assert measured.deciding_bits() == dataclasses.replace(config, **images).deciding_bits()


@pytest.mark.parametrize(
    "result", sorted((ROOT / "results" / "benchmark").glob("*cnn_9*.json")), ids=lambda one: one.stem
)
def test_the_readmes_command_and_the_benchmarks_target_are_what_earned_the_accuracy(readme, result):
    record = json.loads(result.read_text())
    name, accuracy = result.stem.rsplit("_", 1)
    assert record["summary"]["test"]["accuracy"]["mean"] >= float(accuracy) / 100
    base = importlib.import_module(f"experiments.{name}").EXPERIMENT.config
    measured = config_from_dict(record["config"], base).deciding_bits()
    section = readme[re.search(rf"^[^|\n]*`{result.stem}` is ", readme, re.MULTILINE).start() :]
    shown = re.search(r"```sh\npython -m experiments\.(\w+) (.*?)```", section, re.DOTALL)
    target = TARGETS[accuracy]
    assert shown[1] == target.experiment == name
    for flags in (shown[2].replace("\\\n", " ").split(), target.flags):
        values, _ = define_flags((base,))
        values(["", *flags])
        config = dataclasses.replace(base, **explicit_values(values, base))
        assert config.deciding_bits() == measured


def test_the_lecture_glossary_names_files_commands_and_flags_that_exist():
    page = (ROOT / "docs" / "lecture.md").read_text()
    rows = re.findall(r"^\| .*? \| .*? \| `(.*?)` \| `(\w+)(.*?)` \|$", page, re.MULTILINE)
    assert len(rows) > 35
    for file, name, args in rows:
        assert (ROOT / file).exists() and name in COMMANDS + RECIPES, (file, name)
        if name in RECIPES:
            known = flags_of(Config) | flags_of(TrainFlags)
        else:
            known = flags_of(importlib.import_module(f"mnist_jax.commands.{name}").Flags)
        for flag in re.findall(r"--(\w+)", args):
            negated = known.get(flag.removeprefix("no"))
            assert flag in known or (negated and negated.type is bool), (name, flag)


def test_the_readmes_script(readme):
    (script,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    process = run_python("-c", script)
    assert process.returncode == 0, process.stderr
    assert float(re.search(r"accuracy (\d\.\d+)", process.stdout)[1]) > 0.9


def test_seconds_of_a_recipe_count_the_epochs_that_a_resumed_run_did_not_time(table, tmp_path, monkeypatch):
    record = json.loads((ROOT / "results" / "softmax.json").read_text())
    record["config"]["epochs"], record["seconds"]["epochs"] = 10, [2.0, 4.0, 3.0]
    (tmp_path / "softmax.json").write_text(json.dumps(record))
    monkeypatch.setattr(table, "FOLDER", tmp_path)
    (recipe,) = table.load_recipes(["softmax"])
    assert recipe.seconds == 30


def test_the_pictures_multiply_adds_are_those_counted_by_hand(table):
    count = importlib.import_module("picture").count_multiply_adds
    lecture = {"hidden_sizes": (128,), "filters": (32,), "kernel_size": 5}
    deep = {"filters": (4, 8), "pooling": "avg_max"}
    by_hand = [
        ("perceptron", {}, 784 * 784 + 784 * 10),
        ("cnn", lecture, 24 * 24 * 25 * 32 + 12 * 12 * 32 * 128 + 128 * 10),
        ("deep_cnn", deep, 28 * 28 * 25 * 4 + 14 * 14 * 9 * (4 * 8 + 8 * 8) + 16 * 10),
        ("deep_cnn", deep | {"convs_per_stage": 3}, 28 * 28 * 25 * 4 + 14 * 14 * 9 * (4 * 8 + 2 * 8 * 8) + 16 * 10),
    ]
    for model, fields, expected in by_hand:
        config = Config(model=model, **{"hidden_sizes": (784,) if model == "perceptron" else (), **fields})
        assert count(make_model(config, 10)) == expected
