"""The benchmark behind `python -m mnist_jax benchmark`: validates its flags, measures, and writes the results."""

import dataclasses
import json
import os
import pathlib
import shutil
import sys
import tempfile

from benchmarks import plots, report
from benchmarks.cases import BATCH_SIZES, IMPLEMENTATIONS, MNIST_JAX, TORCH, Case
from benchmarks.children import kill_children
from benchmarks.compare import Record, compare, compare_seeds, cpu_name, platform_of, write_npz
from benchmarks.goals import evaluate_goals
from benchmarks.scaling import measure_scaling
from benchmarks.start_up import measure_start_up
from benchmarks.targets import TARGETS, measure_examples, time_to_accuracy
from mnist_jax.commands.benchmark import Flags
from mnist_jax.datasets import load_dataset
from mnist_jax.errors import ConfigError, get_entry
from mnist_jax.figures import save
from mnist_jax.files import remove_if_empty, write_json
from mnist_jax.process import exit_on_signals
from mnist_jax.report import git_commit, versions
from mnist_jax.types import Dataset

UNRECORDED_FLAGS = ("dataset", "data_dir", "baseline_pythons", "output", "overwrite")  # local paths


def parse_pythons(arguments: tuple[str, ...]) -> dict[str, str]:
    """Parses --baseline_pythons.

    Args:
      arguments: NAME=PYTHON.

    Returns:
      The interpreter of each implementation that takes part; those in JAX run in this one.

    Raises:
      ConfigError: an unknown name, or no such interpreter.
    """
    pythons = {MNIST_JAX: sys.executable, "flax_plain": sys.executable}
    for argument in arguments:
        name, _, python = argument.partition("=")
        get_entry(IMPLEMENTATIONS, "baseline_pythons", name)
        if not python or not pathlib.Path(python).is_file():
            raise ConfigError(f"baseline_pythons={argument}: must be NAME=PYTHON, an interpreter that has {name}")
        pythons |= dict.fromkeys(TORCH if name == "torch" else (name,), python)
    return pythons


def make_cases(flags: Flags) -> list[Case]:
    """Lists the cases that the flags ask for.

    Args:
      flags: of the command.

    Returns:
      Cases.
    """
    return [
        Case(model, dtype, task, batch_size or BATCH_SIZES[model])
        for task in flags.tasks
        for model in flags.models
        for dtype in flags.dtypes
        for batch_size in flags.batch_sizes
    ]


def images_per_epoch(flags: Flags, model: str, available: int) -> int:
    """Computes how many images an epoch has.

    Args:
      flags: of the command.
      model: its name.
      available: number of training images.

    Returns:
      At most 60,000 images.
    """
    count = (model == "deep_cnn" and flags.deep_cnn_images) or flags.images
    return min(count or 60_000, available)


