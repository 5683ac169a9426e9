import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time

import jax
import pytest
from conftest import ROOT
from conftest import command as run_command

from benchmarks import command, start_up, targets
from benchmarks.cases import BATCH_SIZES, MATMULS, Case, flops_per_image
from benchmarks.compare import compare, compare_seeds
from benchmarks.goals import GOALS, evaluate_goals
from mnist_jax.commands import benchmark
from mnist_jax.errors import ConfigError
from mnist_jax.experiment import Experiment

sys.path.insert(0, str(ROOT / "benchmarks" / "baselines"))


@pytest.fixture(scope="module")
def configs():
    import mnist_jax_loop

    return mnist_jax_loop.CONFIGS


@pytest.mark.parametrize("model", MATMULS)
def test_flops_are_those_of_the_network_that_is_run(configs, model):
    experiment = Experiment(config=dataclasses.replace(configs[model], dropout=0.0))
    components = experiment.build(steps=1, num_classes=10, image=jax.ShapeDtypeStruct((28, 28, 1), "uint8"))
    state = jax.eval_shape(components.init, jax.random.key(0))
    kernels = [math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params) if len(leaf.shape) > 1]
    assert sorted(kernels) == sorted(kernel_size for _, kernel_size in MATMULS[model])

    def forward(params, image):
        variables = {"params": params, **state.model_state}
        return components.model.apply(variables, image, train=False, rngs=None, mask=None)[0]

    if not state.model_state:  # XLA counts the other operations too, which are few
        image = jax.ShapeDtypeStruct((1, 28, 28, 1), "float32")
        counted = jax.jit(forward).lower(state.params, image).compile().cost_analysis()["flops"]
        assert flops_per_image(model, "predict") == pytest.approx(counted, rel=0.1)
    assert flops_per_image(model, "train") < 3 * flops_per_image(model, "predict")


def make_case(model, dtype, **speeds):
    implementations = {
        name: {"images_per_second": speed, "speedup": {"median": speeds.get("mnist_jax", 0) / speed}}
        for name, speed in speeds.items()
    }
    case = Case(model, dtype, "train", BATCH_SIZES[model])._asdict()
    return case | {"implementations": implementations}


def goals_by_name(cases, **records):
    return {goal["goal"]: goal for goal in evaluate_goals({"cases": cases, **records})}


def test_goals_compare_with_the_fastest_baseline_and_include_what_is_not_measured():
    cases = [
        make_case("cnn", "float32", mnist_jax=300, torch=100, torch_compile=120),
        make_case("cnn", "bfloat16", mnist_jax=320, torch=200),
    ]
    goals = goals_by_name(cases)
    assert len(goals) == len(GOALS) + 1 + 4 + 2
    assert {name for name, goal in goals.items() if goal["measured"] is not None} == {
        "cnn float32 vs. torch float32",
        "cnn bfloat16 vs. torch bfloat16",
    }
    goal = goals["cnn float32 vs. torch float32"]
    assert goal["measured"] == 3 and goal["is_met"]
    best = goals["cnn bfloat16 vs. torch bfloat16"]
    assert best["measured"] == 1.6 and best["is_met"] is False, "the fastest settings of both"
    cases[0]["implementations"]["torch"]["speedup"]["median"] = 2.4  # of the rounds, not of the medians
    assert goals_by_name(cases)["cnn float32 vs. torch float32"]["is_met"] is False
    cases[0]["implementations"]["mnist_jax"]["images_per_second"] = 400
    assert goals_by_name(cases)["cnn float32 vs. torch bfloat16"]["measured"] == 2, "between two cases, of the medians"
    cases[0]["batch_size"] = 32
    assert goals_by_name(cases)["cnn float32 vs. torch float32"]["measured"] is None, "goals are for the recipe's batch"


