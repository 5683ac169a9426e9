"""The goals for speed, and which of them a benchmark's results reach."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.compare import BATCH, KERAS, OURS, TORCH, platform
from benchmarks.targets import EXAMPLES

BOTH = ("f32", "bf16")
# (model, our precisions, peers, their precisions, how many times faster): each side's fastest setting counts
GOALS = [
    ("perceptron", ("f32",), ("torch",), ("f32",), 1.5),
    ("perceptron", ("f32",), KERAS, ("f32",), 1.9),
    ("perceptron", ("bf16",), ("torch",), ("bf16",), 1.3),
    ("cnn", ("f32",), ("torch",), ("f32",), 2.5),
    ("cnn", ("f32",), KERAS, ("f32",), 2.5),
    ("cnn", BOTH, TORCH, BOTH, 1.8),
    ("deep_cnn", ("f32",), TORCH, ("f32",), 1.0),
    ("deep_cnn", ("bf16",), TORCH, ("bf16",), 1.0),
]
GPU_GOALS = [
    ("perceptron", ("f32",), ("torch",), ("f32",), 20.0),
    ("perceptron", ("f32",), ("torch_cuda_graphs",), ("f32",), 3.0),
]
SEEDS = {"cpu": 1.3, "gpu": 6.0}  # eight in one program against eight runs
GPU_SECONDS = {"99.0": 0.2, "99.5": 1.5, "99.7": 20.0}  # to a test accuracy, after compilation
SOONER = 30.0  # how many times sooner 99.0 % is there than other people's examples end
HELP_SECONDS, QUICK_START_SECONDS = 2.0, 20.0


def _held(goal: str, wanted: float, reached: float | None, unit: str = "times", counts: bool = True) -> dict[str, Any]:
    enough = reached is not None and (reached <= wanted if unit == "s" else reached >= wanted)
    is_reached = None if reached is None else counts and enough
    return {"goal": goal, "wanted": wanted, "unit": unit, "reached": reached, "is_reached": is_reached}


def _speeds(rows: Sequence[Mapping[str, Any]], where: str) -> list[dict[str, Any]]:
    told = {
        (row["model"], row["precision"], name): one
        for row in rows
        if row["task"] == "train" and row["batch_size"] == BATCH[row["model"]]
        for name, one in row["contestants"].items()
        if not (where == "gpu" and one.get("device") == "cpu")
    }

    def fastest(model: str, precisions: Sequence[str], names: Sequence[str]) -> tuple[str, str, str] | None:
        there = [key for key in ((model, p, name) for p in precisions for name in names) if key in told]
        complete = {key[1] for key in there} == set(precisions)
        return max(there, key=lambda key: told[key]["images_per_second"]) if complete else None

    judged = []
    for model, precisions, peers, their_precisions, wanted in GPU_GOALS if where == "gpu" else GOALS:
        ours, theirs = fastest(model, precisions, [OURS]), fastest(model, their_precisions, peers)
        if not ours or not theirs:
            reached, names = None, (" or ".join(precisions), f"{' or '.join(peers)} {' or '.join(their_precisions)}")
        else:
            names = ours[1], f"{theirs[2]} {theirs[1]}"
            if ours[1] == theirs[1]:
                reached = told[theirs]["ours_is_faster_by"]["median"]
            else:
                reached = told[ours]["images_per_second"] / told[theirs]["images_per_second"]
        judged.append(_held(f"{model} {names[0]} against {names[1]}", wanted, reached))
    return judged


def judge(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Holds a benchmark's results against the goals.

    Args:
      result: rows (of `compare`), and as far as they were measured eight_seeds, targets, examples and start_up.

    Returns:
      For each goal: what it is, what was wanted, in times or in seconds, what was reached (None where that was not
      measured), and whether that is enough. A ratio is the median of the rounds'; between two precisions, measured in
      two rows, it is the ratio of the medians. Beside a GPU, peers on the CPU do not count.
    """
    where = platform(result["rows"])
    judged = _speeds(result["rows"], where)
    ratio = result.get("eight_seeds", {}).get("ratio")
    goal = "eight seeds of the perceptron in one program against eight runs, images a second"
    judged.append(_held(goal, SEEDS.get(where, SEEDS["gpu"]), ratio and ratio["median"]))
    targets = {told["target"]: told for told in result.get("targets", ())}
    if where == "cpu":
        told = targets.get("99.0", {})
        ends = {one["source"]: one.get("seconds") for one in result.get("examples", ())}
        for source in EXAMPLES:
            for what, name in (("training", "seconds_a_seed"), ("the whole process", "seconds_of_a_process")):
                end, seconds = ends.get(source), told.get(name)
                goal = f"99.0 % ({what}) against {'/'.join(source.split('/')[3:5])}'s MNIST example to its end"
                reached = end / seconds if end and seconds else None
                judged.append(_held(goal, SOONER, reached, counts=bool(told.get("is_reached"))))
    else:
        for target, wanted in GPU_SECONDS.items():
            told = targets.get(target, {})
            goal = f"{target} % of the test images, training"
            judged.append(_held(goal, wanted, told.get("seconds_a_seed"), "s", counts=bool(told.get("is_reached"))))
    start_up = result.get("start_up", {})
    judged.append(_held("--help, processor seconds", HELP_SECONDS, start_up.get("help_processor_seconds"), "s"))
    judged.append(_held("quick start", QUICK_START_SECONDS, start_up.get("quick_start_seconds"), "s"))
    return judged
