"""The goals for speed, and whether a benchmark's results meet them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.cases import BATCH_SIZES, KERAS, MNIST_JAX, TORCH
from benchmarks.compare import Record, platform_of
from benchmarks.targets import EXAMPLES

FLOAT32, BFLOAT16, BOTH = ("float32",), ("bfloat16",), ("float32", "bfloat16")


class SpeedupGoal(NamedTuple):
    """A speedup over the fastest baseline; on each side the fastest of the given dtypes counts."""

    model: str
    dtypes: tuple[str, ...]
    baselines: tuple[str, ...]
    baseline_dtypes: tuple[str, ...]
    target: float


GOALS = [
    SpeedupGoal("perceptron", FLOAT32, ("torch",), FLOAT32, 1.5),
    SpeedupGoal("perceptron", FLOAT32, KERAS, FLOAT32, 1.9),
    SpeedupGoal("perceptron", BFLOAT16, ("torch",), BFLOAT16, 1.3),
    SpeedupGoal("cnn", FLOAT32, ("torch",), FLOAT32, 2.5),
    SpeedupGoal("cnn", FLOAT32, KERAS, FLOAT32, 2.5),
    SpeedupGoal("cnn", BOTH, TORCH, BOTH, 1.8),
    SpeedupGoal("deep_cnn", FLOAT32, TORCH, FLOAT32, 1.0),
    SpeedupGoal("deep_cnn", BFLOAT16, TORCH, BFLOAT16, 1.0),
]
GPU_GOALS = [
    SpeedupGoal("perceptron", FLOAT32, ("torch",), FLOAT32, 20.0),
    SpeedupGoal("perceptron", FLOAT32, ("torch_cuda_graphs",), FLOAT32, 3.0),
]
SEEDS_SPEEDUP = {"cpu": 1.3, "gpu": 6.0}  # of eight seeds in one program over eight runs
GPU_SECONDS = {"99.0": 0.2, "99.5": 1.5, "99.7": 20.0}  # to a test accuracy, without compilation
EXAMPLE_SPEEDUP = 30.0  # of the time to 99.0 % over the complete run of other projects' examples
HELP_SECONDS, QUICK_START_SECONDS = 2.0, 20.0


def _goal(goal: str, target: float, measured: float | None, unit: str = "x", is_valid: bool = True) -> Record:
    is_enough = measured is not None and (measured <= target if unit == "s" else measured >= target)
    is_met = None if measured is None else is_valid and is_enough
    return {"goal": goal, "target": target, "unit": unit, "measured": measured, "is_met": is_met}


def _evaluate_speedup(goal: SpeedupGoal, summaries: Mapping[tuple[str, str, str], Record]) -> Record:
    """Compares the fastest settings in summaries: {(model, dtype, implementation): summary}."""

    def fastest(dtypes: Sequence[str], names: Sequence[str]) -> tuple[str, str, str] | None:
        keys = [(goal.model, dtype, name) for dtype in dtypes for name in names]
        keys = [key for key in keys if key in summaries]
        is_complete = {dtype for _, dtype, _ in keys} == set(dtypes)
        return max(keys, key=lambda key: summaries[key]["images_per_second"]) if is_complete else None

    best, baseline = fastest(goal.dtypes, [MNIST_JAX]), fastest(goal.baseline_dtypes, goal.baselines)
    measured = None
    dtype, baseline_dtype = " or ".join(goal.dtypes), " or ".join(goal.baseline_dtypes)
    name = " or ".join(goal.baselines)
    if best and baseline:
        (_, dtype, _), (_, baseline_dtype, name) = best, baseline
        if dtype == baseline_dtype:
            measured = summaries[baseline]["speedup"]["median"]
        else:
            measured = summaries[best]["images_per_second"] / summaries[baseline]["images_per_second"]
    return _goal(f"{goal.model} {dtype} vs. {name} {baseline_dtype}", goal.target, measured)


def _evaluate_speedups(cases: Sequence[Record], platform: str) -> list[Record]:
    summaries = {
        (case["model"], case["dtype"], name): summary
        for case in cases
        if case["task"] == "train" and case["batch_size"] == BATCH_SIZES[case["model"]]
        for name, summary in case["implementations"].items()
        if not (platform == "gpu" and summary.get("device") == "cpu")
    }
    return [_evaluate_speedup(goal, summaries) for goal in (GPU_GOALS if platform == "gpu" else GOALS)]


def _evaluate_times(targets: Mapping[str, Record], examples: Sequence[Record], platform: str) -> list[Record]:
    if platform != "cpu":
        records = {accuracy: targets.get(accuracy, {}) for accuracy in GPU_SECONDS}
        return [
            _goal(
                f"time to {accuracy} % test accuracy (training)",
                GPU_SECONDS[accuracy],
                record.get("seconds_per_seed"),
                "s",
                bool(record.get("is_reached")),
            )
            for accuracy, record in records.items()
        ]
    goals = []
    record = targets.get("99.0", {})
    example_seconds = {example["source"]: example.get("seconds") for example in examples}
    for source in EXAMPLES:
        for what, key in (("training", "seconds_per_seed"), ("process", "process_seconds")):
            baseline, seconds = example_seconds.get(source), record.get(key)
            goal = f"time to 99.0 % ({what}) vs. complete MNIST example of {'/'.join(source.split('/')[3:5])}"
            measured = baseline / seconds if baseline and seconds else None
            goals.append(_goal(goal, EXAMPLE_SPEEDUP, measured, is_valid=bool(record.get("is_reached"))))
    return goals


def evaluate_goals(result: Record) -> list[Record]:
    """Compares a benchmark's results with the goals.

    Args:
      result: cases (records of `compare`) and, where measured, eight_seeds, targets, examples and start_up.

    Returns:
      For each goal: its text, target, unit (x: a ratio, s: seconds), the measured value (None where not measured) and
      whether it is met. A ratio is the median over the rounds; between two dtypes, which are two cases, it is the
      ratio of the medians. On a GPU, baselines that ran on the CPU do not count.
    """
    platform = platform_of(result["cases"])
    goals = _evaluate_speedups(result["cases"], platform)
    speedup = result.get("eight_seeds", {}).get("speedup")
    goal = "perceptron, eight seeds in one program vs. eight runs, images per second"
    goals.append(_goal(goal, SEEDS_SPEEDUP.get(platform, SEEDS_SPEEDUP["gpu"]), speedup and speedup["median"]))
    targets = {record["target"]: record for record in result.get("targets", ())}
    goals += _evaluate_times(targets, result.get("examples", ()), platform)
    start_up = result.get("start_up", {})
    goals.append(_goal("--help, CPU time", HELP_SECONDS, start_up.get("help_cpu_seconds"), "s"))
    goals.append(_goal("quick start", QUICK_START_SECONDS, start_up.get("quick_start_seconds"), "s"))
    return goals
