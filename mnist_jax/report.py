"""What a run reports: progress while it trains, and the statistics of its result file."""

import pathlib
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import TextIO

from mnist_jax.types import Record

# At 80 columns there is room for the training loss and one metric; tqdm cuts off what does not fit.
_BAR_FORMAT = "{desc}epoch {n_fmt}/{total_fmt} |{bar:16}| {remaining} left{postfix}"


class Progress:
    """Reports training: a bar on a terminal, a line per epoch elsewhere, nothing when quiet. It changes no number."""

    def __init__(
        self, epochs: int, quiet: bool, stream: TextIO | None = None, initial: int = 0, seed: int | None = None
    ):
        self.stream = stream or sys.stderr
        self.quiet, self.epochs, self.bar = quiet, epochs, None
        if not quiet and self.stream.isatty():
            from tqdm import tqdm

            self.bar = tqdm(
                desc="" if seed is None else f"seed {seed}  ",
                total=epochs,
                initial=initial,
                file=self.stream,
                dynamic_ncols=True,
                bar_format=_BAR_FORMAT,
            )

    def epoch(self, record: Record, images_per_second: float) -> None:
        """Reports one epoch.

        Args:
          record: a line of metrics.jsonl.
          images_per_second: training speed.
        """
        stats = {name: f"{value:.4f}" for name, value in record["train"].items() if isinstance(value, float)}
        validation = record.get("validation", {}).items()
        stats |= {f"val_{name}": f"{value:.4f}" for name, value in validation if name not in ("count", "loss")}
        if self.bar is not None:
            shown = [name for name in stats if name == "loss" or name.startswith("val_") or not validation]
            self.bar.set_postfix_str("  ".join(f"{name} {stats[name]}" for name in shown).replace("accuracy", "acc"))
            self.bar.update()
        elif not self.quiet:
            stats["images/s"] = f"{images_per_second:,.0f}"
            line = "  ".join(f"{name} {value}" for name, value in stats.items())
            print(f"seed {record['seed']}  epoch {record['epoch']}/{self.epochs}  {line}", file=self.stream, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


def format_headline(record: Record) -> str:
    """Formats the score of a run as one line: the test error, which the lecture calls Baseline Error for its baseline.

    Args:
      record: of result.json.

    >>> accuracy = {"mean": 0.982, "std": 0.001, "n": 3}
    >>> format_headline({"experiment": "cnn", "summary": {"test": {"accuracy": accuracy}}})
    'Test Error: 1.80% (standard deviation 0.10, n=3)'
    """
    summary = record["summary"]["test"]
    is_classifier = "accuracy" in summary
    score = summary["accuracy" if is_classifier else "loss"]
    scale, unit, mean = (100, "%", 1 - score["mean"]) if is_classifier else (1, "", score["mean"])
    error = "Baseline Error" if record["experiment"] == "perceptron" else "Test Error"
    spread = f" (standard deviation {scale * score['std']:.2f}, n={score['n']})" if score["n"] > 1 else ""
    return f"{error if is_classifier else 'Test loss'}: {scale * mean:.2f}{unit}{spread}"


def format_seconds(seconds: Record) -> str:
    """Formats where the time of a run went as one line.

    Args:
      seconds: of result.json: by phase, and their total.

    >>> format_seconds({"load": 0.5, "compile": 2.25, "train": 60.0, "total": 62.75, "epochs": [30.0, 30.0]})
    'Time: 62.8 s (load 0.5, compile 2.2, train 60.0)'
    """
    phases = (f"{name} {value:.1f}" for name, value in seconds.items() if name not in ("total", "epochs"))
    return f"Time: {seconds['total']:.1f} s ({', '.join(phases)})"


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
