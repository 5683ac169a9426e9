import dataclasses
import json
import math
import sys

import jax
import pytest
from test_experiments import ROOT, command

from benchmarks import start_up, targets
from benchmarks.compare import BATCH, PRODUCTS, Row, compare, operations, seeds
from benchmarks.goals import GOALS, judge
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


def row(model, precision, **speeds):
    contestants = {
        name: {"images_per_second": speed, "ours_is_faster_by": {"median": speeds.get("ours", 0) / speed}}
        for name, speed in speeds.items()
    }
    told = {"model": model, "precision": precision, "task": "train", "batch_size": BATCH[model]}
    return told | {"contestants": contestants}


def judged(rows, **more):
    return {goal["goal"]: goal for goal in judge({"rows": rows, **more})}


def test_goals_are_judged_by_the_fastest_peer_and_what_is_not_measured_is_said():
    rows = [row("cnn", "f32", ours=300, torch=100, torch_compile=120), row("cnn", "bf16", ours=320, torch=200)]
    told = judged(rows)
    assert len(told) == len(GOALS) + 1 + 4 + 2
    assert {name for name, goal in told.items() if goal["reached"] is not None} == {
        "cnn f32 against torch f32",
        "cnn bf16 against torch bf16",
    }
    assert told["cnn f32 against torch f32"]["reached"] == 3 and told["cnn f32 against torch f32"]["is_reached"]
    best = told["cnn bf16 against torch bf16"]
    assert best["reached"] == 1.6 and best["is_reached"] is False, "our fastest setting against theirs"
    rows[0]["contestants"]["torch"]["ours_is_faster_by"]["median"] = 2.4  # of the rounds, not of the medians
    assert judged(rows)["cnn f32 against torch f32"]["is_reached"] is False
    rows[0]["contestants"]["ours"]["images_per_second"] = 400
    assert judged(rows)["cnn f32 against torch bf16"]["reached"] == 2, "between two rows, of the medians"
    rows[0]["batch_size"] = 32
    assert judged(rows)["cnn f32 against torch f32"]["reached"] is None, "goals are for the recipe's batch"


def test_a_gpu_has_its_own_goals_and_peers_on_the_cpu_do_not_count():
    rows = [row("perceptron", "f32", ours=50, torch=2, torch_cuda_graphs=25)]
    rows[0]["contestants"]["ours"]["device"] = "gpu NVIDIA H100"
    targets = [{"target": "99.0", "is_reached": True, "seconds_a_seed": 0.1}]
    targets += [{"target": "99.5", "is_reached": False, "seconds_a_seed": 0.1}]
    told = judged(rows, targets=targets, eight_seeds={"ratio": {"median": 5.0}})
    assert [goal["is_reached"] for goal in told.values()] == [True, False, False, True, False, None, None, None]
    rows[0]["contestants"]["torch"]["device"] = "cpu"
    assert judged(rows)["perceptron f32 against torch f32"]["reached"] is None


def test_time_to_an_accuracy_counts_only_where_it_is_reached():
    source = next(iter(targets.EXAMPLES))
    more = {"examples": [{"source": source, "seconds": 100.0}], "start_up": {"help_processor_seconds": 3.0}}
    for is_reached in (True, False):
        target = {"target": "99.0", "is_reached": is_reached, "seconds_a_seed": 2.0, "seconds_of_a_process": 5.0}
        told = [goal for goal in judged([], targets=[target], **more).values() if goal["reached"] is not None]
        assert [goal["reached"] for goal in told] == [50, 20, 3]
        assert [goal["is_reached"] for goal in told] == [is_reached, False, False]


def test_a_peer_that_fails_is_left_out_and_said(tmp_path, monkeypatch):
    told = {"images_per_second": [2.0, 4.0, 3.0], "compile_seconds": 1.0, "peak_memory_bytes": 5}
    told |= {"versions": {}, "device": "cpu", "operations_per_second": 1e9}
    monkeypatch.setattr("benchmarks.compare.run", lambda program, *_: "no torch" if "torch" in program else told)
    told = compare(Row("cnn", "f32", "train"), tmp_path, {"ours": "py", "torch": "py"}, 2, 3, 9)
    assert told["failures"] == {"torch": "no torch"} and told["batch_size"] == 200
    assert told["contestants"]["ours"]["images_per_second"] == 3
    assert told["contestants"]["ours"]["ours_is_faster_by"] == {"median": 1, "min": 1, "max": 1}


def test_seeds_that_fail_in_one_round_are_said_and_the_others_count(tmp_path, monkeypatch):
    told = iter([8.0, 4.0, "no memory", 4.0, 6.0, 4.0])
    monkeypatch.setattr("benchmarks.compare.run", lambda *_: one_of(next(told)))
    many = seeds(tmp_path, 3, 1, 8, 9)
    assert many["failures"] == ["8 seeds: no memory"]
    assert many["ratio"] == {"median": 1.75, "min": 1.5, "max": 2}


def one_of(told):
    return told if isinstance(told, str) else {"images_per_second": [told]}


def test_the_command_measures_us_and_plain_jax(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(start_up, "QUICK_START", (f"--dataset=idx:{folder}", "--epochs=1", "--hidden=8"))
    monkeypatch.setitem(targets.TARGETS, "99.0", targets.Target("softmax", ("--epochs=1",)))
    words = (f"--dataset=idx:{folder}", "--models=softmax", "--precisions=f32", "--epochs=1", "--rounds=1")
    words += ("--targets=99.0", "--target_seeds=1")
    values = flags.define(benchmark.Choices())
    benchmark.main(values, values(["benchmark", *words, f"--workdir={tmp_path}"])[1:])
    result = json.loads((tmp_path / "benchmark.json").read_text())
    (told,) = result["rows"]
    assert told["failures"] == {} and set(told["contestants"]) == {"ours", "flax_plain"}
    assert all(one["images_per_second"] > 0 and one["peak_memory_bytes"] > 1e7 for one in told["contestants"].values())
    assert result["flags"]["rounds"] == 1 and "workdir" not in result["flags"] and result["cpu"]
    assert result["eight_seeds"]["ratio"]["median"] > 0 and result["start_up"]["quick_start_seconds"] > 0
    (target,) = result["targets"]
    assert target["device"]["platform"] == "cpu" and len(result["goals"]) > len(GOALS)
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
        ("--batch_sizes=32,x", "--batch_sizes=32,x: must be numbers"),
        ("--images=150", "--images=150: fewer than a batch of 200 for softmax"),
        ("--peers_python=torch=/nowhere/python", "must be PEER=PYTHON"),
        ("--peers_python=pytorch=python", "torch"),
    ],
)
def test_bad_input_is_one_line(tmp_path, word, message):
    told = command(word, f"--workdir={tmp_path / 'work'}", experiment="benchmark")
    assert told.returncode == 2 and message in told.stderr and len(told.stderr.splitlines()) == 1
    assert not (tmp_path / "work").exists()
