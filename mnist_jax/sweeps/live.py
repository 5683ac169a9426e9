"""What a person sees while a sweep runs: a line of 80 columns on a terminal, a line per trial elsewhere."""

import sys
from collections.abc import Sequence
from typing import Any, TextIO

from mnist_jax.sweeps.table import Row, format_point, format_score

_BAR_FORMAT = "{desc}, {remaining} left{postfix} {bar:2}"  # the bar's presence makes tqdm cut the line to the terminal


class Live:
    """Reports how far a sweep has come. It changes no number."""

    def __init__(self, total_epochs: int, quiet: bool, stream: TextIO | None = None):
        """Starts the bar.

        Args:
          total_epochs: epochs of all runs that are still to be trained.
          quiet: whether to report nothing.
          stream: where to; None for stderr.
        """
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self.bar: Any = None
        self._last: dict[int, str] = {}
        if not quiet and self.stream.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total_epochs, file=self.stream, dynamic_ncols=True, bar_format=_BAR_FORMAT)

    def epochs(self, count: int) -> None:
        """Adds epochs that were trained, or that pruning saved."""
        if self.bar is not None:
            self.bar.update(min(count, max(0, self.bar.total - self.bar.n)))

    def trials(self, rows: Sequence[Row], total: int) -> None:
        """Reports the trials.

        Args:
          rows: best first.
          total: number of points of the sweep.
        """
        if self.quiet:
            return
        counts = {state: sum(row.state == state for row in rows) for state in ("COMPLETE", "RUNNING", "PRUNED", "FAIL")}
        best = rows[0] if rows and rows[0].state == "COMPLETE" else None
        if self.bar is not None:
            parts = [f"{counts['COMPLETE']}/{total} done"]
            words = {"RUNNING": "running", "PRUNED": "pruned", "FAIL": "failed"}
            parts += [f"{counts[state]} {word}" for state, word in words.items() if counts[state]]
            self.bar.set_description_str(", ".join(parts))
            self.bar.set_postfix_str(f"best {format_score(best)}" if best else "")
            return
        for row in sorted(rows, key=lambda row: row.number):
            if row.state != "RUNNING" and self._last.get(row.number) != f"{row.state}{len(row.scores)}":
                self._last[row.number] = f"{row.state}{len(row.scores)}"
                what = row.reason if row.state == "FAIL" else format_score(row)
                word = {"COMPLETE": "", "PRUNED": "pruned at ", "FAIL": "failed: "}[row.state]
                done = len(rows) - counts["RUNNING"]
                print(
                    f"trial {row.number}  {format_point(row.point)}  {word}{what}  ({done}/{total}"
                    + (f", best {format_score(best)})" if best else ")"),
                    file=self.stream,
                    flush=True,
                )

    def close(self) -> None:
        """Removes the bar."""
        if self.bar is not None:
            self.bar.close()
