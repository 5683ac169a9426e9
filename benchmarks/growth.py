"""How the perceptron's epoch grows with images, width, batch size and seeds, in time and in memory."""

import pathlib
import statistics
import sys
from typing import Any

import numpy as np

from benchmarks.compare import run

AXES = {
    "images": (3000, 6000, 12000, 24000, 48000),
    "hidden": (49, 98, 196, 392, 784, 1568, 3136),
    "batch_size": (10, 25, 50, 100, 200, 400, 800, 1600),
    "seeds": (1, 2, 4, 8, 16, 32, 64),
}
BASE = {"hidden": 784, "batch_size": 200, "seeds": 1}


def measure_growth(
    images: np.ndarray, labels: np.ndarray, folder: pathlib.Path, epochs: int, limit: float
) -> dict[str, Any]:
    """Measures an epoch along each axis, all else at its base.

    Args:
      images: [N, H, W, C] uint8; repeated where an axis asks for more.
      labels: [N] int32.
      folder: for the data's files.
      epochs: timed passes over the data a run.
      limit: seconds that one run may take.

    Returns:
      From an axis to its points: value, seconds an epoch and peak memory in bytes, or why there are none.
    """
    told = {}
    for axis, values in AXES.items():
        told[axis] = []
        for value in values:
            count = value if axis == "images" else 6000
            path = folder / f"growth-{count}.npz"
            if not path.exists():
                np.savez(path, images=np.resize(images, (count, *images.shape[1:])), labels=np.resize(labels, count))
            settings = BASE | ({axis: value} if axis in BASE else {})
            words = [f"--{name}={setting}" for name, setting in settings.items()]
            one = run(
                "ours.py",
                sys.executable,
                ["--model=perceptron", f"--epochs={epochs}", f"--data={path}", *words],
                {},
                limit,
            )
            if isinstance(one, str):
                told[axis].append({"value": value, "failure": one})
                continue
            seconds = count * settings["seeds"] / statistics.median(one["images_per_second"])
            told[axis].append({"value": value, "seconds": seconds, "peak_memory_bytes": one["peak_memory_bytes"]})
    return told
