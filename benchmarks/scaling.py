"""How time and memory of an epoch scale with images, hidden units, batch size and seeds."""

import pathlib
import statistics
import sys

import numpy as np

from benchmarks.cases import BATCH_SIZES, IMPLEMENTATIONS, MNIST_JAX
from benchmarks.compare import Record, run_program, write_npz

AXES = {  # (model, what is varied): values
    ("perceptron", "images"): (3000, 6000, 12000, 24000, 48000),
    ("perceptron", "hidden_size"): (49, 98, 196, 392, 784, 1568, 3136),
    ("perceptron", "batch_size"): (10, 25, 50, 100, 200, 400, 800, 1600),
    ("perceptron", "seeds"): (1, 2, 4, 8, 16, 32, 64),
    ("cnn", "batch_size"): (25, 100, 400, 1600),
    ("cnn", "seeds"): (1, 8, 64),
    ("deep_cnn", "batch_size"): (16, 64, 256, 1024),
    ("deep_cnn", "seeds"): (1, 8, 64),
}
IMAGES = {"perceptron": 6000, "cnn": 1600, "deep_cnn": 1024}  # per epoch, where they are not varied


def measure_scaling(
    images: np.ndarray, labels: np.ndarray, folder: pathlib.Path, epochs: int, timeout_s: float
) -> dict[str, list[Record]]:
    """Measures an epoch along each axis; all other settings stay at their defaults.

    Args:
      images: [N, H, W, C] uint8; repeated if an axis needs more.
      labels: [N] int32.
      folder: for data files.
      epochs: timed passes over the data per run.
      timeout_s: seconds after which a run is stopped.

    Returns:
      For each "model axis" its points: value, seconds per epoch and peak memory in bytes, or the failure.
    """
    axes: dict[str, list[Record]] = {}
    for (model, axis), values in AXES.items():
        points = axes[f"{model} {axis}"] = []
        for value in values:
            settings = {"images": IMAGES[model], "batch_size": BATCH_SIZES[model], "seeds": 1} | {axis: value}
            count = settings.pop("images")
            argv = [f"--model={model}", f"--epochs={epochs}", f"--data={write_npz(folder, images, labels, count)}"]
            argv += [f"--{name}={setting}" for name, setting in settings.items()]
            record = run_program(IMPLEMENTATIONS[MNIST_JAX].program, sys.executable, argv, {}, timeout_s)
            if isinstance(record, str):
                points.append({"value": value, "failure": record})
                continue
            seconds = count * settings["seeds"] / statistics.median(record["images_per_second"])
            points.append({"value": value, "seconds": seconds, "peak_memory_bytes": record["peak_memory_bytes"]})
    return axes
