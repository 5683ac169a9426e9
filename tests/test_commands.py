"""The commands evaluate, predict, load_data and neuron: what they compute, and where their files land."""

import importlib
import json
import os
import re
import shutil

import jax
import numpy as np
import pytest
from conftest import command, error_line, write_folder
from PIL import Image

from mnist_jax import figures, plots
from mnist_jax.commands import predict as predict_command
from mnist_jax.errors import ConfigError, DataError
from mnist_jax.experiment import Experiment
from mnist_jax.loaded_run import load_run
from mnist_jax.runner import run


def call(name, *positional, **flags):
    """Runs a command in this process."""
    module = importlib.import_module(f"mnist_jax.commands.{name}")
    module.main(module.Flags(**flags), [*map(str, positional)])


def files_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, folder):
    """A run of two seeds."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    experiment = Experiment("perceptron", dataset=f"idx:{folder}", epochs=3, hidden_sizes=(32,), num_seeds=2)
    run(experiment, workdir, quiet=True)
    return workdir


@pytest.fixture
def cwd(tmp_path, monkeypatch):
    """An empty current folder."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "cwd"


def changed(finished, workdir, **dataset):
    """A copy of the run, with another description of its data set."""
    shutil.copytree(finished, workdir)
    record = json.loads((workdir / "result.json").read_text())
    record["config"]["dataset"] = dataset.get("name", record["config"]["dataset"])
    record["dataset"] |= dataset
    (workdir / "result.json").write_text(json.dumps(record))
    return workdir


def test_evaluate_scores_all_seeds_as_one_network(finished, cwd, capsys):
    call("evaluate", workdir=f"{finished},{finished}", output="twice", ensemble=True)
    call("evaluate", workdir=str(finished), output="once", ensemble=True)
    once, twice = (json.loads((cwd / name / "evaluation.json").read_text()) for name in ("once", "twice"))
    assert once["run"]["seeds"] == [7, 8] and twice["run"]["seeds"] == [7, 8, 7, 8]
    assert once["loss"] == pytest.approx(twice["loss"], rel=1e-5) and once["confusion"] == twice["confusion"]
    runs = json.loads((finished / "result.json").read_text())["runs"]
    assert once["loss"] < np.mean([run["test"]["loss"] for run in runs])  # by Jensen's inequality
    with pytest.raises(ConfigError, match="run_seed=8: has no effect on an ensemble"):
        call("evaluate", workdir=str(finished), ensemble=True, run_seed=8)


def test_evaluate_lists_each_mistake(finished, cwd, capsys):
    call("evaluate", workdir=str(finished), output="test")
    mistakes = json.loads((cwd / "test" / "evaluation.json").read_text())["mistakes"]
    loaded = load_run(finished)
    images, labels = loaded.experiment.dataset.test_images, loaded.experiment.dataset.test_labels
    probabilities = np.asarray(jax.nn.softmax(loaded.logits(images)))
    wrong = np.flatnonzero(probabilities.argmax(-1) != labels)
    assert [one["row"] for one in mistakes] == wrong.tolist() and len(wrong) > 3
    for row, one in zip(wrong, mistakes, strict=True):
        assert (one["label"], one["prediction"]) == (str(labels[row]), str(probabilities[row].argmax()))
        assert one["probability"] == pytest.approx(probabilities[row].max(), abs=1e-5)


def test_evaluate_measures_calibration(finished, cwd, capsys):
    call("evaluate", workdir=str(finished), output="test")
    calibration = json.loads((cwd / "test" / "evaluation.json").read_text())["calibration"]
    loaded = load_run(finished)
    (images, labels), (held_out, held_out_labels) = (loaded.experiment.splits[name] for name in ("test", "validation"))

    def loss(temperature):
        log_p = jax.nn.log_softmax(loaded.logits(held_out) / temperature)
        return -float(np.mean(log_p[np.arange(len(held_out)), held_out_labels]))

    best = min(np.geomspace(0.1, 10, 400), key=loss)
    assert calibration["temperature"] == pytest.approx(best, rel=0.02)
    p = np.asarray(jax.nn.softmax(loaded.logits(images)), np.float64)
    confidence, right = p.max(axis=-1), p.argmax(axis=-1) == labels
    bins = [(confidence >= i / 15) & (confidence < (i + 1) / 15 + (i == 14)) for i in range(15)]
    expected = sum(abs(confidence[rows].sum() - right[rows].sum()) for rows in bins) / len(labels)
    assert calibration["error"] == pytest.approx(expected, abs=1e-6)
    line = f"expected calibration error {expected:.4f}; {calibration['error_scaled']:.4f} at a temperature of"
    assert line in capsys.readouterr().out


