"""Runs contestants in turn, A B A B, each a process of its own, and says what came of it."""

import json
import os
import pathlib
import platform as python_platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mnist_jax.errors import DataError

PEERS = pathlib.Path(__file__).parent / "peers"
OURS = "ours"
CONTESTANTS = {  # name: (program, variant, environment, models it differs on; None for all)
    OURS: ("ours.py", "", {}, None),
    "flax_plain": ("flax_plain.py", "", {}, None),
    "torch": ("torch_loop.py", "", {}, None),
    "torch_channels_last": ("torch_loop.py", "channels_last", {}, ("cnn", "deep_cnn")),
    "torch_compile": ("torch_loop.py", "compile", {}, None),
    "torch_cuda_graphs": ("torch_loop.py", "cuda_graphs", {}, None),
    "keras_tf": ("keras_fit.py", "", {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}, None),
    "keras_jax": ("keras_fit.py", "", {"KERAS_BACKEND": "jax"}, None),
}
BATCH = {"softmax": 200, "perceptron": 200, "cnn": 200, "deep_cnn": 128}  # of the recipes
# (positions, kernel size) of each product: an image's forward pass takes 2 * positions * size operations in each
PRODUCTS = {
    "softmax": [(1, 784 * 10)],
    "perceptron": [(1, 784 * 784), (1, 784 * 10)],
    "cnn": [(24 * 24, 5 * 5 * 1 * 32), (1, 12 * 12 * 32 * 128), (1, 128 * 10)],
    "deep_cnn": [
        (28 * 28, 5 * 5 * 1 * 32),
        (14 * 14, 3 * 3 * 32 * 64),
        (14 * 14, 3 * 3 * 64 * 64),
        (7 * 7, 3 * 3 * 64 * 128),
        (7 * 7, 3 * 3 * 128 * 128),
        (1, 7 * 7 * 128 * 10),
    ],
}
TORCH = ("torch", "torch_channels_last", "torch_compile", "torch_cuda_graphs")
KERAS = ("keras_tf", "keras_jax")


class Row(NamedTuple):
    """One comparison."""

    model: str
    precision: str
    task: str
    batch_size: int = 0  # images a step; 0 for the recipe's


def batch_size_of(row: Row) -> int:
    """Says how many images a step takes.

    Args:
      row: of a comparison.

    Returns:
      Its own number, or the recipe's.

    >>> batch_size_of(Row("deep_cnn", "f32", "train")), batch_size_of(Row("cnn", "f32", "predict"))
    (128, 200)
    """
    return row.batch_size or BATCH[row.model]


def operations(model: str, task: str) -> int:
    """Counts the multiplications and additions that the products of one image need.

    Backward takes two products where forward takes one, the weights' gradient and the input's; the first layer needs
    no gradient of its input.

    Args:
      model: a name in PRODUCTS.
      task: train, evaluate or predict.

    Returns:
      Operations an image; those of activations, normalisation and the optimizer are not among them.

    >>> operations("softmax", "predict")
    15680
    """
    forward = [2 * positions * size for positions, size in PRODUCTS[model]]
    return 3 * sum(forward) - forward[0] if task == "train" else sum(forward)


def ratios(rounds: Sequence[Mapping[str, float]], ours: str, peer: str) -> dict[str, float] | None:
    """Compares two contestants round by round.

    Args:
      rounds: from a contestant's name to its images a second.
      ours: whose speed is divided.
      peer: by whose.

    Returns:
      Median, least and largest ratio, over the rounds that have both; None where none has.

    >>> ratios([{"a": 3, "b": 2}, {"a": 4, "b": 2}, {"a": 5}], "a", "b")
    {'median': 1.75, 'min': 1.5, 'max': 2.0}
    """
    pairs = [told[ours] / told[peer] for told in rounds if ours in told and peer in told]
    return {"median": statistics.median(pairs), "min": min(pairs), "max": max(pairs)} if pairs else None


def run(program: str, python: str, words: Sequence[str], environment: Mapping[str, str], limit: float) -> dict | str:
    """Runs one contestant.

    Args:
      program: its file in benchmarks/peers.
      python: the interpreter.
      words: its flags.
      environment: variables on top of ours.
      limit: seconds that it may take.

    Returns:
      What it measured, or a line that says why there is nothing.
    """
    place = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false", **environment}
    paths = [str(PEERS.parents[1])] if program == "ours.py" else []
    ours = [os.environ["PYTHONPATH"]] if python == sys.executable and "PYTHONPATH" in os.environ else []
    place["PYTHONPATH"] = os.pathsep.join(paths + ours)
    try:
        told = subprocess.run(
            [python, str(PEERS / program), *words], capture_output=True, text=True, timeout=limit, env=place
        )
    except subprocess.TimeoutExpired:
        return f"took more than {limit:.0f} s"
    except OSError as error:
        return f"{python}: {error.strerror}"
    lines = (told.stdout if told.returncode == 0 else told.stderr).strip().splitlines() or ["printed nothing"]
    try:
        return json.loads(lines[-1])
    except ValueError:
        return lines[-1][:200]


