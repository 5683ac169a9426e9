"""Speed, measured beside other frameworks: each contestant a process of its own, in turn, on this machine alone.

python -m experiments.benchmark --dataset=mnist --peers_python=torch=TORCH/bin/python,keras_tf=KERAS/bin/python

Writes benchmark.json and speed.png; with --growth, growth.json and growth.png instead.
"""

import dataclasses
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

from experiments import flags
from mnist_jax.config import choice
from mnist_jax.errors import ConfigError, lookup
from mnist_jax.files import expanded


@dataclasses.dataclass(frozen=True)
class Choices:
    """What is measured."""

    dataset: str = choice("mnist5k", "as in the training experiments")
    data_dir: str = choice("", "folder of the data files")
    models: str = choice("softmax,perceptron,cnn,deep_cnn", "which networks")
    precisions: str = choice("f32,bf16", "f32, bf16 or both")
    tasks: str = choice("train", "train, evaluate, predict or several")
    peers_python: str = choice("", "PEER=PYTHON,...: torch (all its variants), keras_tf, keras_jax")
    batch_size: int = choice(0, "images a step; 0 for the recipe's")
    images: int = choice(0, "images an epoch, the first ones; 0 for all")
    deep_images: int = choice(0, "the same for deep_cnn; 0 for as many as --images")
    epochs: int = choice(3, "timed epochs a process, after one that is not")
    rounds: int = choice(5, "how often each contestant is run")
    limit: float = choice(600.0, "seconds that one process may take")
    targets: str = choice("", "test accuracies to time to; empty: 99.0,99.5,99.7 on an accelerator, none on a CPU")
    target_seeds: int = choice(5, "seeds of each of them")
    growth: bool = choice(False, "measure how cost grows, not speed beside others")
    workdir: str = choice("benchmark", "folder for the results")


QUICK_START = ("--dataset=mnist5k",)  # the README's


def _pythons(words: str) -> dict[str, str]:
    from benchmarks.compare import CONTESTANTS, OURS, TORCH

    pythons = {OURS: sys.executable, "flax_plain": sys.executable}
    for word in words.split(",") if words else ():
        name, _, python = word.partition("=")
        lookup(CONTESTANTS, "peers_python", name)
        if not python or not pathlib.Path(python).is_file():
            raise ConfigError(f"--peers_python={word}: must be PEER=PYTHON, an interpreter that has {name}")
        pythons |= dict.fromkeys(TORCH if name == "torch" else (name,), python)
    return pythons


