"""Adds a run to the results: python results/add.py WORKDIR NAME

Copies WORKDIR/result.json to results/NAME.json with the fingerprint of its numerics: the losses of its configuration's
first steps on the embedded sample. tests/test_golden.py computes them again, and fails where they no longer agree: a
claim that today's code has not earned.
"""

import json
import os
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parent
FINGERPRINT = "first_losses"


def result_files() -> list[pathlib.Path]:
    """Lists the result files that hold trained runs."""
    paths = [*FOLDER.glob("*.json"), *FOLDER.glob("*/*.json")]
    return sorted(path for path in paths if "runs" in (record := json.loads(path.read_text())) and "config" in record)


def first_losses(values: dict) -> list[float]:
    """Trains a few steps on the embedded sample.

    Args:
      values: a configuration as a result file holds it; fields that it lacks have their defaults.

    Returns:
      The mean loss of each step, before its update.
    """
    import jax
    import numpy as np

    from mnist_jax.config import config_from_dict
    from mnist_jax.datasets import load_dataset
    from mnist_jax.experiment import Experiment
    from mnist_jax.train import train_epoch

    experiment = Experiment(config=config_from_dict(values))
    dataset = load_dataset("mnist5k")
    images, labels = jax.device_put((dataset.train_images[::20], dataset.train_labels[::20]))
    image = jax.ShapeDtypeStruct(images.shape[1:], images.dtype)
    components = experiment.build(steps=100, num_classes=10, image=image)
    state = components.init(jax.random.key(7))
    epoch = jax.jit(lambda state: train_epoch(components.train_step, state, images, labels, batch_size=40))
    loss = epoch(state)[1]["loss"]
    return (np.asarray(loss.total) / np.asarray(loss.count)).tolist()


def main(workdir: str, name: str) -> None:
    """Adds a run."""
    record = json.loads((pathlib.Path(workdir) / "result.json").read_text())
    record["dataset"].pop("from_workdir", None)  # where the data lie on this machine
    record[FINGERPRINT] = first_losses(record["config"])
    (FOLDER / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # as the tests
    main(*sys.argv[1:])