def test_evaluate_repeats_the_runs_own_score(finished, cwd, capsys):
    runs = json.loads((finished / "result.json").read_text())["runs"]
    for flags, one, split in ({}, runs[0], "test"), ({"run_seed": 8, "split": "validation"}, runs[1], "validation"):
        call("evaluate", workdir=str(finished), output=split, **flags)
        printed = capsys.readouterr().out
        record = json.loads((cwd / split / "evaluation.json").read_text())
        assert record["run"] == {"workdir": str(finished), "experiment": "perceptron", "seeds": [one["seed"]]}
        assert {name: record[name] for name in ("count", "loss", "accuracy")} == pytest.approx(one[split])
        assert f"accuracy {record['accuracy']:.4f}; {record['count']} images" in printed
        matrix = np.array(record["confusion"])
        assert matrix.sum() == record["count"] and np.trace(matrix) == round(record["accuracy"] * record["count"])
        for i, row in enumerate(record["classes"].values()):
            predicted = matrix[:, i].sum()
            assert row["precision"] == (pytest.approx(matrix[i, i] / predicted) if predicted else None)
            assert row["recall"] == pytest.approx(matrix[i, i] / matrix[i].sum())
        assert (cwd / split / "confusion.png").stat().st_size > 1000


def test_predict_reads_each_image(tmp_path, finished, folder, small):
    images = shutil.copy(folder / "t10k-images-idx3-ubyte.gz", tmp_path / "images")
    bad = (tmp_path / "none.png", tmp_path, "")
    process = command(f"--workdir={finished}", "--json", images, *bad, experiment="predict")
    assert process.returncode == 1
    reasons = ("none.png: can't be read: No such file", ": a folder that holds no picture", "name of a file is empty")
    for line, reason in zip(process.stderr.splitlines(), reasons, strict=True):
        assert line.startswith("error: ") and reason in line
    records = [json.loads(line) for line in process.stdout.splitlines()]
    first = records[0]
    assert len(records) == 130 and first["runner_up"] != first["prediction"] and first["preprocessing"] == []
    is_correct = [int(one["prediction"]) == label for one, label in zip(records, small["test_labels"], strict=True)]
    result = json.loads((finished / "result.json").read_text())
    assert np.mean(is_correct) == pytest.approx(result["runs"][0]["test"]["accuracy"])
    lines = command(f"--workdir={finished}", images, experiment="predict").stdout.splitlines()
    line = rf".*images\[0\]: {first['prediction']}  [\d.]+ %  \(then {first['runner_up']}, [\d.]+ %\).*  \[unchanged\]"
    assert len(lines) == 130 and re.fullmatch(line, lines[0])


def test_predict_draws_digits_as_the_network_saw_them_under_their_files_names(
    finished, cwd, folder, small, capsys, monkeypatch
):
    drawn, grid = [], plots.image_grid
    monkeypatch.setattr(plots, "image_grid", lambda *args, **options: drawn.append((*args, options)) or grid(*args))
    name = "a$x_{ph\x07to of a seven.png"
    Image.fromarray(small["test_images"][0]).save(name)
    call("predict", name, folder / "t10k-images-idx3-ubyte.gz", workdir=str(finished), show=True)
    ((images, titles, _, options),) = drawn
    np.testing.assert_array_equal(images[1:, ..., 0], small["test_images"][:63])
    assert options == {"cmap": "gray"}
    assert re.fullmatch(r"a\\\$x_\{ph\?…ven\.png\n\d \(\d+\.\d %\)(\nunsure)?", titles[0]) and "\n" in titles[1]
    assert capsys.readouterr().out.endswith(" (the first 64 are drawn)\n")


def test_names_over_pictures_are_short():
    assert predict_command._shorten("folder/seven.png") == "seven.png"
    assert predict_command._shorten("\udcff.png") == "?.png"  # a name that is not UTF-8
    shortened = predict_command._shorten("t10k-images-idx3-ubyte.gz[129]")
    assert len(shortened) == predict_command.MAX_NAME and shortened.endswith("[129]")


def test_load_data_prints_statistics_and_draws_four_different_digits(cwd, folder, small, capsys, monkeypatch):
    drawn, grid = [], plots.image_grid
    monkeypatch.setattr(plots, "image_grid", lambda *args: drawn.append(args) or grid(*args))
    call("load_data", dataset=f"idx:{folder}", grid=True, output="some")
    printed = capsys.readouterr().out
    assert "images (630, 28, 28, 1) uint8" in printed and "images (130, 28, 28, 1)" in printed
    assert f"pixel mean {small['test_images'].mean():.2f}" in printed
    assert files_in(cwd) == {"some/images.png", "some/classes.png"}
    ((images, titles, _),) = drawn
    assert titles == [f"label {digit}" for digit in range(4)]
    for digit, image in enumerate(images):
        first = small["train_images"][np.argmax(small["train_labels"] == digit)]
        np.testing.assert_array_equal(image[..., 0], first)


