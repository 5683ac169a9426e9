"""What all implementations share: the command line, the data, the timing and the line of JSON that they print."""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def parse_args() -> argparse.Namespace:
    """Parses the command line.

    Returns:
      model, dtype, task, variant, batch_size, epochs, seeds, hidden_size, and data: an .npz file of images and labels.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=["softmax", "perceptron", "cnn", "deep_cnn", "example"], required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--task", choices=["train", "evaluate", "predict"], default="train")
    parser.add_argument("--variant", default="")
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--hidden_size", type=int, default=784)
    parser.add_argument("--data", required=True)
    return parser.parse_args()


def load_data(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Loads the images and labels.

    Args:
      args: from `parse_args`.

    Returns:
      [N, 28, 28, 1] uint8 and [N] int32.
    """
    with np.load(args.data) as arrays:
        return arrays["images"], arrays["labels"].astype(np.int32)


def peak_memory_bytes() -> int:
    """Returns the peak memory of this process, from /proc where it exists: ru_maxrss includes the parent's memory."""
    try:
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # not Linux, or a sandbox without this line
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def jax_peak_memory_bytes(device: Any) -> int:
    """Returns the peak memory of a JAX device, or of this process where the device does not report it, as a CPU."""
    return (device.memory_stats() or {}).get("peak_bytes_in_use") or peak_memory_bytes()


def measure(
    args: argparse.Namespace,
    num_images: int,
    run_pass: Callable[[], Any],
    versions: dict[str, str],
    device: str,
    get_peak_memory: Callable[[], int] = peak_memory_bytes,
) -> None:
    """Times passes over the data and prints one line of JSON.

    The first pass is not among them: the time by which it exceeds their median is reported as `compile_seconds`.

    Args:
      args: from `parse_args`.
      num_images: images per pass.
      run_pass: runs one pass and returns when it is complete.
      versions: of the libraries that the numbers depend on.
      device: its name, beginning with cpu, gpu or tpu.
      get_peak_memory: returns the peak memory in bytes; called at the end.
    """
    seconds = []
    for _ in range(args.epochs + 1):
        start = time.perf_counter()
        run_pass()
        seconds.append(time.perf_counter() - start)
    first, *timed = seconds
    record = {
        "images_per_second": [num_images / elapsed for elapsed in timed],
        "compile_seconds": max(first - statistics.median(timed), 0.0),
        "peak_memory_bytes": get_peak_memory(),
        "versions": versions,
        "device": device,
    }
    print(json.dumps(record))
