import dataclasses
import io
import json
import re

import jax
import numpy as np
import pytest

from mnist_jax import process, runner
from mnist_jax.config import Config, config_from_dict
from mnist_jax.errors import ConfigError, DataError, DivergedError
from mnist_jax.report import Progress


@pytest.fixture(scope="module")
def config(folder):
    return Config(dataset=f"idx:{folder}", hidden=(16,), epochs=2, batch_size=100)


def params(states):
    return [np.asarray(leaf) for leaf in jax.tree.leaves([state.params for state in states])]


@pytest.fixture(scope="module")
def reference(tmp_path_factory, config):
    return runner.run(config, tmp_path_factory.mktemp("reference"), quiet=True)


def test_result_holds_what_the_readme_promises(tmp_path, config):
    result, _ = runner.run(dataclasses.replace(config, num_seeds=2), tmp_path, quiet=True)
    assert json.loads((tmp_path / "result.json").read_text()) == json.loads(json.dumps(result))
    assert [run["seed"] for run in result["runs"]] == [7, 8]
    assert result["runs"][0]["steps"] == 14
    assert [result["runs"][0][split]["count"] for split in ("train", "validation", "test")] == [630, 70, 130]
    assert result["summary"]["test_accuracy"]["n"] == 2
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


@pytest.mark.parametrize("change", [{}, {"eval_every": 0}, {"num_seeds": 2}], ids=str)
@pytest.mark.parametrize("quiet", [True, False])
def test_same_seed_same_bits(tmp_path, config, reference, change, quiet):
    _, states = runner.run(dataclasses.replace(config, **change), tmp_path, quiet=quiet)
    for ours, theirs in zip(params(states[:1]), params(reference[1]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_another_seed_gives_other_bits(tmp_path, config, reference):
    _, states = runner.run(dataclasses.replace(config, seed=8), tmp_path, quiet=True)
    assert any((ours != theirs).any() for ours, theirs in zip(params(states), params(reference[1]), strict=True))


def test_divergence_says_where_and_keeps_the_last_good_metrics(tmp_path, config):
    wild = dataclasses.replace(config, optimizer="sgd", learning_rate=1e30, epochs=3)
    with pytest.raises(DivergedError, match=r"seed 7: the loss became (nan|inf) in epoch 1, at step [23]"):
        runner.run(wild, tmp_path, quiet=True)
    assert not (tmp_path / "result.json").exists() and (tmp_path / "config.json").exists()


def test_a_result_is_not_overwritten_unless_said(tmp_path, config):
    (tmp_path / "result.json").write_text("precious")
    with pytest.raises(ConfigError, match="already holds a result"):
        runner.run(config, tmp_path, quiet=True)
    assert (tmp_path / "result.json").read_text() == "precious"
    runner.run(dataclasses.replace(config, epochs=0), tmp_path, quiet=True, overwrite=True)
    assert json.loads((tmp_path / "result.json").read_text())["runs"][0]["steps"] == 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"hidden": (10**9,)}, ConfigError, r"an epoch needs \d+\.\d GiB of memory, \d+\.\d are free"),
        ({"batch_size": 631}, ConfigError, "larger than the 630 training images"),
        ({"optimizer": "adm"}, ConfigError, "did you mean 'adam'"),
        ({"model": "perceptorn"}, ConfigError, "did you mean 'perceptron'"),
        ({"loss": "mse"}, ConfigError, "no such loss"),
        ({"dataset": "idx:/nowhere"}, DataError, "no such folder"),
    ],
)
def test_what_can_be_refused_is_refused_before_anything_is_written(tmp_path, config, change, error, message):
    with pytest.raises(error, match=message):
        runner.run(dataclasses.replace(config, **change), tmp_path / "work", quiet=True)
    assert not (tmp_path / "work").exists()


def test_a_workdir_that_cannot_be_written(tmp_path, config):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't be written"):
        runner.run(config, tmp_path / "file" / "work", quiet=True)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "quiet"), [(Terminal(), False), (io.StringIO(), False), (io.StringIO(), True)])
def test_progress(stream, quiet):
    with Progress(2, quiet, stream) as progress:
        record = {"seed": 7, "epoch": 1, "train": {"loss": 0.5, "accuracy": 0.75}, "validation": {"accuracy": 0.625}}
        progress.epoch(record, 1234.5)
    told = stream.getvalue()
    if quiet:
        assert told == ""
    else:
        assert "0.5000" in told and "0.7500" in told and "0.6250" in told and "1,234" in told
        assert ("\r" in told) == stream.isatty()


def test_a_run_compiles_each_program_once(tmp_path, config, caplog):
    compiled = []
    for epochs, num_seeds in ((1, 1), (3, 2)):
        jax.clear_caches()
        caplog.clear()
        with jax.log_compiles():
            longer = dataclasses.replace(config, epochs=epochs, num_seeds=num_seeds)
            runner.run(longer, tmp_path / str(epochs), quiet=True)
        told = (record.getMessage() for record in caplog.records)
        found = (re.match(r"Finished XLA compilation of jit\((.*?)\)", line) for line in told)
        compiled.append([match[1] for match in found if match])
    for programs in compiled:
        assert programs.count("train_epoch") == 1 and programs.count("evaluate") == 3
        assert programs.count("init_state") == 1


def test_free_memory_is_what_a_containers_limit_leaves(tmp_path):
    free = process.free_memory(tmp_path)
    assert free > 1e8, "no limit is told"
    for name, text in {"max": "9000000", "current": "7000000", "stat": "anon 1\ninactive_file 500000"}.items():
        (tmp_path / f"memory.{name}").write_text(text + "\n")
    assert process.free_memory(tmp_path) == 2500000
    (tmp_path / "memory.max").write_text("max\n")
    assert process.free_memory(tmp_path) > 1e8


def test_a_state_given_away_is_counted_once(monkeypatch):
    state = jax.ShapeDtypeStruct((1 << 18,), "float32")  # one MiB
    programs = [jax.jit(lambda x: x + 1, donate_argnums=which).lower(state).compile() for which in ((0,), ())]
    monkeypatch.setattr(runner, "free_memory", lambda: 1.5 * 2**20)
    runner.refuse_what_does_not_fit(programs[0], jax.devices("cpu")[0], 1)
    with pytest.raises(ConfigError, match="an epoch needs"):
        runner.refuse_what_does_not_fit(programs[1], jax.devices("cpu")[0], 1)
