"""Modules of Linen, NNX, Haiku and Equinox as two pure functions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mnist_jax as mj
from mnist_jax.losses import LOSSES

LOSS = LOSSES["sparse_categorical_crossentropy"]


class Network(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(784, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, image):
        return self.out(self.dropout(jax.nn.relu(self.norm(self.hidden(image.reshape(image.shape[0], -1))))))


def haiku_model():
    hk = pytest.importorskip("haiku")

    def forward(image, train):
        x = hk.BatchNorm(True, True, 0.9)(hk.Linear(16)(hk.Flatten()(image)), is_training=train)
        return hk.Linear(10)(hk.dropout(hk.next_rng_key(), 0.1, x) if train else x)

    return mj.from_haiku(hk.transform_with_state(forward))


def equinox_model():
    eqx = pytest.importorskip("equinox")

    class MLP(eqx.Module):
        layers: eqx.nn.MLP
        dropout: eqx.nn.Dropout

        def __init__(self, key):
            self.layers, self.dropout = eqx.nn.MLP(784, 10, 16, 1, key=key), eqx.nn.Dropout(0.1)

        def __call__(self, image, *, key, inference):
            return self.layers(self.dropout(image.ravel(), key=key, inference=inference))

    return mj.from_equinox(MLP)


@pytest.fixture(scope="module")
def data(small):
    return jnp.asarray(small["train_images"][:60, :, :, None]), jnp.asarray(small["train_labels"][:60], jnp.int32)


@pytest.mark.parametrize("make", [lambda: mj.from_nnx(Network), haiku_model, equinox_model], ids=["nnx", "hk", "eqx"])
def test_a_module_trains_repeatably_and_restores(tmp_path, data, make):
    model, optimizer = make(), optax.adam(1e-2)
    step = mj.make_train_step(model, optimizer, LOSS)
    epoch = jax.jit(lambda state: mj.train_epoch(step, state, *data, batch_size=20))
    state = start = mj.init_state(model, optimizer, jax.random.key(0), data[0][:1])
    for _ in range(15):
        state, per_step = epoch(state)
    assert mj.compute(mj.sum_over_steps(per_step))["accuracy"] > 0.5
    scores = mj.compute(mj.evaluate(mj.make_eval_step(model, LOSS), state, *data, batch_size=32))
    assert scores["accuracy"] > 0.8
    np.testing.assert_array_equal(mj.predict(model, state, data[0]), mj.predict(model, state, data[0]))
    mj.save_state(tmp_path / "state", state)
    restored = mj.restore_state(tmp_path / "state", start)
    jax.tree.map(np.testing.assert_array_equal, epoch(state)[0].params, epoch(restored)[0].params)


def test_nnx_keeps_statistics_of_its_own_and_drops_by_the_steps_key(data):
    model, optimizer = mj.from_nnx(Network), optax.sgd(0.0)
    state = mj.init_state(model, optimizer, jax.random.key(0), data[0][:1])
    step = mj.make_train_step(model, optimizer, LOSS)
    batch = mj.Batch(data[0][:20], data[1][:20])
    (after, one), (_, again), (_, later) = (step(s, batch) for s in (state, state, state._replace(step=state.step + 1)))
    assert one["loss"].total == again["loss"].total != later["loss"].total
    assert (after.model_state["state"]["norm"]["mean"] != state.model_state["state"]["norm"]["mean"]).any()