class Benchmark:
    """A benchmark in progress: `result` is written to benchmark.json after each measurement."""

    def __init__(self, flags: Flags, dataset: Dataset, output: pathlib.Path, folder: pathlib.Path):
        self.flags, self.dataset, self.output, self.folder = flags, dataset, output, folder
        recorded = {name: value for name, value in dataclasses.asdict(flags).items() if name not in UNRECORDED_FLAGS}
        self.result: Record = {
            "dataset": dataset.name,
            "flags": recorded,
            "versions": versions(),
            "commit": git_commit(),
            "cpu": cpu_name(),
            "cpu_count": os.cpu_count(),
            "load_average_before": os.getloadavg(),
        }

    def update(self, **records: object) -> None:
        self.result.update(records)
        write_json(self.output / "benchmark.json", self.result)

    def data(self, model: str) -> pathlib.Path:
        """Returns the file of the images and labels that a model trains on."""
        images, labels = self.dataset.train_images, self.dataset.train_labels
        return write_npz(self.folder, images, labels, images_per_epoch(self.flags, model, len(images)))

    def measure_scaling(self) -> None:
        images, labels = self.dataset.train_images, self.dataset.train_labels
        axes = measure_scaling(images, labels, self.folder, self.flags.epochs, self.flags.timeout_s)
        write_json(self.output / "scaling.json", self.result | {"axes": axes})
        save(plots.plot_scaling(axes), self.output / "scaling.png")
        print(json.dumps(axes, indent=2))

    def compare(self, cases: list[Case], pythons: dict[str, str]) -> None:
        self.update(cases=[])
        rounds, epochs, timeout_s = self.flags.rounds, self.flags.epochs, self.flags.timeout_s
        for case in cases:
            record = compare(case, self.data(case.model), pythons, rounds, epochs, timeout_s)
            self.update(cases=[*self.result["cases"], record])
            print(report.format_case(record), flush=True)
        self.time_targets(pythons)
        if self.flags.goals:
            self.update(eight_seeds=compare_seeds(self.data("perceptron"), rounds, epochs, 8, timeout_s))
            self.update(start_up=measure_start_up(self.folder, timeout_s))
            self.update(goals=evaluate_goals(self.result))
        self.update(load_average_after=os.getloadavg())
        save(plots.plot_throughput(self.result["cases"]), self.output / "throughput.png")

    def time_targets(self, pythons: dict[str, str]) -> None:
        flags = self.flags
        targets = flags.targets
        if not targets and flags.goals and platform_of(self.result["cases"]) != "cpu":
            is_standard = len(self.dataset.train_images) == 60_000 and len(self.dataset.test_images) == 10_000
            targets = tuple(TARGETS) if is_standard else ()
        if targets:
            self.update(examples=measure_examples(self.data("perceptron"), pythons, flags.timeout_s), targets=[])
        for target in targets:
            record = time_to_accuracy(
                target, flags.dataset, flags.data_dir, flags.target_seeds, self.folder, flags.timeout_s
            )
            self.update(targets=[*self.result["targets"], record])
            print(report.format_target(record), flush=True)

    def print_summary(self) -> None:
        for example in self.result.get("examples", ()):
            print(f"{example['source']}: {example.get('failure') or format(example['seconds'], '.0f') + ' s in total'}")
        if self.flags.goals:
            print(report.format_start_up(self.result["start_up"]))
            for failure in self.result["eight_seeds"]["failures"]:
                print(f"eight seeds: {failure}")
            for goal in self.result["goals"]:
                print(report.format_goal(goal))


def run(flags: Flags) -> None:
    """Runs the benchmark.

    Args:
      flags: of the command.

    Raises:
      ConfigError: a flag is wrong.
      DataError: a data file is wrong, or the machine's matmul rate can't be measured.
    """
    pythons = parse_pythons(flags.baseline_pythons)
    for target in flags.targets:
        get_entry(TARGETS, "targets", target)
    dataset = load_dataset(flags.dataset, flags.data_dir)
    cases = make_cases(flags)
    if not cases:
        raise ConfigError("models, dtypes, tasks, batch_sizes: name at least one of each")
    for case in cases:
        count = images_per_epoch(flags, case.model, len(dataset.train_images))
        if case.batch_size > count:
            raise ConfigError(f"images={count}: fewer than a batch of {case.batch_size} for {case.model}")
    output = flags.make_output("benchmark")
    with tempfile.TemporaryDirectory() as folder:

        def clean_up() -> None:
            kill_children()
            shutil.rmtree(folder, ignore_errors=True)
            remove_if_empty(output)

        exit_on_signals("" if flags.scaling else f"; what was measured before is in {output}", clean_up)
        print(f"measuring {'how the cost scales' if flags.scaling else f'cases: {len(cases)}'}, writing {output}")
        benchmark = Benchmark(flags, dataset, output, pathlib.Path(folder))
        if flags.scaling:
            benchmark.measure_scaling()
        else:
            benchmark.compare(cases, pythons)
            benchmark.print_summary()
    print(f"Results: {output}")
