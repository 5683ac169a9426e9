"""Writes the tables of the README and of docs from the result files: python results/table.py"""

import json
import pathlib
import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

FOLDER = pathlib.Path(__file__).parent
PAGES = [
    FOLDER.parent / name
    for name in (
        "README.md",
        "docs/accuracy.md",
        "docs/performance.md",
        "docs/predict.md",
        "docs/scaling.md",
        "docs/sweeps.md",
    )
]
MODELS = {
    "softmax": "softmax regression, 784-10",
    "softmax_tuned": "softmax regression, tuned",
    "perceptron": "perceptron, 784-784-10, the lecture's recipe",
    "perceptron_tuned": "perceptron, 784-784-10, tuned",
    "perceptron_augmented": "the same perceptron, augmented",
    "cnn": "CNN, 32 filters of 5x5, dense 128, the lecture's recipe",
    "cnn_tuned": "the same CNN, tuned",
    "cnn_augmented": "the same CNN, augmented",
    "tiny_cnn": "deep CNN with 10, 14 and 18 filters, augmented",
    "rnn": "LSTM, 128 units, over the rows of the image",
    "vit": "vision transformer, 4x4 patches, two blocks",
    "deep_cnn": "deep CNN with 24, 48 and 96 filters, batch norm",
    "deep_cnn_distilled": "the same deep CNN, taught by four of its like",
    "deep_cnn_tuned": "deep CNN, tuned: three convolutions per stage, Muon",
    "benchmark/cnn_99.0": "CNN with 4 and 32 filters, batch norm, one epoch",
    "benchmark/deep_cnn_99.5": "deep CNN with 12, 32 and 64 filters, three epochs",
    "benchmark/deep_cnn_99.6": "deep CNN with 16, 32 and 64 filters, six epochs",
}
STATS = ("mean test error", "std", "range", "seeds")


def table_row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def table_head(*titles: object) -> list[str]:
    return [table_row(*titles), "|---" * len(titles) + "|"]


def read_test_errors(path: pathlib.Path) -> list[float]:
    """Reads the test error of each run of a result file, in percent."""
    return [100 * (1 - run["test"]["accuracy"]) for run in json.loads(path.read_text())["runs"]]


def format_stats(errors: Sequence[float]) -> list[str]:
    """Formats test errors in percent: mean, standard deviation, range, and number of seeds."""
    mean, std = statistics.fmean(errors), statistics.stdev(errors)
    return [f"{mean:.2f} %", f"{std:.2f}", f"{min(errors):.2f} to {max(errors):.2f}", str(len(errors))]


def accuracy_table() -> list[str]:
    lines = table_head("model", *STATS, "result file")
    for name, title in MODELS.items():
        if not (FOLDER / f"{name}.json").exists():  # today's code has not earned it yet
            continue
        errors = format_stats(read_test_errors(FOLDER / f"{name}.json"))
        lines.append(table_row(title, *errors, f"[{pathlib.Path(name).name}.json](results/{name}.json)"))
        baselines = FOLDER / f"keras_{name}.json"
        for baseline in json.loads(baselines.read_text()) if baselines.exists() else ():
            errors = format_stats(baseline["test_error_percent"])
            link = f"[{baselines.name}](results/{baselines.name})"
            lines.append(table_row(f"{baseline['implementation']}, same network", *errors, link))
    return lines


# Goals for the mean test accuracy in percent, and stretch goals, set before the recipes were trained.
GOALS = {
    "softmax": (92.75, 92.90),
    "softmax_tuned": (92.75, 92.90),
    "perceptron_tuned": (98.75, 98.95),
    "perceptron_augmented": (99.40, 99.55),
    "cnn_tuned": (99.25, 99.40),
    "cnn_augmented": (99.50, 99.60),
    "tiny_cnn": (99.45, 99.55),
    "deep_cnn": (99.72, 99.76),
    "deep_cnn_tuned": (99.72, 99.76),
    "deep_cnn_distilled": (99.75, 99.80),
}


class Recipe(NamedTuple):
    """What a result file says of a recipe."""

    name: str
    config: dict[str, Any]
    errors: list[float]  # of each seed on the test images, in percent
    parameters: int
    seconds: float  # of training, a seed

    @property
    def mean_error(self) -> float:
        """Mean over seeds, in percent."""
        return statistics.fmean(self.errors)


