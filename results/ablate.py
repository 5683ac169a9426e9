"""Measures what each means is worth, on validation images alone.

PYTHONPATH=. python results/ablate.py STUDY DATASET

Trains a recipe, and the recipe with one change at a time, each with the same seeds, and writes
results/ablations/STUDY.json. A study that was stopped continues.
"""

import importlib
import pathlib
import sys
from typing import Any

from means import add_means

import mnist_jax as mj
from mnist_jax.files import write_json
from mnist_jax.report import git_commit, versions

FOLDER = pathlib.Path(__file__).parent / "ablations"
HALF = {  # of the images to train on, the other half to choose by; fewer filters, for a CPU
    "validation_fraction": 0.5,
    "filters": (16, 32, 64),
    "learning_rate": 1e-2,
    "rotation": 5.0,
    "zoom": 0.05,
    "translation": 1.0,
    "dropout": 0.1,
}
# study -> experiment, what all of its rows share, and the change of each row
STUDIES: dict[str, tuple[str, dict[str, Any], list[dict[str, Any]]]] = {
    "cnn": (
        "cnn_augmented",
        {"epochs": 9},
        [
            {"rotation": 0.0, "zoom": 0.0, "translation": 0.0},
            {"elastic": 0.0},
            {"clean_fraction": 0.0},
            {"label_smoothing": 0.0},
            {"ema_decay": 0.999},
        ],
    ),
    "augmentations": (
        "cnn_augmented",
        {"epochs": 9},
        [{"augmentations": ("affine", name)} for name in ("erasing", "stroke_width", "mixup")],
    ),
    "perceptron": (
        "perceptron_augmented",
        {"epochs": 24},
        [
            {"rotation": 0.0, "zoom": 0.0, "translation": 0.0},
            {"elastic": 0.0},
            {"elastic": 0.5},
            {"clean_fraction": 0.0},
            {"label_smoothing": 0.0},
            {"ema_decay": 0.999},
            {"learning_rate": 1e-3},
            {"learning_rate": 4e-3},
            {"batch_size": 50},
        ],
    ),
    "perceptron_writers": (  # the choices in which validation by the same writers and the test images disagreed
        "perceptron_augmented",
        {"epochs": 24, "validation_fraction": 1 / 6, "validation_rows": "last"},
        [{"elastic": 0.0}, {"elastic": 0.5}],
    ),
    "tiny_cnn": (
        "tiny_cnn",
        {"epochs": 6, "validation_fraction": 0.5},
        [
            {"rotation": 0.0, "zoom": 0.0, "translation": 0.0},
            {"elastic": 0.0},
            {"clean_fraction": 0.0},
            {"label_smoothing": 0.0},
            {"pooling": "avg"},
            {"pooling": "max"},
        ],
    ),
    "deep_cnn": (
        "deep_cnn",
        HALF | {"epochs": 4},
        [
            {"rotation": 0.0, "zoom": 0.0, "translation": 0.0},
            {"elastic": 0.5},
            {"augmentations": ("affine", "shear")},
            {"augmentations": ("affine", "mixup")},
            {"label_smoothing": 0.0},
            {"clean_fraction": 0.1},
            {"ema_decay": 0.999},
            {"optimizer": "adamw", "weight_decay": 0.01},
            {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "learning_rate": 0.05},
            {"optimizer": "lookahead"},
            {"optimizer": "muon", "learning_rate": 0.03},
            {"model": "squeeze_excite"},
            {"model": "residual"},
            {"pooling": "avg_max"},
        ],
    ),
    "winograd": ("deep_cnn", HALF | {"epochs": 3, "seeds": 10}, [{"model": "direct_convolution"}]),
}


def start_record(experiment: str, shared: dict[str, Any]) -> dict[str, Any]:
    """Starts the record of a study: what is trained, by which code, and no row yet."""
    return {"experiment": experiment, "shared": shared, "commit": git_commit(), "versions": versions(), "rows": []}


def main(study: str, dataset: str) -> None:
    """Runs a study."""
    name, shared, changes = STUDIES[study]
    add_means()
    experiment = importlib.import_module(f"experiments.{name}").EXPERIMENT
    shared = {"dataset": dataset, "validation_fraction": 0.1, "seeds": 3, **shared}
    record = start_record(name, shared)
    FOLDER.mkdir(exist_ok=True)
    for number, change in enumerate([{}, *changes]):
        fields = {**shared, **change}
        rate = fields.pop("learning_rate", experiment.config.learning_rate)
        result = mj.sweep(
            experiment,
            pathlib.Path("runs") / "ablations" / study / str(number),
            grid={"learning_rate": [rate]},
            test_seeds=0,
            engine="serial",
            **fields,
        )
        (row,) = result.rows
        record["seeds"] = row.seeds
        record["rows"].append({"change": change, "accuracy": row.scores, "seconds": row.seconds / len(row.scores)})
        write_json(FOLDER / f"{study}.json", record)


if __name__ == "__main__":
    main(*sys.argv[1:])
