"""Runs implementations alternately (A B A B), each in a process of its own, and compares their throughput."""

import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from benchmarks.cases import BATCH_SIZES, IMPLEMENTATIONS, MNIST_JAX, Case, flops_per_image
from benchmarks.children import run_child
from mnist_jax.errors import DataError

Record: TypeAlias = dict[str, Any]  # a JSON object
PROGRAMS = pathlib.Path(__file__).parent / "baselines"


def compute_speedup(rounds: Sequence[Mapping[str, float]], name: str, baseline: str) -> dict[str, float] | None:
    """Compares two implementations round by round.

    Args:
      rounds: images per second by implementation.
      name: the implementation whose throughput is divided.
      baseline: the implementation to divide by.

    Returns:
      Median, min and max of the ratio over the rounds that have both; None if there is no such round.

    >>> compute_speedup([{"a": 3, "b": 2}, {"a": 4, "b": 2}, {"a": 5}], "a", "b")
    {'median': 1.75, 'min': 1.5, 'max': 2.0}
    """
    values = [speeds[name] / speeds[baseline] for speeds in rounds if name in speeds and baseline in speeds]
    return {"median": statistics.median(values), "min": min(values), "max": max(values)} if values else None


def write_npz(folder: pathlib.Path, images: np.ndarray, labels: np.ndarray, count: int) -> pathlib.Path:
    """Writes the first images and labels to a file that the implementations read, unless it exists.

    Args:
      folder: where to write it.
      images: [N, H, W, C] uint8.
      labels: [N] int32.
      count: number of images, repeated if there are more than N.

    Returns:
      The .npz file.
    """
    path = folder / f"{count}.npz"
    if not path.exists():
        np.savez(path, images=np.resize(images, (count, *images.shape[1:])), labels=np.resize(labels, count))
    return path


def run_program(
    program: str, python: str, argv: Sequence[str], env: Mapping[str, str], timeout_s: float
) -> Record | str:
    """Runs a program of benchmarks/baselines.

    Args:
      program: its file name.
      python: the interpreter.
      argv: its arguments.
      env: environment variables to add.
      timeout_s: seconds after which it is stopped.

    Returns:
      The record that it printed, or one line that says why there is none.
    """
    paths = [str(PROGRAMS.parents[1])] if program == IMPLEMENTATIONS[MNIST_JAX].program else []
    if python == sys.executable and "PYTHONPATH" in os.environ:
        paths.append(os.environ["PYTHONPATH"])
    env = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false", **env, "PYTHONPATH": os.pathsep.join(paths)}
    try:
        process = run_child([python, str(PROGRAMS / program), *argv], timeout_s, env)
    except subprocess.TimeoutExpired:
        return f"took more than {timeout_s:.0f} s"
    except OSError as error:
        return f"{python}: {error.strerror}"
    output = process.stdout if process.returncode == 0 else process.stderr
    lines = output.strip().splitlines() or ["printed nothing"]
    try:
        return json.loads(lines[-1])
    except ValueError:
        return lines[-1][:200]


