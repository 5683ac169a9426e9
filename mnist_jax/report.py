"""What a run reports: progress while it trains, and the statistics of its result file."""

import pathlib
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import TextIO

from mnist_jax.types import Record


class Progress:
    """Reports training: a bar on a terminal, a line per epoch elsewhere, nothing when quiet. It changes no number."""

    def __init__(self, epochs: int, quiet: bool, stream: TextIO | None = None, initial: int = 0):
        self.stream = stream or sys.stderr
        self.quiet, self.epochs, self.bar = quiet, epochs, None
        if not quiet and self.stream.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=epochs, initial=initial, unit="epoch", file=self.stream)

    def epoch(self, record: Record, images_per_second: float) -> None:
        """Reports one epoch.

        Args:
          record: a line of metrics.jsonl.
          images_per_second: training speed.
        """
        stats = {name: f"{value:.4f}" for name, value in record["train"].items() if isinstance(value, float)}
        validation = record.get("validation", {}).items()
        stats |= {f"val_{name}": f"{value:.4f}" for name, value in validation if name not in ("count", "loss")}
        stats["images/s"] = f"{images_per_second:,.0f}"
        if self.bar is not None:
            self.bar.set_postfix(stats)
            self.bar.update()
        elif not self.quiet:
            line = "  ".join(f"{name} {value}" for name, value in stats.items())
            print(f"seed {record['seed']}  epoch {record['epoch']}/{self.epochs}  {line}", file=self.stream, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


def git_commit() -> str | None:
    """Returns the commit of the checkout that this package runs from, with -dirty where files differ from it.

    Returns:
      None where it is installed without a checkout.
    """
    root = pathlib.Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    argv = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(argv, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Returns the versions of everything that a number may depend on."""
    import importlib.metadata

    from mnist_jax import __version__

    names = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")
    installed = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), "mnist_jax": __version__, **installed}


def summarize(scores: Sequence[float]) -> dict[str, float | None]:
    """Computes mean, sample standard deviation, extremes and number of scores.

    Args:
      scores: one per seed.

    Returns:
      `mean`, `std` (None for a single score), `min`, `max`, `n`.

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


def summarize_runs(runs: Sequence[Record]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Summarizes the scores of all seeds.

    Args:
      runs: for each seed its splits' scores, as in result.json.

    Returns:
      summary[split][metric] is what `summarize` returns.
    """
    splits = [name for name in ("train", "validation", "test") if name in runs[0]]
    return {
        split: {
            metric: summarize([run[split][metric] for run in runs]) for metric in runs[0][split] if metric != "count"
        }
        for split in splits
    }
