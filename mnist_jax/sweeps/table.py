"""The trials of a sweep as rows, best first; what to beware of; and the files that list them."""

import csv
import dataclasses
import io
import math
import pathlib
import shlex
import statistics
from collections.abc import Sequence
from typing import Any

from mnist_jax.config import Config, changed_fields
from mnist_jax.files import temp_path
from mnist_jax.sweeps.search import from_params
from mnist_jax.sweeps.space import Dimension, Point, format_value
from mnist_jax.sweeps.study import Trial
from mnist_jax.sweeps.trainer import Objective, standard_error


@dataclasses.dataclass
class Row:
    """One point of a sweep, with all of its seeds."""

    number: int  # in the order in which the search proposed them
    point: Point
    base: Config  # of the experiment, with the flags of the sweep
    module: str  # that defines the experiment; empty where there is none
    state: str  # COMPLETE, PRUNED, FAIL or RUNNING
    seeds: list[int]
    scores: list[float]  # of the objective, one per seed
    history: list[float | None]  # mean over seeds after each epoch
    seconds: float
    epochs: int  # trained, summed over seeds
    reason: str = ""

    @property
    def config(self) -> Config:
        """Configuration of its runs."""
        return dataclasses.replace(self.base, **self.point)

    @property
    def command(self) -> str:
        """The command that trains its runs by themselves; empty where the experiment has no module."""
        if not self.module:
            return ""
        import importlib

        plain = importlib.import_module(self.module).EXPERIMENT.config
        count = max(self.seeds) - min(self.seeds) + 1
        config = dataclasses.replace(self.config, seed=min(self.seeds), num_seeds=count)
        flags = [f"--{flag.name}={format_value(getattr(config, flag.name))}" for flag in changed_fields(plain, config)]
        return shlex.join(["python", "-m", self.module, *flags])

    @property
    def mean(self) -> float | None:
        """Mean over seeds."""
        return statistics.fmean(self.scores) if self.scores else None

    @property
    def stderr(self) -> float | None:
        """Standard error of the mean."""
        return standard_error(self.scores)


def make_rows(
    trials: Sequence[Trial], dimensions: Sequence[Dimension], base: Config, module: str, objective: Objective
) -> list[Row]:
    """Makes a row for each point, sorted by the objective; those that were stopped early or failed come last.

    Args:
      trials: of the study.
      dimensions: what varies.
      base: configuration of the experiment with the flags of the sweep.
      module: of the experiment, for the commands; empty for none.
      objective: what is compared.

    Returns:
      The rows.
    """
    rows: dict[int, Row] = {}
    for trial in trials:
        attrs, known = trial.attrs, rows.get(trial.point)
        # Commands with different numbers of seeds may have trained the same one at the same time, with the same score.
        seeds = [seed for seed in attrs["seeds"] if known is None or seed not in known.seeds]
        by_seed = dict(zip(attrs["seeds"], attrs.get("scores", []), strict=False))
        scores = [by_seed[seed] for seed in seeds if by_seed.get(seed) is not None and math.isfinite(by_seed[seed])]
        epochs, seconds, history = sum(attrs.get("epochs", [])), attrs.get("seconds", 0.0), attrs.get("history", [])
        reason = attrs.get("reason", "")
        if known is None:
            point = from_params(dimensions, trial.params)
            rows[trial.point] = Row(
                trial.point, point, base, module, trial.state, seeds, scores, history, seconds, epochs, reason
            )
            continue
        known.history = _merge(known.history, len(known.seeds), history, len(seeds))
        known.seeds, known.scores = known.seeds + seeds, known.scores + scores
        known.seconds, known.epochs = known.seconds + seconds, known.epochs + epochs
        if trial.state != "COMPLETE":
            known.state, known.reason = trial.state, reason
    sign = 1 if objective.minimize else -1
    order = {"COMPLETE": 0, "RUNNING": 1, "PRUNED": 2, "FAIL": 3}
    return sorted(
        rows.values(), key=lambda r: (order[r.state], math.inf if r.mean is None else sign * r.mean, r.number)
    )


def _merge(a: list[float | None], n: int, b: list[float | None], m: int) -> list[float | None]:
    pairs = zip(a, b, strict=False)
    return [None if x is None or y is None else (n * x + m * y) / (n + m) for x, y in pairs]


def format_point(point: Point) -> str:
    """Formats a point in one line.

    >>> format_point({"learning_rate": 0.001, "hidden_sizes": (64, 32)})
    'learning_rate=0.001 hidden_sizes=64,32'
    """
    return " ".join(f"{name}={format_value(value)}" for name, value in point.items())


def format_score(row: Row) -> str:
    """Formats a row's mean with its standard error."""
    if row.mean is None:
        return "-"
    return f"{row.mean:.5g}" + (f" ± {row.stderr:.2g}" if row.stderr is not None else "")