def load_recipes(names: Iterable[str]) -> list[Recipe]:
    """Reads the result files of those recipes that have one."""
    recipes = []
    for name in names:
        path = FOLDER / f"{name}.json"
        if path.exists():
            record, errors = json.loads(path.read_text()), read_test_errors(path)
            # A run that was resumed timed fewer epochs.
            seconds = statistics.fmean(record["seconds"]["epochs"]) * record["config"]["epochs"]
            recipes.append(Recipe(name, record["config"], errors, record["parameters"], seconds))
    return recipes


def goal_accuracy_table() -> list[str]:
    """Test accuracy of each recipe beside its goal."""
    lines = table_head(
        "recipe", "parameters", "mean", "std", "minimum", "maximum", "n", "seconds a seed", "goal", "stretch", "reached"
    )
    for recipe in load_recipes(GOALS):
        scores, (goal, stretch) = [100 - error for error in recipe.errors], GOALS[recipe.name]
        stats = statistics.fmean(scores), statistics.stdev(scores), min(scores), max(scores)
        cells = [f"{value:.2f}" for value in stats]
        mean = float(cells[0])
        reached = "stretch" if mean >= stretch else "goal" if mean >= goal else "no"
        cells += [str(len(scores)), f"{recipe.seconds:,.0f}", f"{goal:.2f}", f"{stretch:.2f}", reached]
        lines.append(table_row(f"`{recipe.name}`", f"{recipe.parameters:,}", *cells))
    return lines


def choice_table() -> list[str]:
    """What most readers look for: the best network, the best small one, and the quickest."""
    found = load_recipes(MODELS)
    rows = {
        "best single network": min(found, key=lambda one: one.mean_error),
        "best of at most 10,000 parameters": min(
            (one for one in found if one.parameters <= 10_000), key=lambda one: one.mean_error
        ),
    }
    for goal in (99.5, 99.0):
        reached = [one for one in found if one.mean_error <= 100 - goal]
        rows[f"quickest to {goal} %"] = min(reached, key=lambda one: one.seconds)
    lines = table_head("", "recipe", "mean test error", "std", "n", "parameters", "seconds of training")
    for title, one in rows.items():
        mean, std, _, n = format_stats(one.errors)
        recipe = f"`{pathlib.Path(one.name).name}`"
        seconds = f"{one.seconds:,.{1 if one.seconds < 10 else 0}f}"
        lines.append(table_row(title, recipe, mean, std, n, f"{one.parameters:,}", seconds))
    return lines


ENSEMBLE_GOALS = {"deep_cnn": 99.80, "deep_cnn_tuned": 99.80, "tried/deep_cnn": 99.80}


def ensemble_table() -> list[str]:
    """Test accuracy of ensembles beside that of their members, and their calibration."""
    lines = table_head("ensemble of", "n", "mean of one", "together", "calibration error", "scaled", "goal", "met")
    for path in sorted((FOLDER / "evaluations").rglob("*.json")):
        evaluation = json.loads(path.read_text())
        seeds = evaluation["run"]["seeds"]
        if len(seeds) == 1:
            continue
        name = path.relative_to(FOLDER / "evaluations").with_suffix("").as_posix()
        runs = json.loads((FOLDER / f"{name}.json").read_text())["runs"]
        mean = statistics.fmean(run["test"]["accuracy"] for run in runs if run["seed"] in seeds)
        accuracy, goal = f"{100 * evaluation['accuracy']:.2f}", ENSEMBLE_GOALS.get(name)
        calibration = evaluation["calibration"]
        errors = [f"{calibration[kind]:.3f}" if kind in calibration else "" for kind in ("error", "error_scaled")]
        met = "" if goal is None else "yes" if float(accuracy) >= goal else "no"
        cells = [f"`{name}`", len(seeds), f"{100 * mean:.2f}", accuracy]
        lines.append(table_row(*cells, *errors, "" if goal is None else f"{goal:.2f}", met))
    return lines


def mistakes_table(name: str) -> list[str]:
    """What an ensemble gets wrong, and what annotators said of those images whose labels they doubted."""
    path = FOLDER / "evaluations" / f"{name}.json"
    if not path.exists():
        return []
    doubted = {row: votes for row, *votes in json.loads((FOLDER / "label_errors.json").read_text())["rows"]}
    lines = table_head("test image", "label", "networks", "probability", "annotators: label, other digit, neither")
    for one in json.loads(path.read_text())["mistakes"]:
        votes = ""
        if one["row"] in doubted:
            _, other, *counts = doubted[one["row"]]
            votes = f"{counts[0]}, {counts[1]} for {other}, {counts[2]}"
        lines.append(table_row(one["row"], one["label"], one["prediction"], f"{one['probability']:.2f}", votes))
    return lines


