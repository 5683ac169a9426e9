"""Traced hyperparameters: a vmapped grid equals the same runs alone, 0 turns a part off, and nothing is ignored."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import mark_slow

from mnist_jax.config import Config
from mnist_jax.errors import ConfigError
from mnist_jax.experiment import Experiment
from mnist_jax.fields import flags_of
from mnist_jax.optimizers import OPTIMIZERS, SCHEDULES, make_optimizer
from mnist_jax.train import train_epoch

TRACED = [flag.name for flag in flags_of(Config).values() if flag.traced]
VALUES = {"rotation": 20.0, "translation": 2.0, "elastic": 1.0, "grad_clip_norm": 0.1, "learning_rate": 1e-2}
NEEDS = {"momentum": {"optimizer": "sgd"}, "label_smoothing": {"loss": "categorical_crossentropy"}}
IMAGE = jax.ShapeDtypeStruct((28, 28, 1), jnp.uint8)


@pytest.fixture(scope="module")
def tiny(small):
    return jnp.asarray(small["train_images"][:60, :, :, None]), jnp.asarray(small["train_labels"][:60], jnp.int32)


def train(experiment, tiny, hparams=None):
    components = experiment.build(hparams, steps=6, num_classes=10, image=IMAGE)
    state = components.init(jax.random.key(3))
    state, per_step = train_epoch(components.train_step, state, *tiny, batch_size=12)
    return state.params, state.ema_params if state.ema_params is not None else state.params, per_step["loss"].total


def assert_grid_equals_runs_alone(tiny, points, **fields):
    """To 2e-5 of float32 parameters, and 1e-4 of the loss, after five steps."""
    grid = jax.jit(jax.vmap(lambda hparams: train(Experiment(hidden_sizes=(16,), **fields), tiny, hparams)))
    together = grid({name: jnp.array([point[name] for point in points]) for name in points[0]})
    outcomes = []
    for number, point in enumerate(points):
        alone = jax.jit(lambda point=point: train(Experiment(hidden_sizes=(16,), **fields | point), tiny))()
        one = jax.tree.map(lambda leaf, number=number: leaf[number], together)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), one, alone)
        outcomes.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(alone)]))
    assert (outcomes[0] != outcomes[1]).any(), "the values make no difference"


@pytest.mark.parametrize("name", mark_slow(TRACED, fast=["learning_rate", "dropout", "rotation"]))
def test_a_grid_with_0_equals_the_runs_alone(tiny, name):
    points = [{name: 0.0}, {name: VALUES.get(name, 0.3)}]
    assert_grid_equals_runs_alone(tiny, points, **NEEDS.get(name, {}))


@pytest.mark.parametrize("name", mark_slow(OPTIMIZERS, fast=["adam", "sgd"]))
def test_every_optimizer_maps_over_its_rate_and_weight_decay(tiny, name):
    points = [{"learning_rate": 1e-3, "weight_decay": 0.0}, {"learning_rate": 5e-3, "weight_decay": 0.5}]
    assert_grid_equals_runs_alone(tiny, points, optimizer=name, schedule="cosine")


@pytest.mark.parametrize("name", mark_slow(SCHEDULES, fast=["constant", "one_cycle"]))
def test_every_schedule_maps_over_its_peak(tiny, name):
    points = [{"learning_rate": 1e-3}, {"learning_rate": 1e-2}]
    assert_grid_equals_runs_alone(tiny, points, schedule=name, warmup_epochs=2.0)


@pytest.mark.parametrize(
    ("experiment", "hparams", "message"),
    [
        (Experiment(), {"batch_size": 10}, "batch_size: can't vary inside a program; "),
        (Experiment(), {"learning_rat": 0.1}, "did you mean 'learning_rate'"),
        (Experiment(), {"momentum": 0.5}, "momentum=0.5: not for adam"),
        (Experiment(), {"label_smoothing": 0.1}, "label_smoothing=0.1: sparse_categorical_crossentropy does not have"),
        (Experiment(optimizer=optax.sgd(0.1)), {"learning_rate": 0.1}, "learning_rate: has no effect, since this"),
        (Experiment(augment=lambda key, batch: batch), {"zoom": 0.1}, "zoom: has no effect"),
        (Experiment(model="softmax"), {"dropout": 0.1}, "dropout: softmax has no hidden layer"),
        (Experiment(augmentations=()), {"rotation": 5.0}, "rotation: has no effect without affine"),
        (Experiment(optimizer="sgd:momentum=0.5"), {"momentum": 0.9}, "momentum: is set twice"),
        (Experiment(), {"dropout": 1.0}, r"dropout=1.0: must be in \[0, 1\)"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_hyperparameter_that_would_be_ignored_is_an_error(experiment, hparams, message):
    with pytest.raises(ConfigError, match=message):
        experiment.build(hparams, steps=6, num_classes=10, image=IMAGE)


def test_a_schedule_without_steps_is_an_error():
    for fields in ({"schedule": "cosine"}, {"warmup_epochs": 1.0}):
        with pytest.raises(ConfigError, match="needs the number of steps of the whole run"):
            make_optimizer(Config(**fields))


def test_what_shapes_the_program_cannot_be_traced():
    with pytest.raises(ConfigError, match="validation_fraction: shapes the program"):
        jax.jit(lambda value: Config(validation_fraction=value).epochs)(0.1)
    with pytest.raises(ConfigError, match="learning_rate: shapes the program"):
        jax.jit(lambda value: Config(learning_rate=value).epochs)(jnp.ones(3))


def test_numpy_and_jax_scalars_are_numbers():
    config = Config(learning_rate=np.float32(0.5), dropout=jnp.float32(0.25), batch_size=np.int64(7), hidden_sizes=[16])
    assert (config.learning_rate, config.dropout, config.batch_size, config.hidden_sizes) == (0.5, 0.25, 7, (16,))
    assert type(config.dropout) is float and type(config.batch_size) is int


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 20.5}, "batch_size=20.5: must be a whole number"),
        ({"hidden_sizes": [1.5]}, "hidden_sizes=1.5: each item of a list must be a whole number"),
        ({"hidden_sizes": 16}, "hidden_sizes=16: each item of a list"),
        ({"optimizer": "adam:beta1=0.9"}, "optimizer=adam:beta1=0.9: adam has no 'beta1'; did you mean 'b1'"),
        ({"optimizer": "adam:b1=x"}, "optimizer=adam:b1=x: must be b1=NUMBER"),
    ],
    ids=str,
)
def test_wrong_values_are_one_line(fields, message):
    with pytest.raises(ConfigError, match=message):
        make_optimizer(Config(**fields))


def test_an_optimizers_other_arguments_can_be_set():
    grads, params = {"w": jnp.array([3.0])}, {"w": jnp.zeros(1)}
    ours = make_optimizer(Config(optimizer="adam:b1=0.5,eps=1e-2,nesterov=true", learning_rate=0.1))
    theirs = optax.adam(0.1, b1=0.5, eps=1e-2, nesterov=True)
    updates = [one.update(grads, one.init(params), params)[0]["w"] for one in (ours, theirs, optax.adam(0.1))]
    assert updates[0] == updates[1] != updates[2]
