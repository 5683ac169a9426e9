"""How an epoch grows with images, width, batch size and seeds, in time and in memory."""

import pathlib
import statistics
import sys
from typing import Any

import numpy as np

from benchmarks.compare import BATCH, run

AXES = {  # (model, what grows): its values
    ("perceptron", "images"): (3000, 6000, 12000, 24000, 48000),
    ("perceptron", "hidden"): (49, 98, 196, 392, 784, 1568, 3136),
    ("perceptron", "batch_size"): (10, 25, 50, 100, 200, 400, 800, 1600),
    ("perceptron", "seeds"): (1, 2, 4, 8, 16, 32, 64),
    ("cnn", "batch_size"): (25, 100, 400, 1600),
    ("cnn", "seeds"): (1, 8, 64),
    ("deep_cnn", "batch_size"): (16, 64, 256, 1024),
    ("deep_cnn", "seeds"): (1, 8, 64),
}
IMAGES = {"perceptron": 6000, "cnn": 1600, "deep_cnn": 1024}  # of an epoch, where they do not grow


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
      From "model axis" to its points: value, seconds an epoch and peak memory in bytes, or why there are none.
    """
    told = {}
    for (model, axis), values in AXES.items():
        points = told[f"{model} {axis}"] = []
        for value in values:
            settings = {"images": IMAGES[model], "batch_size": BATCH[model], "seeds": 1} | {axis: value}
            count = settings.pop("images")
            path = folder / f"growth-{count}.npz"
            if not path.exists():
                np.savez(path, images=np.resize(images, (count, *images.shape[1:])), labels=np.resize(labels, count))
            words = [f"--model={model}", f"--epochs={epochs}", f"--data={path}"]
            words += [f"--{name}={setting}" for name, setting in settings.items()]
            one = run("ours.py", sys.executable, words, {}, limit)
            if isinstance(one, str):
                points.append({"value": value, "failure": one})
                continue
            seconds = count * settings["seeds"] / statistics.median(one["images_per_second"])
            points.append({"value": value, "seconds": seconds, "peak_memory_bytes": one["peak_memory_bytes"]})
    return told
