"""Batch norm: its running averages are those of the network from the first step on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mnist_jax as mj
from mnist_jax.layers import BatchNorm
from mnist_jax.models import DeepCNN


def batches(count):
    """Batches whose mean and variance are far from 0 and 1."""
    return 0.1 * jax.random.normal(jax.random.key(0), (count, 50, 3)) + 5


def run_steps(layer, inputs, mask=None):
    variables = layer.init(jax.random.key(1), inputs[0], True)
    for x in inputs:
        _, updated = layer.apply(variables, x, True, mask, mutable=["batch_stats"])
        variables = {**variables, **updated}
    return variables


@pytest.mark.parametrize("count", [1, 2, 36])
def test_running_averages_weigh_what_was_seen_and_nothing_else(count):
    inputs = batches(count)
    stats = run_steps(BatchNorm(), inputs)["batch_stats"]["BatchNorm_0"]
    weights = 0.9 ** np.arange(count)[::-1]
    weights /= weights.sum()
    np.testing.assert_allclose(stats["mean"], weights @ inputs.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], weights @ inputs.var(axis=1), rtol=1e-2)  # E[x^2] - E[x]^2 in float32


def test_evaluation_does_not_count_as_a_step():
    layer, inputs = BatchNorm(), batches(2)
    variables = run_steps(layer, inputs)
    first, updated = layer.apply(variables, inputs[0], False, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"])
    assert abs(float(first.mean())) < 0.1 and 0.9 < float(first.std()) < 1.1


def test_masked_rows_do_not_count():
    inputs = batches(3)
    mask = (np.arange(50) < 20)[:, None]
    masked = run_steps(BatchNorm(), inputs.at[:, 20:].set(99.0), mask)["batch_stats"]["BatchNorm_0"]
    shorter = run_steps(BatchNorm(), inputs[:, :20])["batch_stats"]["BatchNorm_0"]
    for name, value in shorter.items():
        np.testing.assert_allclose(masked[name], value, rtol=1e-3)


@pytest.mark.slow
def test_a_short_run_of_the_deep_network_scores_as_it_trained(dataset):
    """With plain running averages these 24 steps end at four errors in five images."""
    fields = dict(model="deep_cnn", filters=(8, 16, 32), hidden_sizes=(), norm="batch", schedule="one_cycle")
    parts = mj.Experiment(dataset=dataset, learning_rate=3e-3, **fields).build(steps=24)
    images, labels = dataset.train_images[:2400], dataset.train_labels[:2400]
    train = jax.jit(lambda state: mj.train_epoch(parts.train_step, state, images, labels, batch_size=100))
    state, metrics = train(parts.init(jax.random.key(7)))
    last_steps = {name: mj.Mean(mean.total[-6:].sum(), mean.count[-6:].sum()) for name, mean in metrics.items()}
    scores = mj.compute(jax.jit(lambda state: mj.evaluate(parts.eval_step, state, images, labels))(state))
    assert scores["accuracy"] > mj.compute(last_steps)["accuracy"] - 0.1


def test_pooling_over_the_image_is_what_its_name_says(small):
    """The dense end of the network, given the features before it by one without pooling."""
    images = jnp.asarray(small["train_images"][:5, :, :, None], jnp.float32) / 255
    plain = DeepCNN(filters=(3, 4), num_classes=14 * 14 * 4)
    variables = plain.init(jax.random.key(0), images)
    shared = {name: value for name, value in variables["params"].items() if name != "Dense_0"}
    identity = {"kernel": jnp.eye(14 * 14 * 4), "bias": jnp.zeros(14 * 14 * 4)}
    features = plain.apply({"params": shared | {"Dense_0": identity}}, images).reshape(5, 14 * 14, 4)
    expected = {"avg": features.mean(axis=1), "max": features.max(axis=1)}
    expected["avg_max"] = jnp.concatenate([expected["avg"], expected["max"]], axis=1)
    for pooling, pooled in expected.items():
        width = pooled.shape[1]
        end = {"Dense_0": {"kernel": jnp.eye(width), "bias": jnp.zeros(width)}}
        found = DeepCNN(filters=(3, 4), num_classes=width, pooling=pooling).apply({"params": shared | end}, images)
        np.testing.assert_allclose(found, pooled, rtol=1e-5, atol=1e-6)
