"""Speed, measured beside other frameworks: each contestant a process of its own, in turn, on this machine alone.

python -m experiments.benchmark --dataset=mnist --peers_python=torch=TORCH/bin/python,keras_tf=KERAS/bin/python

Writes benchmark.json, after each measurement what there is, and speed.png; with --growth, growth.json and growth.png
instead.
"""

import dataclasses
import json
import os
import pathlib
import sys
import tempfile

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
    batch_sizes: str = choice("0", "images a step, one or several; 0 for the recipe's")
    peers_python: str = choice("", "PEER=PYTHON,...: torch (all its variants), keras_tf, keras_jax")
    images: int = choice(0, "images an epoch, the first ones; 0 for all")
    deep_images: int = choice(0, "the same for deep_cnn; 0 for as many as --images")
    epochs: int = choice(3, "timed epochs a process, after one that is not")
    rounds: int = choice(5, "how often each contestant is run")
    limit: float = choice(600.0, "seconds that one process may take")
    targets: str = choice(
        "", "test accuracies to time to; empty: none on a CPU, and on an accelerator 99.0,99.5,99.7 of standard MNIST"
    )
    target_seeds: int = choice(5, "seeds of each of them")
    growth: bool = choice(False, "measure how cost grows, not speed beside others")
    workdir: str = choice("benchmark", "folder for the results")


PLACES = ("dataset", "data_dir", "peers_python", "workdir")  # where things are: not among a result's flags


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


def _print_target(told: dict) -> None:
    if "failure" in told:
        print(f"to {told['target']} %: {told['failure']}")
        return
    accuracy = told["test_accuracy"]
    print(
        f"to {told['target']} %: {told['seconds_a_seed']:.2f} s a seed, {told['seconds_of_a_process']:.1f} s a "
        f"process, test accuracy {100 * accuracy['mean']:.2f} % (n={accuracy['n']})"
    )


def _print_start_up(told: dict) -> None:
    for name, seconds in told.items():
        phases = seconds if isinstance(seconds, dict) else {"": seconds}
        words = (f"{phase} {one if isinstance(one, str) else format(one, '.2f')}" for phase, one in phases.items())
        print(f"{name}: " + ", ".join(word.strip() for word in words))


def _print_goal(told: dict) -> None:
    unit = " s" if told["unit"] == "s" else " times"
    reached = "not measured" if told["reached"] is None else f"{told['reached']:.2f}{unit}"
    verdict = {None: "", True: ", reached", False: ", not reached"}[told["is_reached"]]
    print(f"goal: {told['goal']}, {told['wanted']:g}{unit}: {reached}{verdict}")


def main(values, rest: list[str]) -> None:
    flags.refuse(rest)
    for name, known in {
        "models": ("softmax", "perceptron", "cnn", "deep_cnn"),
        "precisions": ("f32", "bf16"),
        "tasks": ("train", "evaluate", "predict"),
    }.items():
        for word in values[name].value.split(","):
            lookup(dict.fromkeys(known), name, word)
    for name, least in {"epochs": 1, "rounds": 1, "target_seeds": 1, "images": 0, "deep_images": 0}.items():
        if values[name].value < least:
            raise ConfigError(f"--{name}={values[name].value}: must be at least {least}")
    if not all(word.isdecimal() for word in values.batch_sizes.split(",")):
        raise ConfigError(f"--batch_sizes={values.batch_sizes}: must be numbers between commas, such as 32,200")
    pythons = _pythons(values.peers_python)
    from benchmarks.targets import TARGETS, examples, time_to

    for word in values.targets.split(",") if values.targets else ():
        lookup(TARGETS, "targets", word)

    import numpy as np

    from benchmarks.compare import Row, batch_size_of, compare, cpu, platform, seeds
    from benchmarks.goals import judge
    from benchmarks.growth import measure_growth
    from benchmarks.start_up import start_up
    from mnist_jax import plots
    from mnist_jax.data import load_dataset
    from mnist_jax.files import write_json
    from mnist_jax.report import commit, versions

    dataset = load_dataset(values.dataset, values.data_dir)
    counts = {"all": values.images, "deep_cnn": values.deep_images or values.images}
    counts = {name: min(count or 60_000, len(dataset.train_images)) for name, count in counts.items()}
    rows = [
        Row(model, precision, task, int(batch_size))
        for task in values.tasks.split(",")
        for model in values.models.split(",")
        for precision in values.precisions.split(",")
        for batch_size in values.batch_sizes.split(",")
    ]
    for row in rows:
        count = counts.get(row.model, counts["all"])
        if batch_size_of(row) > count:
            raise ConfigError(f"--images={count}: fewer than a batch of {batch_size_of(row)} for {row.model}")
    workdir = expanded(values.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    result = {
        "dataset": dataset.name,
        "flags": {one.name: values[one.name].value for one in dataclasses.fields(Choices) if one.name not in PLACES},
        "versions": versions(),
        "commit": commit(),
        "cpu": cpu(),
        "cpu_count": os.cpu_count(),
        "load_average_before": os.getloadavg(),
        "rows": [],
    }

    def keep(**more) -> None:
        result.update(more)
        write_json(workdir / "benchmark.json", result)

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        if values.growth:
            told = measure_growth(dataset.train_images, dataset.train_labels, folder, values.epochs, values.limit)
            del result["rows"]
            write_json(workdir / "growth.json", result | {"axes": told})
            plots.save(plots.growth(told), workdir / "growth.png")
            print(json.dumps(told, indent=2))
            return
        data = {name: folder / f"{name}.npz" for name in counts}
        for name, path in data.items():
            np.savez(path, images=dataset.train_images[: counts[name]], labels=dataset.train_labels[: counts[name]])
        for row in rows:
            path = data.get(row.model, data["all"])
            result["rows"].append(compare(row, path, pythons, values.rounds, values.epochs, values.limit))
            keep()
            _print_row(result["rows"][-1])
        keep(eight_seeds=seeds(data["all"], values.rounds, values.epochs, 8, values.limit))
        is_standard = len(dataset.train_images) == 60_000 and len(dataset.test_images) == 10_000
        default = () if platform(result["rows"]) == "cpu" or not is_standard else TARGETS
        targets = values.targets.split(",") if values.targets else default
        keep(examples=examples(data["all"], pythons, values.limit) if targets else [], targets=[])
        for target in targets:
            told = time_to(target, values.dataset, values.data_dir, values.target_seeds, folder, values.limit)
            _print_target(told)
            keep(targets=[*result["targets"], told])
        keep(start_up=start_up(values.limit))
    _print_start_up(result["start_up"])
    for why in result["eight_seeds"]["failures"]:
        print(f"eight seeds: {why}")
    for told in result["examples"]:
        print(f"{told['source']}: {told.get('failure') or format(told['seconds'], '.0f') + ' s to its end'}")
    keep(goals=judge(result), load_average_after=os.getloadavg())
    for told in result["goals"]:
        _print_goal(told)
    plots.save(plots.speeds(result["rows"]), workdir / "speed.png")
    print(f"Results: {workdir}")


if __name__ == "__main__":
    flags.command(__doc__, (Choices(),), main)
