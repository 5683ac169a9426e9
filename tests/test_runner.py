import json
import os
import re

import jax
import numpy as np
import pytest

from mnist_jax import devices, runner
from mnist_jax.config import config_from_dict
from mnist_jax.errors import ArgumentError, ConfigError, DataError, DivergedError
from mnist_jax.experiment import Experiment
from mnist_jax.files import write_json
from mnist_jax.process import defer_signals
from mnist_jax.runner import run


@pytest.fixture(scope="module")
def experiment(folder):
    return Experiment(dataset=f"idx:{folder}", hidden_sizes=(16,), epochs=2, batch_size=100)


def params(states):
    return [np.asarray(leaf) for leaf in jax.tree.leaves([state.params for state in states])]


@pytest.fixture(scope="module")
def reference(tmp_path_factory, experiment):
    return run(experiment, tmp_path_factory.mktemp("reference"), quiet=True)


def test_the_test_images_decide_nothing(tmp_path, experiment):
    """Not when to stop, nor what is kept, nor what a state is: other test images change the test scores alone."""
    data = experiment.dataset
    other = data._replace(test_images=data.test_images[::-1], test_labels=(data.test_labels + 3) % 10)
    results = {}
    for name, dataset in ("one", data), ("other", other):
        own = Experiment(dataset=dataset, hidden_sizes=(16,), learning_rate=0.03, epochs=40, patience=2)
        results[name] = run(own, tmp_path / name, quiet=True, num_seeds=2)
    for a, b in zip(*(params(result.states) for result in results.values()), strict=True):
        np.testing.assert_array_equal(a, b)
    one, other = (result.record for result in results.values())
    for a, b in zip(one["runs"], other["runs"], strict=True):
        assert a.pop("test") != b.pop("test") and a == b and a["steps"] < 40 * 4
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in results]
    assert lines[0] == lines[1] and '"test"' not in lines[0]
    assert one["config"] == other["config"] and one["dataset"]["sha256"] != other["dataset"]["sha256"]


def test_result_holds_what_the_readme_promises(tmp_path, experiment):
    result = run(experiment, tmp_path, quiet=True, num_seeds=2)
    record = result.record
    assert json.loads((tmp_path / "result.json").read_text()) == json.loads(json.dumps(record))
    assert [one["seed"] for one in record["runs"]] == [7, 8]
    assert record["runs"][0]["steps"] == 14
    assert [record["runs"][0][split]["count"] for split in ("train", "validation", "test")] == [630, 70, 130]
    assert record["summary"] == result.summary and result.summary.keys() == {"train", "validation", "test"}
    assert result.summary["test"].keys() == {"loss", "accuracy"}
    for metric, summary in result.summary["test"].items():
        scores = [one["test"][metric] for one in record["runs"]]
        assert summary["n"] == 2 and summary["mean"] == pytest.approx(np.mean(scores))
        assert summary["std"] == pytest.approx(np.std(scores, ddof=1))
        assert (summary["min"], summary["max"]) == (min(scores), max(scores))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["seed"], line["epoch"], line["step"]) for line in lines] == [
        (7, 1, 7),
        (7, 2, 14),
        (8, 1, 7),
        (8, 2, 14),
    ]
    assert config_from_dict(json.loads((tmp_path / "config.json").read_text())).num_seeds == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.json",
        "metrics.jsonl",
        "result.json",
        "state",
    ]


@pytest.mark.parametrize("change", [{}, {"eval_every_epochs": 0}, {"num_seeds": 2}], ids=str)
@pytest.mark.parametrize("quiet", [True, False])
def test_same_seed_same_bits(tmp_path, experiment, reference, change, quiet):
    states = run(experiment, tmp_path, quiet=quiet, **change).states
    for first, second in zip(params(states[:1]), params(reference.states), strict=True):
        np.testing.assert_array_equal(first, second)


def test_another_seed_gives_other_bits(tmp_path, experiment, reference):
    states = run(experiment, tmp_path, quiet=True, seed=8).states
    assert any((first != second).any() for first, second in zip(params(states), params(reference.states), strict=True))


def test_divergence_names_the_step_and_keeps_the_config(tmp_path, experiment):
    with pytest.raises(DivergedError, match=r"seed 7: the loss became (nan|inf) in epoch 1, at step [23]"):
        run(experiment, tmp_path, quiet=True, optimizer="sgd", learning_rate=1e30, epochs=3)
    assert not (tmp_path / "result.json").exists() and (tmp_path / "config.json").exists()