def _start_up() -> dict[str, float]:
    """Processor seconds of --help; wall seconds of the quick start: first, with kept programs, and for 8 seeds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = [sys.executable, "-m", "experiments.perceptron"]
    subprocess.run([*program, "--help"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = {"help_processor_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}
    with tempfile.TemporaryDirectory() as folder:
        place = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled"}
        for name, seeds in {"quick_start": 1, "second_start": 1, "eight_seeds": 8}.items():
            start = time.perf_counter()
            words = [*program, *QUICK_START, f"--num_seeds={seeds}", f"--workdir={folder}/{name}"]
            subprocess.run(words, check=True, capture_output=True, env=place)
            wall = time.perf_counter() - start
            phases = json.loads(pathlib.Path(folder, name, "result.json").read_text())["seconds"]
            told[f"{name}_seconds"] = wall
            told[f"{name}_phases"] = {
                "import and exit": wall - phases["total"],
                **{phase: phases[phase] for phase in ("load", "compile", "train")},
            }
    return told


def _print_row(told: dict) -> None:
    print(f"\n{told['model']} {told['precision']} {told['task']}, batch {told['batch_size']}")
    for name, one in told["contestants"].items():
        ratio = one["ours_is_faster_by"]
        faster = (
            f"ours x {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
            if ratio and name != "ours"
            else ""
        )
        print(
            f"  {name:20} {one['images_per_second']:12,.0f} images/s  {one['share_of_floor']:4.0%} of the floor  "
            f"compile {one['compile_seconds']:5.1f} s  {one['peak_memory_bytes'] / 2**20:6,.0f} MiB  {faster}"
        )
    for name, why in told["failures"].items():
        print(f"  {name:20} left out: {why}")
    sys.stdout.flush()


def _verdict(is_reached: bool) -> str:
    return "reached" if is_reached else "not reached"


def _told(told: dict) -> str:
    accuracy = told["test_accuracy"]
    line = (
        f"{told['seconds_a_seed']:.2f} s a seed, {told['seconds_of_a_process']:.1f} s a process, "
        f"test accuracy {100 * accuracy['mean']:.2f} % (n={accuracy['n']}), "
        f"{_verdict(told['is_reached'])}"
    )
    if "wanted_seconds" in told:
        is_quick = told["is_reached"] and told["seconds_a_seed"] <= told["wanted_seconds"]
        line += f"; goal: in {told['wanted_seconds']} s, {_verdict(is_quick)}"
    return line


def main(values, rest: list[str]) -> None:
    flags.refuse(rest)
    for name, known in {
        "models": ("softmax", "perceptron", "cnn", "deep_cnn"),
        "precisions": ("f32", "bf16"),
        "tasks": ("train", "evaluate", "predict"),
    }.items():
        for word in values[name].value.split(","):
            lookup(dict.fromkeys(known), name, word)
    for name, least in {
        "epochs": 1,
        "rounds": 1,
        "target_seeds": 1,
        "batch_size": 0,
        "images": 0,
        "deep_images": 0,
    }.items():
        if values[name].value < least:
            raise ConfigError(f"--{name}={values[name].value}: must be at least {least}")
    pythons = _pythons(values.peers_python)
    from benchmarks.targets import TARGETS, examples, time_to

    for word in values.targets.split(",") if values.targets else ():
        lookup(TARGETS, "targets", word)

    import numpy as np

    from benchmarks.compare import GPU_SEEDS_GOAL, SEEDS_GOAL, Row, compare, judge, platform, seeds
    from benchmarks.growth import measure_growth
    from mnist_jax import plots
    from mnist_jax.data import load_dataset
    from mnist_jax.files import write_json
    from mnist_jax.report import commit, versions

    dataset = load_dataset(values.dataset, values.data_dir)
    workdir = expanded(values.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    facts = {
        "dataset": dataset.name,
        "versions": versions(),
        "commit": commit(),
        "cpu_count": os.cpu_count(),
        "load_average_before": os.getloadavg(),
    }
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        if values.growth:
            told = measure_growth(dataset.train_images, dataset.train_labels, folder, values.epochs, values.limit)
            write_json(workdir / "growth.json", facts | {"axes": told})
            plots.save(plots.growth(told), workdir / "growth.png")
            print(json.dumps(told, indent=2))
            return
        rows = []
        data = {}
        for name, count in {"all": values.images, "deep_cnn": values.deep_images or values.images}.items():
            data[name] = folder / f"{name}.npz"
            count = count or len(dataset.train_images)
            np.savez(data[name], images=dataset.train_images[:count], labels=dataset.train_labels[:count])
        for task in values.tasks.split(","):
            for model in values.models.split(","):
                for precision in values.precisions.split(","):
                    rows.append(
                        compare(
                            Row(model, precision, task),
                            data.get(model, data["all"]),
                            pythons,
                            values.rounds,
                            values.epochs,
                            values.batch_size,
                            values.limit,
                        )
                    )
                    _print_row(rows[-1])
        many = seeds(data["all"], values.rounds, values.epochs, 8, values.limit)
        where = platform(rows)
        targets = values.targets.split(",") if values.targets else () if where == "cpu" else TARGETS
        others = examples(data["all"], pythons, values.limit) if targets else []
        timed = [
            time_to(target, values.dataset, values.data_dir, values.target_seeds, folder, values.limit)
            for target in targets
        ]
    goals = judge(rows)
    for goal in goals:
        print(
            f"goal: {goal['model']} {goal['precision']}, {goal['wanted']} times {goal['peer']}: {goal['reached']:.2f}, "
            f"{_verdict(goal['is_reached'])}"
        )
    if many["ratio"]:
        reached, wanted = many["ratio"]["median"], GPU_SEEDS_GOAL if where == "gpu" else SEEDS_GOAL
        print(
            f"goal: eight seeds in one program, {wanted} times eight runs: {reached:.2f}, {_verdict(reached >= wanted)}"
        )
    for told in timed:
        print(f"to {told['target']} %: {told.get('failure') or _told(told)}")
    for told in others:
        print(f"{told['source']}: {told.get('failure') or format(told['seconds'], '.0f') + ' s to its end'}")
    start_up = _start_up()
    for name, seconds in start_up.items():
        phases = seconds if isinstance(seconds, dict) else {"": seconds}
        print(f"{name}: " + ", ".join(f"{phase} {one:.2f}".strip() for phase, one in phases.items()))
    result = {
        "rows": rows,
        "goals": goals,
        "eight_seeds": many,
        "targets": timed,
        "examples": others,
        "start_up": start_up,
    }
    write_json(workdir / "benchmark.json", facts | result | {"load_average_after": os.getloadavg()})
    plots.save(plots.speeds(rows), workdir / "speed.png")
    print(f"Results: {workdir}")


if __name__ == "__main__":
    flags.command(__doc__, (Choices(),), main)
