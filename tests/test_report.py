"""What a person sees of a run: the bar at 80 columns, the last lines."""

import io
import re

import pytest

from mnist_jax.report import Progress, format_headline, format_seconds

RECORD = {
    "seed": 7,
    "epoch": 1,
    "train": {"count": 3600, "loss": 1.02854, "accuracy": 0.7222},
    "validation": {"count": 400, "loss": 0.5, "accuracy": 0.88},
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_is_legible_at_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    with Progress(10, False, stream, initial=3, seed=7) as progress:
        progress.epoch(RECORD, 32_315.0)
    line = stream.getvalue().rstrip().split("\r")[-1]
    assert len(line) <= 80
    assert re.match(r"seed 7  epoch 4/10 \|.{16}\| \S+ left, loss 1.0285  val_acc 0.8800", line), line
    assert stream.getvalue().endswith("\n"), "what comes next begins on a new line"


def test_elsewhere_it_is_a_line_per_epoch():
    stream = io.StringIO()
    with Progress(10, False, stream, seed=7) as progress:
        progress.epoch(RECORD, 32_315.0)
    expected = "seed 7  epoch 1/10  loss 1.0285  accuracy 0.7222  val_accuracy 0.8800  images/s 32,315\n"
    assert stream.getvalue() == expected


def test_quiet_is_quiet():
    for stream in (io.StringIO(), Terminal()):
        with Progress(10, True, stream, seed=7) as progress:
            progress.epoch(RECORD, 32_315.0)
        assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("experiment", "summary", "line"),
    [
        ("perceptron", {"accuracy": {"mean": 0.982, "std": None, "n": 1}}, "Baseline Error: 1.80%"),
        ("cnn", {"accuracy": {"mean": 0.99, "std": 1e-3, "n": 2}}, "Test Error: 1.00% (standard deviation 0.10, n=2)"),
        ("mine", {"loss": {"mean": 0.5, "std": None, "n": 1}}, "Test loss: 0.50"),
    ],
)
def test_the_headline_names_the_error_of_the_lectures_baseline_only(experiment, summary, line):
    assert format_headline({"experiment": experiment, "summary": {"test": summary}}) == line


def test_the_time_is_given_by_phase():
    seconds = {"load": 1.0, "compile": 2.0, "train": 3.0, "score": 0.5, "total": 6.5, "epochs": [1.5, 1.5]}
    assert format_seconds(seconds) == "Time: 6.5 s (load 1.0, compile 2.0, train 3.0, score 0.5)"