def compare(
    row: Row, data: pathlib.Path, pythons: Mapping[str, str], rounds: int, epochs: int, limit: float
) -> dict[str, Any]:
    """Measures one row: the machine's matrix rate, then each contestant in turn, as often as said.

    Args:
      row: what to measure.
      data: .npz file with images and labels.
      pythons: from a contestant's name to its interpreter; only these take part.
      rounds: how often each is run.
      epochs: timed passes over the data a run.
      limit: seconds that one run may take.

    Returns:
      Facts and figures, of JSON's types.
    """
    batch = batch_size_of(row)
    words = [f"--model={row.model}", f"--precision={row.precision}", f"--task={row.task}", f"--data={data}"]
    words += [f"--batch_size={batch}", f"--epochs={epochs}"]
    rates, speeds, facts, failures = [], [], {}, {}
    for _ in range(rounds):
        matrix = run("matrix.py", sys.executable, [row.precision], {}, limit)
        if isinstance(matrix, str):
            raise DataError(f"benchmarks/peers/matrix.py: {matrix}; the machine's own rate can't be measured")
        rates.append(matrix["operations_per_second"])
        speeds.append({})
        for name, python in pythons.items():
            program, variant, environment, models = CONTESTANTS[name]
            if name in failures or (models and row.model not in models):
                continue
            told = run(program, python, [*words, f"--variant={variant}"], environment, limit)
            if isinstance(told, str):
                failures[name] = told
                continue
            speeds[-1][name] = statistics.median(told["images_per_second"])
            facts.setdefault(name, []).append(told)
    rate = statistics.median(rates)
    floor = rate / operations(row.model, row.task)
    return {
        **row._asdict(),
        "batch_size": batch,
        "matrix_operations_per_second": rates,
        "floor_images_per_second": floor,
        "rounds": speeds,
        "contestants": {
            name: {
                "images_per_second": statistics.median(told[name] for told in speeds if name in told),
                "share_of_floor": statistics.median(told[name] for told in speeds if name in told) / floor,
                "compile_seconds": statistics.median(told["compile_seconds"] for told in runs),
                "peak_memory_bytes": max(told["peak_memory_bytes"] for told in runs),
                "ours_is_faster_by": ratios(speeds, OURS, name),
                "versions": runs[-1]["versions"],
                "device": runs[-1]["device"],
            }
            for name, runs in facts.items()
        },
        "failures": failures,
    }


def seeds(data: pathlib.Path, rounds: int, epochs: int, count: int, limit: float) -> dict[str, Any]:
    """Compares many seeds of the perceptron in one program with as many runs in turn.

    Args:
      data: .npz file with images and labels.
      rounds: how often each is run.
      epochs: timed passes over the data a run.
      count: how many seeds.
      limit: seconds that one run may take.

    Returns:
      The ratio of images a second, with its spread, each counting every seed's images; and why runs failed.
    """
    words = ["--model=perceptron", f"--batch_size={BATCH['perceptron']}", f"--epochs={epochs}", f"--data={data}"]
    speeds, failures = [], []
    for _ in range(rounds):
        told = {str(n): run("ours.py", sys.executable, [*words, f"--seeds={n}"], {}, limit) for n in (count, 1)}
        failed = [f"{n} seeds: {one}" for n, one in told.items() if isinstance(one, str)]
        failures += failed
        if not failed:
            speeds.append({name: statistics.median(one["images_per_second"]) for name, one in told.items()})
    return {"seeds": count, "rounds": speeds, "ratio": ratios(speeds, str(count), "1"), "failures": failures}


def cpu() -> str:
    """Names the processor.

    Returns:
      Its model, or its architecture where that is not told.
    """
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return python_platform.processor() or python_platform.machine()


def platform(rows: Sequence[Mapping[str, Any]]) -> str:
    """Names where our own program ran.

    Args:
      rows: of `compare`.

    Returns:
      cpu, gpu or tpu, of the first row that has it; cpu where none has.

    >>> platform([{"contestants": {}}, {"contestants": {"ours": {"device": "gpu NVIDIA H100"}}}])
    'gpu'
    """
    devices = [row["contestants"][OURS].get("device", "cpu") for row in rows if OURS in row["contestants"]]
    return devices[0].split()[0] if devices else "cpu"