def format_table(rows: Sequence[Row], objective: Objective, limit: int = 10) -> str:
    """Formats the best rows for a terminal: score, settings, and the command that repeats each.

    Args:
      rows: best first.
      objective: what is compared.
      limit: rows to show.
    """
    shown = rows[:limit]
    lines = [f"{'validation ' + objective.metric:26} {'n':>2} {'seconds':>8}  settings"]
    for row in shown:
        score = format_score(row) if row.state == "COMPLETE" else f"{format_score(row)} ({row.state.lower()})"
        lines.append(f"{score:26} {len(row.scores):2} {row.seconds:8.1f}  {format_point(row.point)}")
        if row.command:
            lines.append(f"  {row.command}")
    if len(rows) > limit:
        lines.append(f"... and {len(rows) - limit} more in trials.csv")
    return "\n".join(lines)


def write_csv(path: pathlib.Path, rows: Sequence[Row], dimensions: Sequence[Dimension]) -> None:
    """Writes trials.csv, best first.

    Args:
      path: the file.
      rows: best first.
      dimensions: what varies.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [dimension.name for dimension in dimensions]
    writer.writerow(
        ["trial", "state", *names, "mean", "stderr", "n", "seeds", "scores", "epochs", "seconds", "reason", "command"]
    )
    for row in rows:
        values = [format_value(row.point[name]) for name in names]
        cells: list[Any] = [row.number, row.state.lower(), *values, row.mean, row.stderr, len(row.scores)]
        cells += [" ".join(map(str, row.seeds)), " ".join(map(str, row.scores)), row.epochs]
        writer.writerow([*cells, round(row.seconds, 2), row.reason, row.command])
    tmp = temp_path(path)
    tmp.write_text(text.getvalue(), encoding="utf-8")
    tmp.replace(path)


def advise(rows: Sequence[Row], dimensions: Sequence[Dimension], objective: Objective, seeds: int) -> list[str]:
    """Warns of what the numbers do not show.

    Args:
      rows: best first.
      dimensions: what varies.
      objective: what is compared.
      seeds: how many each trial was asked to have.

    Returns:
      A sentence for each warning.
    """
    complete = [row for row in rows if row.state == "COMPLETE" and row.mean is not None]
    if not complete:
        return []
    best, warnings = complete[0], []
    for dimension in dimensions:
        value = best.point[dimension.name]
        if dimension.values:
            if not dimension.is_numeric or len(dimension.values) < 3:
                continue
            low, high, margin = min(dimension.values), max(dimension.values), 0.0
        else:
            low, high = dimension.low, dimension.high
            margin = 0.05 * ((math.log(high / low)) if dimension.log else high - low)
        scale = math.log if dimension.log else float
        side = (
            "lower" if scale(value) <= scale(low) + margin else "upper" if scale(value) >= scale(high) - margin else ""
        )
        if side and not (value == 0 and side == "lower"):
            warnings.append(
                f"The best {dimension.name}, {format_value(value)}, lies at the {side} end of its range: "
                "try values beyond it."
            )
    fewest, most = (pick(len(row.scores) for row in complete) for pick in (min, max))
    if fewest < most:
        warnings.append(f"Trials have {fewest} to {most} seeds: --seeds={most} makes their means comparable.")
    elif seeds < most:
        warnings.append(f"Trials have {most} seeds from before; --seeds={seeds} takes none away.")
    if len(best.scores) < 2:
        warnings.append(
            "Each trial has one seed, so nothing says how much of a difference is chance: use --seeds=3 or more."
        )
    else:
        tied = [row for row in complete[1:] if _is_tied(best, row)]
        if tied:
            names = "; ".join(format_point(row.point) for row in tied[:4]) + ("; ..." if len(tied) > 4 else "")
            warnings.append(
                f"The lead of the winner is within the standard error of the difference: {len(tied)} other "
                f"trial{'s are' if len(tied) > 1 else ' is'} tied with it ({names})."
            )
            if len(best.scores) < 5:
                warnings.append(f"With {len(best.scores)} seeds the tied ones can't be told apart: add seeds.")
    climbing = [row for row in complete[:5] if _is_improving(row, objective)]
    if climbing:
        warnings.append(
            f"{len(climbing)} of the best {min(5, len(complete))} trials were still improving at the last epoch: "
            "train for more epochs before you compare."
        )
    if failed := [row for row in rows if row.state == "FAIL"]:
        warnings.append(f"{len(failed)} trials failed; the first: {failed[0].reason}.")
    return warnings


def _is_tied(best: Row, row: Row) -> bool:
    assert best.mean is not None and row.mean is not None
    error = math.hypot(best.stderr or 0.0, row.stderr or 0.0)
    return abs(best.mean - row.mean) <= error


def _is_improving(row: Row, objective: Objective) -> bool:
    """Whether the last fifth of the epochs is better than the fifth before by more than the seeds' spread."""
    history = [value for value in row.history if value is not None]
    part = max(1, len(history) // 5)
    if len(history) < 2 * part or len(history) < 3:
        return False
    gain = statistics.fmean(history[-part:]) - statistics.fmean(history[-2 * part : -part])
    return (-gain if objective.minimize else gain) > max(row.stderr or 0.0, 5e-4 * max(1e-9, abs(history[-1])))