def test_neuron_separates_explains_and_meets_xor(cwd, capsys):
    both = {"perceptron_rule.png", "gradient_descent.png"}
    for number, (flags, output, drawn) in enumerate(
        (
            ({"explain": True}, "new C = ", set()),
            ({"points": "xor"}, "No line separates", both),
            ({"points": "xor", "hidden_size": 2}, "0 errors in 100 points", {"network.png"}),
            ({}, "perceptron rule: A = .* 0 errors in 100 points", both),
        )
    ):
        call("neuron", output=str(number), **flags)
        assert re.search(output, capsys.readouterr().out)
        assert files_in(cwd / str(number)) == drawn


WRITERS = {  # from commands to flags, the beginning of the folder's name, and files
    "evaluate": (
        {"workdir": "RUN"},
        "evaluate-perceptron-idx-test",
        {"evaluation.json", "confusion.png", "mistakes.png", "calibration.png"},
    ),
    "predict": ({"workdir": "RUN", "show": True}, "predict", {"predictions.png"}),
    "load_data": ({"dataset": "idx:DATA"}, "load_data-idx", {"images.png"}),
    "neuron": ({"epochs": 5}, "neuron", {"perceptron_rule.png", "gradient_descent.png"}),
}


@pytest.fixture
def writer(finished, folder):
    """Calls a command that writes files, with more flags."""

    def call_writer(name, **flags):
        chosen = {
            key: value.replace("RUN", str(finished)).replace("DATA", str(folder)) if isinstance(value, str) else value
            for key, value in WRITERS[name][0].items()
        }
        positional = [folder / "t10k-images-idx3-ubyte.gz"] if name == "predict" else []
        call(name, *positional, **chosen, **flags)

    return call_writer


@pytest.mark.parametrize("name", WRITERS)
def test_a_command_writes_into_a_new_folder_under_runs(name, writer, cwd, finished, capsys):
    before = files_in(finished)
    _, stem, written = WRITERS[name]
    for _ in range(2):
        writer(name)
        (folder,) = re.findall(r"^Results: (\S+)", capsys.readouterr().out, re.MULTILINE)
        assert re.fullmatch(rf"runs/{stem}-\d{{8}}-\d{{6}}(-2)?", folder) and files_in(cwd / folder) == written
    assert len(files_in(cwd)) == 2 * len(written) and len([*cwd.glob("*/*")]) == 2
    assert files_in(finished) == before


