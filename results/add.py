"""Adds a run to the results.

python results/add.py WORKDIR NAME
python results/add.py WORKDIR,WORKDIR NAME
python results/add.py results/NAME.json,WORKDIR NAME
python results/add.py FOLDER/evaluation.json NAME

Copies WORKDIR/result.json to results/NAME.json, or merges those of several workdirs whose seeds trained side by side,
or of further seeds with those of a result file, with the fingerprint of their numerics: the losses of the
configuration's first steps on the embedded sample. tests/test_golden.py computes them again, and fails where they no
longer agree: a claim that today's code has not earned. Nor do further seeds join a result file that does not agree.

Of what `evaluate` wrote, it copies to results/evaluations/NAME.json all but where the workdirs lay.
"""

import json
import os
import pathlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnist_jax.config import Config
    from mnist_jax.experiment import Components

FOLDER = pathlib.Path(__file__).parent
FINGERPRINT = "first_losses"


def result_files() -> list[pathlib.Path]:
    """Lists the result files that hold trained runs."""
    paths = [*FOLDER.glob("*.json"), *FOLDER.glob("*/*.json")]
    return sorted(path for path in paths if "runs" in (record := json.loads(path.read_text())) and "config" in record)


def read_config(values: dict) -> "Config":
    """Reads a configuration as a result file holds it; fields that it lacks have their defaults."""
    from mnist_jax.config import config_from_dict
    from mnist_jax.distillation import DistilledConfig

    return config_from_dict(values, DistilledConfig())


def build(values: dict) -> "Components":
    """Builds the network of a configuration, as a result file holds it, and its training on MNIST's images."""
    import jax
    import numpy as np

    from mnist_jax.experiment import Experiment

    image = jax.ShapeDtypeStruct((28, 28, 1), np.uint8)
    return Experiment(config=read_config(values)).build(steps=100, num_classes=10, image=image)


def first_losses(values: dict) -> list[float]:
    """Trains a few steps on the embedded sample.

    Args:
      values: a configuration as a result file holds it; fields that it lacks have their defaults. A distilled network
        learns from the labels here, since its teacher is not kept.

    Returns:
      The mean loss of each step, before its update.
    """
    import jax
    import numpy as np

    from mnist_jax.datasets import load_dataset
    from mnist_jax.train import train_epoch

    dataset = load_dataset("mnist5k")
    images, labels = jax.device_put((dataset.train_images[::20], dataset.train_labels[::20]))
    components = build(values)
    state = components.init(jax.random.key(7))
    epoch = jax.jit(lambda state: train_epoch(components.train_step, state, images, labels, batch_size=40))
    loss = epoch(state)[1]["loss"]
    return (np.asarray(loss.total) / np.asarray(loss.count)).tolist()


def agrees(record: dict, losses: list[float]) -> bool:
    """Says whether a result was earned by the code that computed the losses.

    Args:
      record: a result file's, with its fingerprint.
      losses: first_losses of its configuration.

    Returns:
      Whether they are the fingerprint, but for the rounding of another processor or version of XLA. The first loss is
      that before any update; the others are moved by XLA's optimization level, by 0.0016 for the deep CNN and 1e-7 for
      the other networks.
    """
    deep, coarse = record["config"]["model"] == "deep_cnn", record["config"].get("dtype") == "bfloat16"
    limits = [1e-2 if coarse or (deep and step) else 1e-4 for step in range(len(losses))]
    pairs = zip(losses, record[FINGERPRINT], limits, strict=True)
    return all(abs(loss - earned) <= limit * abs(earned) for loss, earned, limit in pairs)


def merge(records: list[dict]) -> dict:
    """Merges results that differ in their seeds alone.

    Args:
      records: as result.json holds them, in the order of their seeds; those that are published already, and so have a
        fingerprint, may be of an earlier commit.

    Returns:
      One result, with the seconds of all of them.

    Raises:
      SystemExit: they differ in more, or their seeds do not follow each other.
    """
    from mnist_jax.report import summarize_runs

    first, last, runs = records[0], records[-1], [run for record in records for run in record["runs"]]
    shared = {"seed": first["config"]["seed"], "num_seeds": len(runs)}
    config = last["config"] | shared
    for record in records:
        for name in ("versions", "parameters", "device", *["commit"] * (FINGERPRINT not in record)):
            if record[name] != last[name]:
                sys.exit(f"{name}: {record[name]} is not {last[name]}; merge results of the same code and machine")
        if read_config(record["config"] | shared) != read_config(config):
            sys.exit("config: the results differ in more than their seeds")
    if [run["seed"] for run in runs] != list(range(config["seed"], config["seed"] + len(runs))):
        sys.exit(f"seeds: {[run['seed'] for run in runs]} do not follow each other; order the workdirs by their seeds")
    seconds = {
        name: sum((record["seconds"][name] for record in records), type(value)())  # of numbers, or lists of them
        for name, value in last["seconds"].items()
    }
    commits = ", ".join(dict.fromkeys(record["commit"] for record in records))
    return last | {
        "commit": commits,
        "config": config,
        "runs": runs,
        "summary": summarize_runs(runs),
        "seconds": seconds,
    }


def read_result(path: str) -> dict:
    """Reads a result file, or the one of a workdir."""
    return json.loads(pathlib.Path(path if path.endswith(".json") else f"{path}/result.json").read_text())


def describe_teacher(record: dict) -> list[dict]:
    """Says what a student learned from.

    Args:
      record: a result; its configuration names the teacher's workdirs.

    Returns:
      The name, seeds, commit and test accuracy of each workdir's run.
    """
    teachers = [read_result(one) for one in record["config"]["teacher"]]
    return [
        {
            "experiment": one["experiment"],
            "seeds": [run["seed"] for run in one["runs"]],
            "commit": one["commit"],
            "test": one["summary"]["test"]["accuracy"],
        }
        for one in teachers
    ]


def main(workdirs: str, name: str) -> None:
    """Adds a run, or an evaluation."""
    if workdirs.endswith("evaluation.json"):
        evaluation = json.loads(pathlib.Path(workdirs).read_text())
        del evaluation["run"]["workdir"]
        (FOLDER / "evaluations" / f"{name}.json").write_text(json.dumps(evaluation, indent=1) + "\n")
        return
    records = [read_result(one) for one in workdirs.split(",")]
    record = merge(records)
    record["dataset"].pop("from_workdir", None)  # where the data lie on this machine
    if record["config"].get("teacher"):
        record["teacher"] = describe_teacher(record)
        record["config"]["teacher"] = [pathlib.Path(one).name for one in record["config"]["teacher"]]
    record[FINGERPRINT] = losses = first_losses(record["config"])
    for one in records:
        if FINGERPRINT in one and not agrees(one, losses):
            sys.exit(f"{FINGERPRINT}: {one[FINGERPRINT]} are {losses} today; train the published seeds again, too")
    (FOLDER / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # as the tests
    main(*sys.argv[1:])
