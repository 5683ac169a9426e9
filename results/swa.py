"""Measures what averages of weights are worth: PYTHONPATH=. python results/swa.py DATASET

Trains the deep CNN of the study deep_cnn at a constant rate, and scores, on validation images alone, its last
weights, their exponential average (EMA) and the equal average over the last epoch (SWA, P. Izmailov et al., 2018), with
the batch statistics of training and with those of the averaged network. Writes results/ablations/swa.json.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ablate import FOLDER, STUDIES, start_record

import mnist_jax as mj
from experiments.deep_cnn import EXPERIMENT
from mnist_jax.config import config_from_dict
from mnist_jax.files import write_json

SEEDS = (7, 8, 9)
EVERY = 10  # steps between the weights that are averaged


def main(dataset: str) -> None:
    """Trains and scores all seeds."""
    shared = STUDIES["deep_cnn"][1] | {"schedule": "constant", "learning_rate": 3e-3, "ema_decay": 0.998}
    config = config_from_dict({**shared, "dataset": dataset, "use_ema": False}, EXPERIMENT.config)
    experiment = mj.Experiment(config=config)
    parts = experiment.build()
    frozen = mj.Experiment(config=config, optimizer=optax.set_to_zero()).build()
    images, labels = experiment.splits["train"]
    steps = experiment.steps_per_epoch

    def make_part(train_step: Any) -> Any:
        return jax.jit(
            lambda state, start, end: mj.train_epoch(
                train_step, state, images, labels, start, end, batch_size=config.batch_size
            )[0]
        )

    train, refresh = make_part(parts.train_step), make_part(frozen.train_step)
    validate = jax.jit(lambda state: mj.evaluate(parts.eval_step, state, *experiment.splits["validation"]))

    def score(state: mj.TrainState) -> float:
        return float(mj.compute(validate(state))["accuracy"])

    def with_own_statistics(state: mj.TrainState) -> mj.TrainState:
        unmoved = state._replace(opt_state=frozen.init(state.key).opt_state)
        return state._replace(model_state=refresh(unmoved, 0, 200).model_state)

    scores: dict[str, list[float]] = {}
    for seed in SEEDS:
        state = parts.init(jax.random.key(seed))
        for _ in range(config.epochs - 1):
            state = train(state, 0, steps)
        total, count = jax.tree.map(jnp.zeros_like, state.params), 0
        for start in range(0, steps, EVERY):
            state = train(state, start, min(start + EVERY, steps))
            total, count = jax.tree.map(jnp.add, total, state.params), count + 1
        swa = state._replace(params=jax.tree.map(lambda leaf, count=count: leaf / count, total))
        ema = state._replace(params=state.ema_params)
        rows = {"last step": state, "EMA": ema, "SWA": swa}
        averages = {f"{name} with its own batch statistics": with_own_statistics(rows[name]) for name in ("EMA", "SWA")}
        for name, one in (rows | averages).items():
            scores.setdefault(name, []).append(score(one))
        print(seed, {name: values[-1] for name, values in scores.items()}, flush=True)
    record = start_record("deep_cnn", shared | {"dataset": dataset}) | {"seeds": SEEDS}
    record["rows"] = [{"title": name, "accuracy": accuracy} for name, accuracy in scores.items()]
    write_json(FOLDER / "swa.json", record)


if __name__ == "__main__":
    main(*sys.argv[1:])