def test_a_gpu_has_its_own_goals_and_baselines_on_the_cpu_do_not_count():
    cases = [make_case("perceptron", "float32", mnist_jax=50, torch=2, torch_cuda_graphs=25)]
    cases[0]["implementations"]["mnist_jax"]["device"] = "gpu NVIDIA H100"
    targets = [{"target": "99.0", "is_reached": True, "seconds_per_seed": 0.1}]
    targets += [{"target": "99.5", "is_reached": False, "seconds_per_seed": 0.1}]
    goals = goals_by_name(cases, targets=targets, eight_seeds={"speedup": {"median": 5.0}})
    assert [goal["is_met"] for goal in goals.values()] == [True, False, False, True, False, None, None, None]
    cases[0]["implementations"]["torch"]["device"] = "cpu"
    assert goals_by_name(cases)["perceptron float32 vs. torch float32"]["measured"] is None


def test_time_to_an_accuracy_counts_only_where_it_is_reached():
    source = next(iter(targets.EXAMPLES))
    records = {"examples": [{"source": source, "seconds": 100.0}], "start_up": {"help_cpu_seconds": 3.0}}
    for is_reached in (True, False):
        target = {"target": "99.0", "is_reached": is_reached, "seconds_per_seed": 2.0, "process_seconds": 5.0}
        goals = [goal for goal in goals_by_name([], targets=[target], **records).values() if goal["measured"]]
        assert [goal["measured"] for goal in goals] == [50, 20, 3]
        assert [goal["is_met"] for goal in goals] == [is_reached, False, False]


def test_a_baseline_that_fails_is_skipped_and_recorded(tmp_path, monkeypatch):
    record = {"images_per_second": [2.0, 4.0, 3.0], "compile_seconds": 1.0, "peak_memory_bytes": 5}
    record |= {"versions": {}, "device": "cpu", "flops_per_second": 1e9}
    monkeypatch.setattr(
        "benchmarks.compare.run_program", lambda program, *_: "no torch" if "torch" in program else record
    )
    case = compare(Case("cnn", "float32", "train", 200), tmp_path, {"mnist_jax": "py", "torch": "py"}, 2, 3, 9)
    assert case["failures"] == {"torch": "no torch"} and case["batch_size"] == 200
    assert case["implementations"]["mnist_jax"]["images_per_second"] == 3
    assert case["implementations"]["mnist_jax"]["speedup"] == {"median": 1, "min": 1, "max": 1}


def test_seeds_that_fail_in_one_round_are_recorded_and_the_other_rounds_count(tmp_path, monkeypatch):
    outcomes = iter([8.0, 4.0, "no memory", 4.0, 6.0, 4.0])
    monkeypatch.setattr("benchmarks.compare.run_program", lambda *_: make_record(next(outcomes)))
    record = compare_seeds(tmp_path, 3, 1, 8, 9)
    assert record["failures"] == ["8 seeds: no memory"]
    assert record["speedup"] == {"median": 1.75, "min": 1.5, "max": 2}


def make_record(outcome):
    return outcome if isinstance(outcome, str) else {"images_per_second": [outcome]}


