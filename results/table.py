"""Writes the tables of the README and docs/performance.md from the result files here: python results/table.py"""

import json
import pathlib
import re

FOLDER = pathlib.Path(__file__).parent
PAGES = [FOLDER.parent / "README.md", FOLDER.parent / "docs" / "performance.md"]
ROWS = [
    ("softmax", "softmax regression, 784-10"),
    ("perceptron", "perceptron 784-784-10, the lecture's recipe"),
    ("cnn", "CNN 32 of 5x5, dense 128, the lecture's recipe"),
    ("rnn", "LSTM, 128 units, over the rows"),
    ("embedding", "attention over 4x4 patches, two blocks"),
    ("deep_cnn", "deep CNN, batch norm, augmentation, one network"),
]


def row(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def figures(errors):
    """Mean, deviation, least, most and number of test errors, in percent."""
    mean = sum(errors) / len(errors)
    deviation = (sum((error - mean) ** 2 for error in errors) / (len(errors) - 1)) ** 0.5
    return [f"{mean:.2f} %", f"{deviation:.2f}", f"{min(errors):.2f} to {max(errors):.2f}", len(errors)]


def errors_of(path):
    return [100 * (1 - run["test"]["accuracy"]) for run in json.loads(path.read_text())["runs"]]


def accuracy_table():
    lines = [
        row("model", "test error, mean", "deviation", "from, to", "seeds", "result file"),
        "|---|---|---|---|---|---|",
    ]
    for name, title in ROWS:
        path = FOLDER / f"{name}.json"
        if path.exists():
            lines.append(row(title, *figures(errors_of(path)), f"[{name}.json](results/{name}.json)"))
        peers = FOLDER / f"keras_{name}.json"
        for peer in json.loads(peers.read_text()) if peers.exists() else ():
            link = f"[{peers.name}](results/{peers.name})"
            lines.append(row(f"the same in {peer['peer']}", *figures(peer["test_error_percent"]), link))
    return lines


def loss_table():
    lines = [row("loss", "test error, mean", "deviation", "from, to", "seeds"), "|---|---|---|---|---|"]
    paths = [FOLDER / "perceptron.json", *sorted((FOLDER / "losses").glob("*.json"))]
    return lines + [row(json.loads(path.read_text())["config"]["loss"], *figures(errors_of(path))) for path in paths]


def speed_table():
    told = json.loads((FOLDER / "benchmark" / "cpu.json").read_text())
    lines = [
        row("network", "precision", "contestant", "images/s", "ours is faster by", "of the floor", "compile", "memory"),
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in told["rows"]:
        for name, facts in one["contestants"].items():
            ratio = facts["ours_is_faster_by"]
            faster = "" if name == "ours" else "{median:.2f} ({min:.2f} to {max:.2f})".format(**ratio)
            cells = [one["model"], one["precision"], name, f"{facts['images_per_second']:,.0f}", faster]
            cells += [f"{facts['share_of_floor']:.0%}", f"{facts['compile_seconds']:.1f} s"]
            lines.append(row(*cells, f"{facts['peak_memory_bytes'] / 2**20:,.0f} MiB"))
    lines += ["", row("goal", "wanted", "reached", ""), "|---|---|---|---|"]
    start_up = told["start_up"]
    many = told["eight_seeds"]["ratio"]["median"]
    goals = [(f"{g['model']} {g['precision']} against {g['peer']}", g["wanted"], g["reached"]) for g in told["goals"]]
    goals.append(("eight seeds of the perceptron in one program against eight runs, images a second", 1.3, many))
    for goal, wanted, reached in goals:
        lines.append(row(goal, wanted, f"{reached:.2f}", "yes" if reached >= wanted else "no"))
    timed = json.loads((FOLDER / "benchmark" / "cpu_99.json").read_text())
    (target,) = timed["targets"]
    for what, seconds in (("training", "seconds_a_seed"), ("the whole process", "seconds_of_a_process")):
        for example in timed["examples"]:
            name = "/".join(example["source"].split("/")[3:5])
            reached = example["seconds"] / target[seconds]
            goal = f"{target['target']} % ({what}) against {name}'s MNIST example to its end"
            lines.append(row(goal, 30, f"{reached:.0f}", "yes" if reached >= 30 else "no"))
    for goal, most, seconds in (("--help, processor seconds", 2, "help_processor"), ("quick start", 20, "quick_start")):
        reached = start_up[f"{seconds}_seconds"]
        lines.append(row(goal, f"under {most} s", f"{reached:.1f} s", "yes" if reached < most else "no"))
    return lines


def render(text):
    """Puts the tables between their marks.

    Args:
      text: of a page.

    Returns:
      The new text.
    """
    for name, lines in {"accuracy": accuracy_table(), "losses": loss_table(), "speed": speed_table()}.items():
        marks = f"<!-- {name} -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"{marks[0]}.*?{marks[1]}", re.DOTALL)
        text = pattern.sub(lambda _, marks=marks, lines=lines: "\n".join([marks[0], *lines, marks[1]]), text)
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text()))
