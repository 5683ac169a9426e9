"""What a run tells: progress while it goes, and the facts and figures of its result file."""

import pathlib
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


class Progress:
    """Reports a run: a bar on a terminal, a line an epoch elsewhere, nothing when quiet. It changes no number."""

    def __init__(self, epochs: int, quiet: bool, stream: Any = None, done: int = 0):
        self.stream = stream or sys.stderr
        self.quiet, self.epochs, self.bar = quiet, epochs, None
        if not quiet and self.stream.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=epochs, initial=done, unit="epoch", file=self.stream)

    def epoch(self, record: dict[str, Any], images_per_second: float) -> None:
        """Reports one epoch.

        Args:
          record: a line of metrics.jsonl.
          images_per_second: training speed.
        """
        facts = {"loss": f"{record['train']['loss']:.4f}", "accuracy": f"{record['train']['accuracy']:.4f}"}
        if "validation" in record:
            facts["val_accuracy"] = f"{record['validation']['accuracy']:.4f}"
        facts["images/s"] = f"{images_per_second:,.0f}"
        if self.bar is not None:
            self.bar.set_postfix(facts)
            self.bar.update()
        elif not self.quiet:
            told = "  ".join(f"{name} {value}" for name, value in facts.items())
            print(f"seed {record['seed']}  epoch {record['epoch']}/{self.epochs}  {told}", file=self.stream, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


def commit() -> str | None:
    """Names the commit that this package runs from, with -dirty where files differ from it.

    Returns:
      None where it is installed without a checkout.
    """
    root = pathlib.Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    words = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(words, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """The versions of everything that a number may depend on."""
    import importlib.metadata

    names = ("mnist_jax", "jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def summarize(scores: Sequence[float]) -> dict[str, float | None]:
    """Mean, sample standard deviation, extremes and number of some scores.

    Args:
      scores: one a seed.

    Returns:
      `std` is None for a single score.

    >>> summarize([0.5, 1.0])["mean"]
    0.75
    """
    return {
        "mean": statistics.fmean(scores),
        "std": statistics.stdev(scores) if len(scores) > 1 else None,
        "min": min(scores),
        "max": max(scores),
        "n": len(scores),
    }
