import dataclasses
import json
import math
import sys

import jax
import pytest
from test_experiments import ROOT, command

from benchmarks import targets
from benchmarks.compare import GOALS, PRODUCTS, Row, compare, judge, operations
from experiments import benchmark, flags
from mnist_jax.train import make_parts

sys.path.insert(0, str(ROOT / "benchmarks" / "peers"))


@pytest.fixture(scope="module")
def ours():
    import ours

    return ours.MODELS


@pytest.mark.parametrize("model", PRODUCTS)
def test_operations_are_those_of_the_network_that_is_run(ours, model):
    config = dataclasses.replace(ours[model], dropout=0.0)
    parts = make_parts(config, 10, (28, 28, 1), 1)
    state = jax.eval_shape(parts.init, jax.random.key(0))
    kernels = [math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params) if len(leaf.shape) > 1]
    assert sorted(kernels) == sorted(size for _, size in PRODUCTS[model])

    def forward(params, image):
        return parts.model.apply({"params": params, **state.model_state}, image, train=False)

    if not state.model_state:  # XLA counts the other work too, which is small
        image = jax.ShapeDtypeStruct((1, 28, 28, 1), "float32")
        counted = jax.jit(forward).lower(state.params, image).compile().cost_analysis()["flops"]
        assert operations(model, "predict") == pytest.approx(counted, rel=0.1)
    assert operations(model, "train") < 3 * operations(model, "predict")


def test_goals_are_judged_by_the_fastest_peer():
    def row(model, precision, **speeds):
        contestants = {
            name: {"images_per_second": speed, "ours_is_faster_by": {"median": speeds.get("ours", 0) / speed}}
            for name, speed in speeds.items()
        }
        return {"model": model, "precision": precision, "task": "train", "contestants": contestants}

    rows = [row("cnn", "f32", ours=300, torch=100, torch_compile=120), row("cnn", "bf16", ours=300, torch=200)]
    judged = {goal["wanted"]: goal for goal in judge(rows)}
    assert len(GOALS) > len(judged) == 2
    assert judged[2.5]["reached"] == 3 and judged[2.5]["is_reached"]
    rows[0]["contestants"]["torch"]["ours_is_faster_by"]["median"] = 2.4  # of the rounds, not of the medians
    assert not next(goal for goal in judge(rows) if goal["wanted"] == 2.5)["is_reached"]
    rows[0]["contestants"]["ours"]["device"] = "gpu NVIDIA H100"
    rows.append(row("perceptron", "f32", ours=50, torch=2, torch_cuda_graphs=25))
    assert [goal["is_reached"] for goal in judge(rows)] == [True, False]
    rows[-1]["contestants"]["torch"]["device"] = "cpu"
    assert [goal["wanted"] for goal in judge(rows)] == [3.0], "PyTorch on a CPU says nothing of a GPU"
    assert judged[1.8]["reached"] == 1.5 and not judged[1.8]["is_reached"] and judged[1.8]["peer"] == "torch bf16"


def test_a_peer_that_fails_is_left_out_and_said(tmp_path, monkeypatch):
    told = {"images_per_second": [2.0, 4.0, 3.0], "compile_seconds": 1.0, "peak_memory_bytes": 5}
    told |= {"versions": {}, "device": "cpu", "operations_per_second": 1e9}
    monkeypatch.setattr("benchmarks.compare.run", lambda program, *_: "no torch" if "torch" in program else told)
    row = compare(Row("cnn", "f32", "train"), tmp_path, {"ours": "py", "torch": "py"}, 2, 3, 0, 9)
    assert row["failures"] == {"torch": "no torch"} and row["batch_size"] == 200
    assert row["contestants"]["ours"]["images_per_second"] == 3
    assert row["contestants"]["ours"]["ours_is_faster_by"] == {"median": 1, "min": 1, "max": 1}


def test_the_command_measures_us_and_plain_jax(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(benchmark, "QUICK_START", (f"--dataset=idx:{folder}", "--epochs=1", "--hidden=8"))
    monkeypatch.setitem(targets.TARGETS, "99.0", targets.Target("softmax", ("--epochs=1",), 0.2))
    words = (f"--dataset=idx:{folder}", "--models=softmax", "--precisions=f32", "--epochs=1", "--rounds=1")
    words += ("--targets=99.0", "--target_seeds=1")
    values = flags.define(benchmark.Choices())
    benchmark.main(values, values(["benchmark", *words, f"--workdir={tmp_path}"])[1:])
    result = json.loads((tmp_path / "benchmark.json").read_text())
    (row,) = result["rows"]
    assert row["failures"] == {} and set(row["contestants"]) == {"ours", "flax_plain"}
    assert all(one["images_per_second"] > 0 and one["peak_memory_bytes"] > 1e7 for one in row["contestants"].values())
    assert result["eight_seeds"]["ratio"]["median"] > 0 and result["start_up"]["quick_start_seconds"] > 0
    (target,) = result["targets"]
    assert "wanted_seconds" not in target and target["device"]["platform"] == "cpu"
    assert target["seconds_a_seed"] > 0 and target["is_reached"] is (target["test_accuracy"]["mean"] >= 0.99)
    assert set(result["start_up"]["second_start_phases"]) == {"import and exit", "load", "compile", "train"}
    assert (tmp_path / "speed.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--models=resnet", "no such models"),
        ("--precisions=f16", "f32"),
        ("--targets=99.9", "no such targets"),
        ("--rounds=0", "--rounds=0: must be at least 1"),
        ("--peers_python=torch=/nowhere/python", "must be PEER=PYTHON"),
        ("--peers_python=pytorch=python", "torch"),
    ],
)
def test_bad_input_is_one_line(tmp_path, word, message):
    told = command(word, f"--workdir={tmp_path / 'work'}", experiment="benchmark")
    assert told.returncode == 2 and message in told.stderr and len(told.stderr.splitlines()) == 1
    assert not (tmp_path / "work").exists()