@pytest.mark.parametrize("name", WRITERS)
def test_a_named_folder_is_not_overwritten_unless_it_is_said(name, writer, cwd, capsys, monkeypatch):
    writer(name, output="mine/too")
    held = WRITERS[name][2]
    assert files_in(cwd) == {f"mine/too/{file}" for file in held}
    assert "\nResults: mine/too" in capsys.readouterr().out
    for file in held:
        (cwd / "mine" / "too" / file).write_text("precious")
    with monkeypatch.context() as patch:
        patch.setattr(figures, "save", None)  # it does not come so far
        with pytest.raises(ConfigError, match=r"output=mine/too: already holds \w+\.\w+.*; .* or use overwrite=True"):
            writer(name, output="mine/too")
    assert all((cwd / "mine" / "too" / file).read_text() == "precious" for file in held)
    writer(name, output="mine/too", overwrite=True)
    assert all((cwd / "mine" / "too" / file).stat().st_size > 100 for file in held)
    assert files_in(cwd) == {f"mine/too/{file}" for file in held}


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("file", "Not a directory"),
        ("file/new", "Not a directory"),
        ("new/" + "x" * 300, "File name too long"),
        ("/proc/new/folder", "No such file or directory"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(cwd, output, reason):
    (cwd / "file").touch()
    with pytest.raises(ConfigError, match=rf"^output=\S+: can't be written: {reason}; choose another folder$"):
        call("load_data", dataset="nothing", output=output)
    assert [path.name for path in cwd.iterdir()] == ["file"]


def test_where_runs_cannot_be_made_a_folder_must_be_named(cwd):
    (cwd / "runs").touch()
    with pytest.raises(ConfigError, match="runs can't be written: Not a directory; name a folder with output=FOLDER"):
        call("load_data", dataset="nothing")


def test_no_folder_is_made_where_nothing_is_written(cwd):
    for output in ("", "new"):
        with pytest.raises(DataError, match="no such folder"):
            call("load_data", dataset="idx:nowhere", output=output)
    assert not [*cwd.iterdir()]


def test_a_relative_data_set_is_found_from_another_folder(tmp_path, finished, folder, cwd, capsys):
    relative = os.path.relpath(folder, tmp_path / "run")
    workdir = changed(finished, tmp_path / "run", name="idx:digits", from_workdir=relative)
    call("evaluate", workdir=str(workdir), output="a")
    assert f"images of idx:{folder}" in capsys.readouterr().out
    shutil.copytree(folder, cwd / "digits")  # from here, by the recorded name
    call("evaluate", workdir=str(workdir), output="b")
    assert "images of idx:digits" in capsys.readouterr().out


def test_other_data_are_not_evaluated_as_the_runs_own(tmp_path, finished, folder, small, cwd, capsys):
    workdir = changed(finished, tmp_path / "run", name="idx:digits", from_workdir="../moved")
    moved = re.escape(str(tmp_path / "moved"))
    advice = "name the data to use with dataset=NAME or data_dir=FOLDER$"
    with pytest.raises(DataError, match=rf"digits: no such folder; {moved}: no such folder; {advice}"):
        call("evaluate", workdir=str(workdir), output="out")
    write_folder(cwd / "digits", small | {"test_labels": small["test_labels"][::-1]})
    with pytest.raises(DataError, match=rf"idx:digits holds other data now, of SHA-256 \w+; {moved}: .*; {advice}"):
        call("evaluate", workdir=str(workdir), output="out")
    assert files_in(cwd / "digits") == files_in(folder) and not (cwd / "out").exists()
    call("evaluate", workdir=str(workdir), dataset="idx:digits", output="out")
    assert "images of idx:digits" in capsys.readouterr().out


DAMAGE = {
    "no result": lambda run: (run / "result.json").unlink(),
    "result not JSON": lambda run: (run / "result.json").write_text("{"),
    "result of something else": lambda run: (run / "result.json").write_text('{"a": 1}'),
    "no state": lambda run: shutil.rmtree(run / "state"),
    "half a state": lambda run: shutil.rmtree(next((run / "state" / "seed-7").glob("d"), run / "state" / "seed-7")),
    "another model": lambda run: (run / "result.json").write_text(
        (run / "result.json").read_text().replace('"model": "perceptron"', '"model": "softmax"')
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_run_is_one_line(tmp_path, finished, cwd, name):
    workdir = shutil.copytree(finished, tmp_path / "run")
    DAMAGE[name](workdir)
    with pytest.raises(DataError, match=re.escape(str(workdir))) as caught:
        call("evaluate", workdir=str(workdir))
    assert "\n" not in str(caught.value) and not [*cwd.iterdir()]


@pytest.mark.parametrize(
    ("experiment", "args", "status", "message"),
    [
        ("evaluate", [], 2, "name the folder of a run"),
        ("evaluate", ["--workdir=nowhere"], 1, "no such folder"),
        ("evaluate", ["--workdir=RUN", "--run_seed=99"], 2, "--run_seed=99: .* has 7, 8"),
        ("evaluate", ["--workdir=RUN", "--split=all"], 2, "--split=all: .* Known: test, train, validation"),
        ("evaluate", ["--workdir=RUN", "--dataset=idx:FEWER"], 1, "has 3 classes, the run has 10"),
        ("evaluate", ["--workdir=RUN", "--dataset=idx:SMALLER"], 1, "its images are 20x20x1, the run's are 28x28x1"),
        ("evaluate", ["--workdir=FLOAT"], 1, "its images are uint8, the run's are float32"),
        ("predict", ["--workdir=RUN"], 2, "no FILE"),
        ("neuron", ["--points=nowhere.csv"], 1, "nowhere.csv: can't be read"),
        ("neuron", ["--epochs=0"], 2, "--epochs=0: must be at least 1"),
        ("load_data", ["--dataset=mnsit"], 2, "did you mean 'mnist'"),
        ("load_data", ["--output=RUN/result.json"], 2, r"--output=\S+: can't be written: Not a directory"),
        ("load_data", ["--output=HELD"], 2, r"--output=\S+: already holds images.png; .*, or use --overwrite$"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(tmp_path, finished, small, experiment, args, status, message):
    few = {part: (array % 3 if part.endswith("labels") else array) for part, array in small.items()}
    cut = {part: (array if part.endswith("labels") else array[:, :20, :20]) for part, array in small.items()}
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "images.png").touch()
    folders = {
        "RUN": lambda: finished,
        "FEWER": lambda: write_folder(tmp_path / "few", few),
        "SMALLER": lambda: write_folder(tmp_path / "cut", cut),
        "FLOAT": lambda: changed(finished, tmp_path / "float", image_dtype="float32"),
        "HELD": lambda: tmp_path / "held",
    }
    for name, make in folders.items():
        args = [arg.replace(name, str(make())) if name in arg else arg for arg in args]
    process = command(*args, experiment=experiment)
    assert process.returncode == status and process.stdout == ""
    assert re.search(message, error_line(process.stderr))