@pytest.mark.slow
def test_the_command_measures_mnist_jax_and_plain_jax(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(command, "exit_on_signals", lambda *_: None)  # which would stay for the other tests
    monkeypatch.setattr(start_up, "QUICK_START", (f"--dataset=idx:{folder}", "--epochs=1", "--hidden_sizes=8"))
    monkeypatch.setitem(targets.TARGETS, "99.0", targets.Target("softmax", ("--epochs=1",)))
    flags = benchmark.Flags(
        dataset=f"idx:{folder}",
        models=("softmax",),
        dtypes=("float32",),
        epochs=1,
        rounds=1,
        targets=("99.0",),
        target_seeds=1,
        goals=True,
        output=str(tmp_path),
    )
    benchmark.main(flags, [])
    result = json.loads((tmp_path / "benchmark.json").read_text())
    (case,) = result["cases"]
    summaries = case["implementations"]
    assert case["failures"] == {} and set(summaries) == {"mnist_jax", "flax_plain"} and case["batch_size"] == 200
    assert all(one["images_per_second"] > 0 and one["peak_memory_bytes"] > 1e7 for one in summaries.values())
    assert result["flags"]["rounds"] == 1 and "output" not in result["flags"] and result["cpu"]
    assert result["eight_seeds"]["speedup"]["median"] > 0 and result["start_up"]["quick_start_seconds"] > 0
    (target,) = result["targets"]
    assert target["device"]["platform"] == "cpu" and len(result["goals"]) > len(GOALS)
    assert target["seconds_per_seed"] > 0 and target["is_reached"] is (target["test_accuracy"]["mean"] >= 0.99)
    assert set(result["start_up"]["second_start_phases"]) == {"import_and_exit", "load", "compile", "train"}
    assert (tmp_path / "throughput.png").stat().st_size > 1000
    with pytest.raises(ConfigError, match="already holds benchmark"):
        benchmark.main(flags, [])


def test_start_up_seeds_and_goals_are_measured_only_where_asked_for(tmp_path, folder, monkeypatch, capsys):
    measured = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "exit_on_signals", lambda *_: None)
    case = make_case("perceptron", "float32", mnist_jax=3) | {"failures": {}, "roofline_images_per_second": 9}
    for summary in case["implementations"].values():
        summary |= {"fraction_of_peak": 0.3, "compile_seconds": 1, "peak_memory_bytes": 1}
    monkeypatch.setattr(command, "compare", lambda *_: measured.append("case") or case)
    seeds = {"speedup": None, "failures": []}
    monkeypatch.setattr(command, "compare_seeds", lambda *_: measured.append("seeds") or seeds)
    monkeypatch.setattr(command, "measure_start_up", lambda *_: measured.append("start-up") or {})
    flags = benchmark.Flags(dataset=f"idx:{folder}", models=("perceptron",), dtypes=("float32",))
    benchmark.main(flags, [])
    assert measured == ["case"] and "goal" not in capsys.readouterr().out
    benchmark.main(dataclasses.replace(flags, goals=True), [])
    assert measured == ["case", "case", "seeds", "start-up"] and capsys.readouterr().out.count("goal: ") > len(GOALS)
    results = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("runs/benchmark-*/benchmark.json"))]
    assert ["goals" in result for result in results] == [False, True]


SLOW_PROGRAM = """
import os, pathlib, time
pathlib.Path("child.new").write_text(str(os.getpid()))
os.replace("child.new", "child")
time.sleep(120)
"""
WITH_OTHER_PROGRAMS = """
import pathlib
import benchmarks.compare
from mnist_jax import cli
from mnist_jax.commands import benchmark
from mnist_jax.errors import ConfigError
benchmarks.compare.PROGRAMS = pathlib.Path("programs", "baselines").absolute()
cli.run_cli(benchmark.__doc__, benchmark.Flags(), benchmark.main)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_that_is_measured_too(tmp_path, folder, number):
    (tmp_path / "programs" / "baselines").mkdir(parents=True)
    (tmp_path / "programs" / "baselines" / "matmul.py").write_text(SLOW_PROGRAM)
    (tmp_path / "tmp").mkdir()
    argv = [sys.executable, "-c", WITH_OTHER_PROGRAMS, f"--dataset=idx:{folder}", "--output=results"]
    env = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "child").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        child = int((tmp_path / "child").read_text())
        process.send_signal(number)
        assert process.wait(timeout=60) == 128 + number
        assert process.stderr.read() == f"stopped by {number.name}; what was measured before is in results\n"
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert not list((tmp_path / "tmp").iterdir())
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["benchmark.json"]
    assert json.loads((tmp_path / "results" / "benchmark.json").read_text())["cases"] == []


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--models=resnet", "no such models"),
        ("--dtypes=float16", "float32"),
        ("--targets=99.9", "no such targets"),
        ("--rounds=0", "--rounds=0: must be at least 1"),
        ("--batch_sizes=32,x", "--batch_sizes=32,x: "),
        ("--images=150", "--images=150: fewer than a batch of 200 for perceptron"),
        ("--baseline_pythons=torch=/nowhere/python", "must be NAME=PYTHON"),
        ("--baseline_pythons=pytorch=python", "torch"),
    ],
)
def test_bad_input_is_one_line(tmp_path, argument, message):
    process = run_command(argument, f"--output={tmp_path / 'work'}", experiment="benchmark")
    assert process.returncode == 2 and message in process.stderr and len(process.stderr.splitlines()) == 1
    assert not (tmp_path / "work").exists()
