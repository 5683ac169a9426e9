"""What every contestant shares: the command line, the data, the clock and the JSON line that it prints."""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def arguments() -> argparse.Namespace:
    """Reads the command line.

    Returns:
      model, precision, task, variant, batch_size, epochs, seeds, hidden, and data: the .npz file of images and labels.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=["softmax", "perceptron", "cnn", "deep_cnn", "example"], required=True)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--task", choices=["train", "evaluate", "predict"], default="train")
    parser.add_argument("--variant", default="")
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=784)
    parser.add_argument("--data", required=True)
    return parser.parse_args()


def load(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Reads the images and labels.

    Args:
      args: of `arguments`.

    Returns:
      [N, 28, 28, 1] uint8 and [N] int32.
    """
    with np.load(args.data) as arrays:
        return arrays["images"], arrays["labels"].astype(np.int32)


def peak_memory() -> int:
    """Bytes that this process has held at most; ru_maxrss would begin at its parent's, where /proc tells better."""
    try:
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # not Linux, or a sandbox that does not count it
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def jax_peak_memory(device: Any) -> int:
    """Bytes that a device of JAX has held at most; the process, where the device is a CPU, which does not tell."""
    return (device.memory_stats() or {}).get("peak_bytes_in_use") or peak_memory()


def measure(
    args: argparse.Namespace,
    images: int,
    once: Callable[[], Any],
    versions: dict[str, str],
    device: str,
    peak: Callable[[], int] = peak_memory,
) -> None:
    """Times a pass over the data, the first one apart, and prints one line of JSON.

    Args:
      args: of `arguments`.
      images: how many a pass handles.
      once: runs one pass, and returns when it is done.
      versions: of what the numbers depend on.
      device: its name.
      peak: bytes held at most, asked at the end.
    """
    seconds = []
    for _ in range(args.epochs + 1):
        start = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - start)
    first, later = seconds[0], seconds[1:]
    told = {
        "images_per_second": [images / second for second in later],
        "compile_seconds": max(first - statistics.median(later), 0.0),
        "peak_memory_bytes": peak(),
        "versions": versions,
        "device": device,
    }
    print(json.dumps(told))