def test_a_result_is_overwritten_only_on_request(tmp_path, experiment):
    (tmp_path / "result.json").write_text("precious")
    with pytest.raises(ConfigError, match="already holds a result"):
        run(experiment, tmp_path, quiet=True)
    assert (tmp_path / "result.json").read_text() == "precious"
    run(experiment, tmp_path, quiet=True, overwrite=True, epochs=0)
    assert json.loads((tmp_path / "result.json").read_text())["runs"][0]["steps"] == 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"hidden_sizes": (10**9,)}, ConfigError, r"an epoch needs \d+\.\d GiB of memory, \d+\.\d are free"),
        ({"batch_size": 631}, ArgumentError, "batch_size=631: .* the number of images, 630"),
        ({"validation_fraction": 0.9999}, ConfigError, "validation_fraction=0.9999: leaves no images to train on"),
        ({"optimizer": "adm"}, ConfigError, "did you mean 'adam'"),
        ({"model": "perceptorn"}, ConfigError, "did you mean 'perceptron'"),
        ({"loss": "mse"}, ConfigError, "no such loss"),
        ({"dataset": "idx:/nowhere"}, DataError, "no such folder"),
        ({"platform": "abacus"}, ConfigError, "platform=abacus: JAX finds no such platform"),
        ({"platform": "gpu"}, ConfigError, "platform=gpu: JAX finds no such platform"),
    ],
    ids=str,
)
def test_a_bad_argument_is_refused_before_anything_is_written(tmp_path, experiment, change, error, message):
    if change.get("platform") == jax.default_backend():  # starts JAX, after which its platform can't be changed
        pytest.skip("this machine has one")
    with pytest.raises(error, match=message):
        run(experiment, tmp_path / "work", quiet=True, **change)
    assert not (tmp_path / "work").exists()


def test_it_says_what_it_is_doing_and_where_the_time_went(tmp_path, experiment, caplog):
    caplog.set_level("INFO", "mnist_jax")
    record = run(experiment, tmp_path, quiet=True, num_seeds=2, plots=True).record
    assert caplog.messages == [
        f"loading {experiment.config.dataset}",
        "compiling custom for cpu (630 train, 70 validation, 130 test images)",
        f"training seeds 7 to 8, writing {tmp_path}",
        "scoring",
    ]
    seconds = record["seconds"]
    assert [*seconds] == ["load", "compile", "train", "score", "plots", "total", "epochs"] and len(
        seconds["epochs"]
    ) == 4
    assert seconds["total"] == pytest.approx(sum(seconds[name] for name in [*seconds][:5]))


def test_a_relative_folder_of_data_is_recorded_as_seen_from_the_workdir(tmp_path, experiment, folder, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "digits").symlink_to(folder)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for path in ("data/digits", "./link/digits"):
        workdir = tmp_path / "runs" / path
        dataset = run(experiment, f"runs/{path}", quiet=True, epochs=0, dataset=f"idx:{path}").record["dataset"]
        assert not os.path.isabs(dataset["from_workdir"]) and (workdir / dataset["from_workdir"]).samefile(folder)
    dataset = run(experiment, "absolute", quiet=True, epochs=0, dataset=f"idx:{tmp_path}/data/digits").record["dataset"]
    assert "from_workdir" not in dataset


def test_seeds_cost_no_more_than_their_training(tmp_path, experiment, monkeypatch):
    written, deferred = [], []
    monkeypatch.setattr(
        runner, "write_json", lambda path, *values: written.append(path.name) or write_json(path, *values)
    )
    monkeypatch.setattr(runner, "defer_signals", lambda: deferred.append(1) or defer_signals())
    run(experiment, tmp_path, quiet=True, num_seeds=5)
    assert written.count("metrics.jsonl") == 2 and len(deferred) == 5, "and not for each seed those of all others"
    run(experiment, tmp_path, quiet=True, num_seeds=6)
    run(experiment, tmp_path / "untrained", quiet=True, num_seeds=5, epochs=0)
    assert len(deferred) == 6, "signals are deferred only where there is something to save"


def test_a_run_compiles_each_program_once(tmp_path, experiment, caplog):
    compiled = []
    for epochs, num_seeds in ((1, 1), (3, 2)):
        jax.clear_caches()
        caplog.clear()
        with jax.log_compiles():
            run(experiment, tmp_path / str(epochs), quiet=True, epochs=epochs, num_seeds=num_seeds)
        messages = (record.getMessage() for record in caplog.records)
        matches = (re.match(r"Finished XLA compilation of jit\((.*?)\)", message) for message in messages)
        compiled.append([match[1] for match in matches if match])
    for programs in compiled:
        assert programs.count("train_epoch") == 1 and programs.count("evaluate") == 3
        assert programs.count("init") == 1


def test_free_memory_respects_a_containers_limit(tmp_path):
    free = devices.free_memory(tmp_path)
    assert free > 1e8, "there is no limit"
    for name, text in {"max": "9000000", "current": "7000000", "stat": "anon 1\ninactive_file 500000"}.items():
        (tmp_path / f"memory.{name}").write_text(text + "\n")
    assert devices.free_memory(tmp_path) == 2500000
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.free_memory(tmp_path) > 1e8


def test_donated_memory_is_counted_once(monkeypatch):
    state = jax.ShapeDtypeStruct((1 << 18,), "float32")  # one MiB
    programs = [jax.jit(lambda x: x + 1, donate_argnums=which).lower(state).compile() for which in ((0,), ())]
    monkeypatch.setattr(devices, "free_memory", lambda: 1.5 * 2**20)
    devices.check_memory(programs[0], jax.devices("cpu")[0], 1)
    with pytest.raises(ConfigError, match="an epoch needs"):
        devices.check_memory(programs[1], jax.devices("cpu")[0], 1)
