"""The first losses of each recipe against stored ones, so that no change of the numbers goes unnoticed."""

import importlib
import json
import pathlib

import jax
import numpy as np
import pytest

from mnist_jax.datasets import load_dataset
from mnist_jax.train import train_epoch

STORED = pathlib.Path(__file__).parent / "fixtures" / "golden.json"
GOLDEN = json.loads(STORED.read_text()) if STORED.exists() else {}
RECIPES = ("softmax", "perceptron", "cnn", "deep_cnn", "rnn", "vit")


def first_losses(experiment):
    recipe = importlib.import_module(f"experiments.{experiment}").EXPERIMENT
    dataset = load_dataset("mnist5k")
    images, labels = jax.device_put((dataset.train_images[::20], dataset.train_labels[::20]))
    image = jax.ShapeDtypeStruct(images.shape[1:], images.dtype)
    components = recipe.build(steps=100, num_classes=10, image=image)
    state = components.init(jax.random.key(7))
    epoch = jax.jit(lambda state: train_epoch(components.train_step, state, images, labels, batch_size=40))
    loss = epoch(state)[1]["loss"]
    return (np.asarray(loss.total) / np.asarray(loss.count)).tolist()


@pytest.mark.parametrize("experiment", RECIPES)
def test_the_first_steps_give_the_stored_losses(experiment):
    np.testing.assert_allclose(
        first_losses(experiment),
        GOLDEN[experiment],
        # Other processors round differently: XLA's optimization level moves the deep CNN by 0.0016, the others by 1e-7.
        rtol={"deep_cnn": 1e-2}.get(experiment, 1e-4),
        err_msg=f"{experiment} no longer trains as it did. If that is intended (the recipe, the initializer, the order "
        "of the images or a random draw was changed), run XLA_FLAGS=--xla_backend_optimization_level=0 "
        "python tests/test_golden.py, measure the recipe again (results/) and note it in the changelog. If not, "
        "it is a bug: leave the stored numbers.",
    )


if __name__ == "__main__":
    STORED.write_text(json.dumps({name: first_losses(name) for name in RECIPES}, indent=1) + "\n")