def resplit_table() -> list[str]:
    """Test accuracy on MNIST's own split beside that on other random splits, one seed each."""
    lines = table_head("recipe", "own test images", "std", "n", "other test images", "std", "n")
    for name in GOALS:
        others = sorted((FOLDER / "resplits").glob(f"{name}-*.json"))
        if not others:
            continue
        own, drawn = (
            [100 - error for path in paths for error in read_test_errors(path)]
            for paths in ([FOLDER / f"{name}.json"], others)
        )
        cells = [
            f"{value:.2f}" if isinstance(value, float) else value
            for scores in (own, drawn)
            for value in (statistics.fmean(scores), statistics.stdev(scores), len(scores))
        ]
        lines.append(table_row(f"`{name}`", *cells))
    return lines


def other_data_table(dataset: str) -> list[str]:
    """Test error of each recipe on another data set, for which it was not tuned."""
    lines = table_head("recipe", *STATS)
    for name in GOALS:
        path = FOLDER / dataset / f"{name}.json"
        if path.exists():
            lines.append(table_row(f"`{name}`", *format_stats(read_test_errors(path))))
    return lines


def strangers_table() -> list[str]:
    """How many pictures of digits each recipe reads rightly, surely or not, and wrongly though surely."""
    lines = table_head("run of", "right", "unsure", "wrong", "test images called unsure")
    for name, of in {"predict": " of [predict.md](predict.md)", "predict_recipes": ""}.items():
        path = FOLDER / f"{name}.json"
        record = json.loads(path.read_text()) if path.exists() else {"runs": []}
        for number, recipe in enumerate(record["runs"]):
            counts = [sum(kind[number][column] for kind in record["digits"].values()) for column in range(3)]
            cells = [f"{100 * count / sum(counts):.1f} %" for count in counts]
            lines.append(table_row(f"`{recipe}`{of}", *cells, record["unsure_test_images"][number]))
    return lines


def ablation_table(path: pathlib.Path) -> list[str]:
    """Validation accuracy of a recipe and of each change of it, with the mean difference of the same seeds."""
    lines = table_head("change", "mean accuracy", "difference", "standard error", "n", "seconds a seed")
    base, *rows = json.loads(path.read_text())["rows"]
    for row in (base, *rows):
        pairs = zip(row["accuracy"], base["accuracy"], strict=True)
        differences = [100 * (changed - unchanged) for changed, unchanged in pairs]
        cells = ["", ""]
        if row is not base:
            error = statistics.stdev(differences) / len(differences) ** 0.5
            cells = [f"{statistics.fmean(differences):+.2f}", f"{error:.3f}"]
        change = ", ".join(
            f"`--{name}={','.join(value) if isinstance(value, list) else value}`"
            for name, value in row.get("change", {}).items()
        )
        mean, count = f"{100 * statistics.fmean(row['accuracy']):.2f}", len(differences)
        title, seconds = row.get("title") or change or "none", f"{row['seconds']:.0f}" if "seconds" in row else ""
        lines.append(table_row(title, mean, *cells, count, seconds))
    return lines


def loss_table() -> list[str]:
    paths = [FOLDER / "perceptron.json", *sorted((FOLDER / "losses").glob("*.json"))]
    rows = [(json.loads(path.read_text())["config"]["loss"], *format_stats(read_test_errors(path))) for path in paths]
    return table_head("loss", *STATS) + [table_row(*row) for row in rows]


def dtype_table() -> list[str]:
    float32 = {
        "perceptron": FOLDER / "perceptron.json",
        "cnn": FOLDER / "cnn.json",
        "deep_cnn_99.6": FOLDER / "benchmark" / "deep_cnn_99.6.json",
    }
    lines = table_head("recipe", "dtype", *STATS)
    for name, path in float32.items():
        lines.append(table_row(name, "float32", *format_stats(read_test_errors(path))))
        lines.append(table_row(name, "bfloat16", *format_stats(read_test_errors(FOLDER / "bfloat16" / f"{name}.json"))))
    return lines


def load_benchmark(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / "benchmark" / f"{name}.json").read_text())


