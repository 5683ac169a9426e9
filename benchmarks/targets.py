"""The time to a test accuracy: training by a fixed recipe whose seeds reach the accuracy on average."""

import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.cases import IMPLEMENTATIONS
from benchmarks.children import run_child
from benchmarks.compare import Record, run_program


class Target(NamedTuple):
    """A fixed recipe: an experiment and its flags."""

    experiment: str
    flags: tuple[str, ...]


ONE_EPOCH = (
    "--filters=4,32 --hidden_sizes=128 --norm=batch --dropout=0 --loss=categorical_crossentropy --label_smoothing=0.1 "
    "--epochs=1 --batch_size=100 --microbatch_size=0 --schedule=one_cycle --learning_rate=2e-2"
)
LIGHT_AUGMENTATION = "--rotation=5 --zoom=0.05 --translation=1 --dropout=0.1"
THREE_EPOCHS = f"--filters=12,32,64 --epochs=3 --batch_size=40 --learning_rate=6e-3 {LIGHT_AUGMENTATION}"
SIX_EPOCHS = f"--filters=16,32,64 --epochs=6 --learning_rate=1e-2 {LIGHT_AUGMENTATION}"
# All were selected on validation, 99.7 part by part. Each seed is tested once, at its last step.
TARGETS = {
    "99.0": Target("cnn", tuple(ONE_EPOCH.split())),
    "99.5": Target("deep_cnn", tuple(THREE_EPOCHS.split())),
    "99.6": Target("deep_cnn", tuple(SIX_EPOCHS.split())),
    "99.7": Target("deep_cnn_tuned", ()),
}


class Example(NamedTuple):
    """Another project's MNIST example, run to its end."""

    implementation: str
    batch_size: int
    epochs: int


EXAMPLES = {
    "https://github.com/pytorch/examples/tree/main/mnist": Example("torch", 64, 14),
    "https://github.com/google/flax/tree/main/examples/mnist": Example("flax_plain", 128, 10),
}


def measure_examples(data: pathlib.Path, pythons: Mapping[str, str], timeout_s: float) -> list[Record]:
    """Measures how long other projects' examples train: their networks, optimizers, batch sizes and epochs.

    Args:
      data: .npz file of images and labels.
      pythons: the interpreter of each implementation that takes part.
      timeout_s: seconds after which a run is stopped.

    Returns:
      For each: images per second over one pass, and the seconds of its epochs of 60,000 images at that throughput,
      without validation and start-up; or the failure.
    """
    records: list[Record] = []
    for source, (name, batch_size, epochs) in EXAMPLES.items():
        if name not in pythons:
            continue
        argv = [f"--data={data}", f"--batch_size={batch_size}", "--model=example", "--epochs=1"]
        record = run_program(IMPLEMENTATIONS[name].program, pythons[name], argv, {}, timeout_s)
        if isinstance(record, str):
            records.append({"source": source, "failure": record})
        else:
            (speed,) = record["images_per_second"]
            records.append({"source": source, "images_per_second": speed, "seconds": epochs * 60_000 / speed})
    return records


def time_to_accuracy(
    target: str, dataset: str, data_dir: str, seeds: int, folder: pathlib.Path, timeout_s: float
) -> Record:
    """Trains a target's recipe from the command line, as a user would.

    Args:
      target: name in TARGETS, percent of the test images.
      dataset: value of --dataset.
      data_dir: value of --data_dir.
      seeds: number of seeds to train.
      folder: where the runs are written.
      timeout_s: seconds after which a run is stopped.

    Returns:
      Training seconds per seed, seconds of a process that trains one seed with cached programs, the test accuracy, and
      whether its mean reaches the target; or the failure.
    """
    experiment, flags = TARGETS[target]
    record: Record = {"target": target, "experiment": experiment, "flags": flags}
    command = [sys.executable, "-m", f"experiments.{experiment}", *flags, "--eval_every_epochs=0", "--quiet"]
    command += [f"--dataset={dataset}", f"--data_dir={data_dir}"]
    process_seconds = 0.0
    try:
        for num_seeds, workdir in ((seeds, folder / target), (1, folder / f"{target}-one-seed")):
            start = time.perf_counter()
            argv = [*command, f"--num_seeds={num_seeds}", f"--workdir={workdir}"]
            run_child(argv, timeout_s).check_returncode()
            process_seconds = time.perf_counter() - start
    except subprocess.CalledProcessError as error:
        return record | {"failure": (error.stderr.strip().splitlines() or [str(error)])[-1][:200]}
    except subprocess.TimeoutExpired:
        return record | {"failure": f"took more than {timeout_s:.0f} s"}
    result = json.loads((folder / target / "result.json").read_text())
    accuracy = result["summary"]["test"]["accuracy"]
    return record | {
        "seconds_per_seed": sum(result["seconds"]["epochs"]) / seeds,
        "process_seconds": process_seconds,
        "test_accuracy": accuracy,
        "is_reached": 100 * accuracy["mean"] >= float(target),
        "device": result["device"],
    }
