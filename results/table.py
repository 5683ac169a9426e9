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


def precision_table():
    pairs = {
        "perceptron": FOLDER / "perceptron.json",
        "cnn": FOLDER / "cnn.json",
        "deep_cnn_99.5": FOLDER / "benchmark" / "deep_cnn_99.5.json",
    }
    lines = [
        row("recipe", "precision", "test error, mean", "deviation", "from, to", "seeds"),
        "|---|---|---|---|---|---|",
    ]
    for name, path in pairs.items():
        lines.append(row(name, "f32", *figures(errors_of(path))))
        lines.append(row(name, "bf16", *figures(errors_of(FOLDER / "bf16" / f"{name}.json"))))
    return lines


def shown(number, unit):
    return f"{number:.3g} s" if unit == "s" else f"{number:.0f}" if number >= 10 else f"{number:.2f}"


def told_by(name):
    return json.loads((FOLDER / "benchmark" / f"{name}.json").read_text())


def contestants(name):
    head = ["network", "precision", "contestant", "images/s", "ours is faster by", "of the floor", "compile", "memory"]
    lines = [row(*head), "|---" * len(head) + "|"]
    for one in told_by(name)["rows"]:
        for contestant, facts in one["contestants"].items():
            ratio = facts["ours_is_faster_by"]
            faster = "" if contestant == "ours" else "{median:.2f} ({min:.2f} to {max:.2f})".format(**ratio)
            cells = [one["model"], one["precision"], contestant]
            cells += [f"{facts['images_per_second']:,.0f}", faster, f"{facts['share_of_floor']:.0%}"]
            cells += [f"{facts['compile_seconds']:.1f} s", f"{facts['peak_memory_bytes'] / 2**20:,.0f} MiB"]
            lines.append(row(*cells))
    return lines


def ratios(*names):
    rows = [one for name in names for one in told_by(name)["rows"]]
    peers = dict.fromkeys(name for one in rows for name in one["contestants"] if name != "ours")
    lines = [row("network", "task", "batch", "ours, images/s", *peers), "|---" * (4 + len(peers)) + "|"]
    for one in rows:
        told = one["contestants"]
        faster = [f"{told[name]['ours_is_faster_by']['median']:.2f}" if name in told else "" for name in peers]
        speed = f"{told['ours']['images_per_second']:,.0f}"
        lines.append(row(one["model"], one["task"], one["batch_size"], speed, *faster))
    return lines


def goals(name):
    lines = [row("goal", "wanted", "reached", ""), "|---|---|---|---|"]
    for goal in told_by(name)["goals"]:
        is_seconds = goal["unit"] == "s"
        wanted = f"at most {goal['wanted']:g} s" if is_seconds else f"{goal['wanted']:g}"
        reached = "not measured" if goal["reached"] is None else shown(goal["reached"], goal["unit"])
        lines.append(row(goal["goal"], wanted, reached, {None: "", True: "yes", False: "no"}[goal["is_reached"]]))
    return lines


def render(text):
    """Puts the tables between their marks.

    Args:
      text: of a page.

    Returns:
      The new text.
    """
    tables = {"accuracy": accuracy_table(), "losses": loss_table(), "speed": [*contestants("cpu"), "", *goals("cpu")]}
    tables |= {"precisions": precision_table(), "ratios": ratios("cpu_tasks", "cpu_batches")}
    for name, lines in tables.items():
        marks = f"<!-- {name} -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"{marks[0]}.*?{marks[1]}", re.DOTALL)
        text = pattern.sub(lambda _, marks=marks, lines=lines: "\n".join([marks[0], *lines, marks[1]]), text)
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text()))
