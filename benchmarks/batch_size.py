"""How many steps a perceptron needs at each batch size, each with its best learning rate: what more devices can buy.

python -m benchmarks.batch_size --dataset=mnist

Steps to a validation loss, against the batch size B, follow S_min (1 + B_crit / B): below B_crit twice the devices
halve the steps, above it they are wasted (S. McCandlish et al., An empirical model of large-batch training, 2018).
Writes batch_size.json.
"""

import argparse
import json
import pathlib

import jax
import numpy as np

import mnist_jax as mj
from mnist_jax.config import config_from_dict
from mnist_jax.programs import compile_programs
from mnist_jax.sharding import make_placement

BATCH_SIZES = (25, 50, 100, 200, 400, 800, 1600)
RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
EPOCHS = 25


def steps_to(loss: float, experiment: mj.Experiment) -> int | None:
    """Trains until the validation loss is reached, looking eight times an epoch; None where it is not."""
    programs = compile_programs(experiment, make_placement(jax.devices()[:1], "", experiment.config.batch_size))
    state, size = programs.init(jax.random.key(7)), programs.steps_per_epoch
    part = max(size // 8, 1)
    for epoch in range(EPOCHS):
        for start in range(0, size, part):
            state, _ = programs.train(state, start, min(start + part, size))
            if programs.score("validation", state)["loss"] <= loss:
                return epoch * size + min(start + part, size)
    return None


def fit(points: list[tuple[int, int]]) -> tuple[float, float]:
    """Fits S_min (1 + B_crit / B) in relative errors: (S_min, B_crit)."""
    sizes, steps = np.array(points, float).T
    columns = np.stack([1 / steps, 1 / (sizes * steps)], axis=1)
    smallest, product = np.linalg.lstsq(columns, np.ones(len(steps)), rcond=None)[0]
    return float(smallest), float(product / smallest)


def main() -> None:
    """Measures all batch sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="mnist5k")
    parser.add_argument("--loss", type=float, default=0.1, help="validation loss to reach, in nats")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("."))
    flags = parser.parse_args()
    experiment = mj.Experiment("perceptron", dataset=flags.dataset)
    rows = []
    for size in BATCH_SIZES:
        steps = {}
        for rate in RATES:
            changed = {"batch_size": size, "learning_rate": rate}
            steps[rate] = steps_to(flags.loss, experiment.with_config(config_from_dict(changed, experiment.config)))
        reached = {rate: count for rate, count in steps.items() if count}
        best = min(reached, key=lambda rate: reached[rate]) if reached else None
        rows.append({"batch_size": size, "learning_rate": best, "steps": reached.get(best), "all": steps})
        print(rows[-1], flush=True)
    smallest, critical = fit([(row["batch_size"], row["steps"]) for row in rows if row["steps"]])
    record = {"loss": flags.loss, "rows": rows, "smallest_steps": smallest, "critical_batch_size": critical}
    (flags.output / "batch_size.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