def throughput_table(name: str) -> list[str]:
    """One row for each implementation in each case of a benchmark; speedup is mnist_jax's over that implementation."""
    lines = table_head("model", "dtype", "implementation", "images/s", "speedup", "of peak", "compile", "memory")
    for case in load_benchmark(name)["cases"]:
        for implementation, summary in case["implementations"].items():
            speedup = "{median:.2f} ({min:.2f} to {max:.2f})".format(**summary["speedup"])
            cells = [case["model"], case["dtype"], implementation, f"{summary['images_per_second']:,.0f}"]
            cells += ["" if implementation == "mnist_jax" else speedup, f"{summary['fraction_of_peak']:.0%}"]
            cells += [f"{summary['compile_seconds']:.1f} s", f"{summary['peak_memory_bytes'] / 2**20:,.0f} MiB"]
            lines.append(table_row(*cells))
    return lines


def speedup_table(*names: str) -> list[str]:
    """One row for each case of some benchmarks, with the median speedup over each baseline."""
    cases = [case for name in names for case in load_benchmark(name)["cases"]]
    baselines = dict.fromkeys(name for case in cases for name in case["implementations"] if name != "mnist_jax")
    columns = [f"over {name}" for name in baselines]
    lines = table_head("model", "task", "batch size", "mnist_jax, images/s", *columns)
    for case in cases:
        summaries = case["implementations"]
        speedups = [f"{summaries[name]['speedup']['median']:.2f}" if name in summaries else "" for name in baselines]
        speed = f"{summaries['mnist_jax']['images_per_second']:,.0f}"
        lines.append(table_row(case["model"], case["task"], case["batch_size"], speed, *speedups))
    return lines


def sweep_table() -> list[str]:
    """One row for each network, with the time of runs in turn over that of the engine that auto chose."""
    lines = table_head(
        "network", "runs", "epochs", "auto over in turn", "target", "auto over separate commands", "chosen"
    )
    for name, case in load_benchmark("sweep")["cases"].items():
        runs, speedup = case["runs"], "{median:.2f} ({min:.2f} to {max:.2f})".format(**case["auto over serial"])
        commands = f"{case[f'auto over {runs} commands']:.1f}"
        chosen = case["rounds"][-1]["auto"]["engine"]
        lines.append(table_row(name, runs, case["epochs"], speedup, case["target"], commands, chosen))
    return lines


def device_table() -> list[str]:
    """One row for each network and layout of devices and processes."""
    lines = table_head("network", "processes", "devices", "seconds per epoch", "peak memory of a process", "difference")
    for name, rows in load_benchmark("devices")["networks"].items():
        for row in rows:
            if "pinned" not in row:
                seconds, memory = f"{row['seconds']:.2f}", f"{row['peak_memory_bytes'] / 2**20:.0f} MiB"
                difference = f"{row['difference']:.0e}" if row["difference"] else "0"
                lines.append(table_row(name, row["processes"], row["devices"], seconds, memory, difference))
    return lines


def collective_table() -> list[str]:
    """Seconds of an all-reduce by its size, over two and four processes."""
    by_count = {count: load_benchmark("devices")[f"collectives of {count}"] for count in (2, 4)}
    lines = table_head("all-reduce of", "2 processes", "4 processes on 2 cores")
    for size in filter(str.isdigit, by_count[2]):
        lines.append(table_row(f"{int(size):,} bytes", *(f"{1e3 * one[size]:.2f} ms" for one in by_count.values())))
    return lines


# Of each network: bytes of its gradients, and how many small all-reduces a step needs beside those.
_COMMUNICATION = {"perceptron": (4 * 623_290, 4), "cnn": (4 * 592_074, 4), "deep_cnn": (4 * 199_000, 15)}
_STEPS = 3600 // 240


def predict_epoch(network: str, processes: int) -> float:
    """Predicts the seconds of an epoch from those of one core and the all-reduces of two processes."""
    rows, measured = load_benchmark("devices")["networks"][network], load_benchmark("devices")["collectives of 2"]
    compute = next(row["seconds"] for row in rows if "pinned" in row and row["processes"] == 1) / processes
    if processes == 1:
        return compute
    latency, seconds_per_byte = measured["1024"] / 2, measured["16777216"] / 16777216
    size, others = _COMMUNICATION[network]
    hops, fraction = 2 * (processes - 1), 2 * (processes - 1) / processes
    moved = fraction * (size + 240 * 784) * seconds_per_byte
    return compute + _STEPS * ((others + 1) * hops * latency + moved)