def compare(
    case: Case, data: pathlib.Path, pythons: Mapping[str, str], rounds: int, epochs: int, timeout_s: float
) -> Record:
    """Measures one case. Each round measures the machine's matmul rate, then runs each implementation once.

    Args:
      case: what to measure.
      data: .npz file of images and labels.
      pythons: the interpreter of each implementation that takes part.
      rounds: how often each one is run.
      epochs: timed passes over the data per run.
      timeout_s: seconds after which a run is stopped.

    Returns:
      The case, its rounds and the summary of each implementation.

    Raises:
      DataError: the matmul rate can't be measured.
    """
    argv = [f"--{name}={value}" for name, value in case._asdict().items()] + [f"--data={data}", f"--epochs={epochs}"]
    matmul_rates: list[float] = []
    throughputs: list[dict[str, float]] = []
    records: dict[str, list[Record]] = {}
    failures: dict[str, str] = {}
    for _ in range(rounds):
        matmul = run_program("matmul.py", sys.executable, [case.dtype], {}, timeout_s)
        if isinstance(matmul, str):
            raise DataError(f"benchmarks/baselines/matmul.py: {matmul}; the machine's matmul rate can't be measured")
        matmul_rates.append(matmul["flops_per_second"])
        throughputs.append({})
        for name, python in pythons.items():
            program, variant, env, models = IMPLEMENTATIONS[name]
            if name in failures or (models and case.model not in models):
                continue
            record = run_program(program, python, [*argv, f"--variant={variant}"], env, timeout_s)
            if isinstance(record, str):
                failures[name] = record
                continue
            throughputs[-1][name] = statistics.median(record["images_per_second"])
            records.setdefault(name, []).append(record)
    roofline = statistics.median(matmul_rates) / flops_per_image(case.model, case.task)
    return {
        **case._asdict(),
        "matmul_flops_per_second": matmul_rates,
        "roofline_images_per_second": roofline,
        "rounds": throughputs,
        "implementations": {name: _summarize(name, runs, throughputs, roofline) for name, runs in records.items()},
        "failures": failures,
    }


def _summarize(
    name: str, records: Sequence[Record], throughputs: Sequence[Mapping[str, float]], roofline: float
) -> Record:
    images_per_second = statistics.median(speeds[name] for speeds in throughputs if name in speeds)
    return {
        "images_per_second": images_per_second,
        "fraction_of_peak": images_per_second / roofline,
        "compile_seconds": statistics.median(record["compile_seconds"] for record in records),
        "peak_memory_bytes": max(record["peak_memory_bytes"] for record in records),
        "speedup": compute_speedup(throughputs, MNIST_JAX, name),
        "versions": records[-1]["versions"],
        "device": records[-1]["device"],
    }


def compare_seeds(data: pathlib.Path, rounds: int, epochs: int, num_seeds: int, timeout_s: float) -> Record:
    """Compares several seeds of the perceptron in one program with one run per seed.

    Args:
      data: .npz file of images and labels.
      rounds: how often each one is run.
      epochs: timed passes over the data per run.
      num_seeds: how many seeds.
      timeout_s: seconds after which a run is stopped.

    Returns:
      The speedup in images per second, where every seed's images count, its rounds, and the failures.
    """
    argv = ["--model=perceptron", f"--batch_size={BATCH_SIZES['perceptron']}", f"--epochs={epochs}", f"--data={data}"]
    program = IMPLEMENTATIONS[MNIST_JAX].program
    throughputs: list[dict[str, float]] = []
    failures: list[str] = []
    for _ in range(rounds):
        speeds: dict[str, float] = {}
        for n in (num_seeds, 1):
            record = run_program(program, sys.executable, [*argv, f"--seeds={n}"], {}, timeout_s)
            if isinstance(record, str):
                failures.append(f"{n} seeds: {record}")
            else:
                speeds[str(n)] = statistics.median(record["images_per_second"])
        if len(speeds) == 2:
            throughputs.append(speeds)
    speedup = compute_speedup(throughputs, str(num_seeds), "1")
    return {"seeds": num_seeds, "rounds": throughputs, "speedup": speedup, "failures": failures}


def cpu_name() -> str:
    """Returns the processor's model name, or its architecture if the name is unknown."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def platform_of(cases: Sequence[Record]) -> str:
    """Returns the platform that mnist_jax ran on.

    Args:
      cases: records of `compare`.

    Returns:
      cpu, gpu or tpu, of the first case that has it; cpu if none has.

    >>> platform_of([{"implementations": {}}, {"implementations": {"mnist_jax": {"device": "gpu NVIDIA H100"}}}])
    'gpu'
    """
    summaries = [case["implementations"][MNIST_JAX] for case in cases if MNIST_JAX in case["implementations"]]
    return summaries[0].get("device", "cpu").split()[0] if summaries else "cpu"