def scaling_table() -> list[str]:
    """The model of an epoch, beside what was measured where it can be."""
    counts = (1, 2, 8, 64, 1000)
    lines = table_head("processes", *counts, "measured with 2")
    for name, rows in load_benchmark("devices")["networks"].items():
        measured = next(row["seconds"] for row in rows if "pinned" in row and row["processes"] == 2)
        lines.append(table_row(name, *(f"{predict_epoch(name, count):.2f} s" for count in counts), f"{measured:.2f} s"))
    return lines


def batch_size_table() -> list[str]:
    """Steps to the same validation loss by batch size."""
    lines = table_head("batch size", "best learning rate", "steps", "images")
    for row in load_benchmark("batch_size")["rows"]:
        if row["steps"]:
            images = row["steps"] * row["batch_size"]
            lines.append(table_row(row["batch_size"], row["learning_rate"], f"{row['steps']:,}", f"{images:,}"))
    return lines


def storage_table() -> list[str]:
    """Trials a second of a data base by the number of workers."""
    lines = table_head("workers", "trials a second")
    for row in load_benchmark("storage")["rows"][1:]:
        lines.append(table_row(row["workers"], f"{row['per_second']:.0f}"))
    return lines


def format_measured(value: float | None, unit: str) -> str:
    if value is None:
        return "not measured"
    return f"{value:.3g} s" if unit == "s" else f"{value:.0f}{unit}" if value >= 10 else f"{value:.2f}{unit}"


def goal_table(name: str) -> list[str]:
    lines = table_head("goal", "target", "measured", "met")
    for goal in load_benchmark(name)["goals"]:
        target = f"at most {goal['target']:g} s" if goal["unit"] == "s" else f"{goal['target']:g}{goal['unit']}"
        is_met = {None: "", True: "yes", False: "no"}[goal["is_met"]]
        lines.append(table_row(goal["goal"], target, format_measured(goal["measured"], goal["unit"]), is_met))
    return lines


def picture_table(section: str, columns: dict[str, int]) -> list[str]:
    """One row for each kind of picture, with the counts of each run by their names and positions."""
    record = json.loads((FOLDER / "predict.json").read_text())
    counts, per_kind = record[section], record["pictures_per_kind"]
    first, *others = columns
    lines = table_head("picture", *(title for run in record["runs"] for title in (f"{run}: {first}", *others)))
    for kind, by_run in counts.items():
        lines.append(table_row(kind, *(row[column] for row in by_run for column in columns.values())))
    totals = [[sum(column) for column in zip(*rows, strict=True)] for rows in zip(*counts.values(), strict=True)]
    percents = [row[column] * 100 / per_kind / len(counts) for row in totals for column in columns.values()]
    return [*lines, table_row("all", *(f"{percent:.1f} %" for percent in percents))]


def render(text: str) -> str:
    """Replaces the tables between the marks of a page, such as <!-- speed --> and <!-- end of speed -->.

    Args:
      text: of the page.

    Returns:
      The new text.
    """
    tables = {
        "accuracy": accuracy_table(),
        "recipes": goal_accuracy_table(),
        "choices": choice_table(),
        "ensembles": ensemble_table(),
        "mistakes": mistakes_table("deep_cnn_tuned"),
        "resplits": resplit_table(),
        "small digits": other_data_table("digits"),
        "strangers": strangers_table(),
        **{f"ablation of {path.stem}": ablation_table(path) for path in (FOLDER / "ablations").glob("*.json")},
        "losses": loss_table(),
        "speed": [*throughput_table("cpu"), "", *goal_table("cpu")],
        "dtypes": dtype_table(),
        "digits": picture_table("digits", {"right": 0, "unsure": 1, "wrong": 2}),
        "no digits": picture_table("no digits", {"unsure or none found": 1, "sure": 2}),
        "ratios": speedup_table("cpu_tasks", "cpu_batches"),
        "sweeps": sweep_table(),
        "devices": device_table(),
        "collectives": collective_table(),
        "scaling": scaling_table(),
        "batch sizes": batch_size_table(),
        "storage": storage_table(),
    }
    if unknown := set(re.findall("<!-- end of (.*?) -->", text)) - set(tables):
        raise ValueError(f"no such tables: {', '.join(sorted(unknown))}")
    for name, lines in tables.items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        table = "\n".join([start, *lines, end])
        text = re.sub(f"{start}.*?{end}", table.replace("\\", r"\\"), text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text()))
