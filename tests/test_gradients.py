"""The step, open: labels, images, models, optimizers and keys of other kinds; and errors that name shapes."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import mnist_jax as mj
from mnist_jax.errors import ArgumentError
from mnist_jax.losses import LOSSES

LOSS = LOSSES["sparse_categorical_crossentropy"]
SOFT_LOSS = LOSSES["categorical_crossentropy"]


class Plain(nn.Module):
    """Has neither `train` nor `mask`."""

    num_outputs: int = 10

    @nn.compact
    def __call__(self, image):
        return nn.Dense(self.num_outputs)(image.reshape(image.shape[0], -1))


class Noise(nn.Module):
    """Draws from streams of its own."""

    @nn.compact
    def __call__(self, image, train):
        x = image.reshape(image.shape[0], -1)
        if train:
            noise = [jax.random.normal(self.make_rng(name), x.shape) for name in ("noise", "other", "dropout")]
            x = x + noise[0] + noise[1] * noise[2]
        return nn.Dense(10)(x)


class Auxiliary(nn.Module):
    @nn.compact
    def __call__(self, image):
        hidden = nn.Dense(8)(image.reshape(image.shape[0], -1))
        return nn.Dense(10)(nn.relu(hidden)), hidden


class Batchnorm(nn.Module):
    @nn.compact
    def __call__(self, image, train):
        x = nn.BatchNorm(use_running_average=not train)(image.reshape(image.shape[0], -1))
        return nn.Dense(10)(x)


@pytest.fixture(scope="module")
def batch(small):
    images = jnp.asarray(small["train_images"][:40, :, :, None])
    return mj.Batch(images, jnp.asarray(small["train_labels"][:40], jnp.int32))


def make(model, batch, optimizer=None, loss=LOSS, key=None, **options):
    optimizer, key = optimizer or optax.sgd(0.1), jax.random.key(0) if key is None else key
    state = mj.init_state(model, optimizer, key, batch.image[:1])
    return state, mj.make_train_step(model, optimizer, loss, **options)


def losses_of(state, step, batch, steps=20):
    step, losses = jax.jit(step), []
    for _ in range(steps):
        state, metrics = step(state, batch)
        losses.append(mj.compute(metrics)["loss"])
    return losses


def test_soft_labels_count_their_largest_class(batch):
    soft = batch._replace(label=jax.nn.one_hot(batch.label, 10) * 0.8 + 0.02)
    state, step = make(Plain(), batch, loss=SOFT_LOSS)
    integer, one_hot = (mj.compute(step(state, one)[1]) for one in (batch, soft))
    assert integer["accuracy"] == one_hot["accuracy"] <= 1


def test_vectors_are_regressed_without_accuracy(batch):
    targets = batch._replace(label=jnp.stack([batch.label / 10, batch.label / 5], axis=-1))

    def squared_error(outputs, batch):
        return optax.squared_error(outputs, batch.label).sum(-1)

    state, step = make(Plain(num_outputs=2), batch, optax.adam(1e-2), squared_error, metrics={})
    losses = losses_of(state, step, targets)
    assert losses[-1] < losses[0] / 10
    with pytest.raises(ArgumentError, match=r"accuracy: logits of shape \(40, 2\) need integer labels"):
        make(Plain(num_outputs=2), batch, loss=lambda outputs, _: outputs.sum(-1))[1](
            state, batch._replace(label=targets.label[:, 0])
        )


def test_float_images_are_left_alone_and_a_preprocess_replaces_the_scaling(batch):
    state, step = make(Plain(), batch)
    scaled = batch._replace(image=batch.image / np.float32(255))
    doubled = make(Plain(), batch, preprocess=lambda image: image.astype(jnp.float32) / 127.5)[1]
    losses = [
        mj.compute(one(state, data)[1])["loss"] for one, data in ((step, batch), (step, scaled), (doubled, batch))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_streams_of_any_name_have_keys_that_change_with_the_step(batch):
    state, step = make(Noise(), batch)
    one, again, later = (step(start, batch)[0].params for start in (state, state, state._replace(step=state.step + 1)))
    kernels = [params["Dense_0"]["kernel"] for params in (one, again, later)]
    assert (kernels[0] == kernels[1]).all() and (kernels[0] != kernels[2]).any()


def test_auxiliary_outputs_reach_the_loss(batch):
    def loss(outputs, batch):
        logits, hidden = outputs
        return LOSS(logits, batch) + 0.1 * jnp.square(hidden).mean(-1)

    state, step = make(Auxiliary(), batch, loss=loss)
    assert losses_of(state, step, batch)[-1] < losses_of(state, step, batch)[0]
    scores = mj.compute(mj.evaluate(mj.make_eval_step(Auxiliary(), loss), state, *batch[:2], batch_size=16))
    assert scores["count"] == 40 and mj.predict(Auxiliary(), state, batch.image).shape == (40, 10)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.polyak_sgd(1.0),
        optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau(patience=2)),
        optax.chain(optax.clip(1.0), optax.polyak_sgd(1.0)),
    ],
    ids=["polyak_sgd", "reduce_on_plateau", "chained"],
)
def test_optimizers_that_need_the_loss_get_it(batch, optimizer):
    losses = losses_of(*make(Plain(), batch, optimizer), batch)
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg", "threefry2x32"])
def test_every_kind_of_key_trains_saves_and_restores(tmp_path, small, impl):
    experiment = mj.Experiment(hidden_sizes=(16,), dropout=0.3, rotation=10.0, batch_size=20)
    image = jax.ShapeDtypeStruct((28, 28, 1), jnp.uint8)
    components = experiment.build(steps=4, num_classes=10, image=image)
    data = jnp.asarray(small["train_images"][:40, :, :, None]), jnp.asarray(small["train_labels"][:40], jnp.int32)
    epoch = jax.jit(lambda state: mj.train_epoch(components.train_step, state, *data, batch_size=20)[0])
    state = epoch(components.init(jax.random.key(1, impl=impl)))
    mj.save_state(tmp_path / "state", state)
    restored = mj.restore_state(tmp_path / "state", jax.eval_shape(components.init, jax.random.key(0, impl=impl)))
    jax.tree.map(np.testing.assert_array_equal, epoch(state).params, epoch(restored).params)
    other = "rbg" if impl != "rbg" else "threefry2x32"
    with pytest.raises(mj.MnistJaxError, match="its PRNG keys are"):
        mj.restore_state(tmp_path / "state", jax.eval_shape(components.init, jax.random.key(0, impl=other)))


def test_any_pytree_saves_and_restores(tmp_path):
    state = {"mine": [jnp.arange(3), (2.5, jnp.bfloat16(1))], "keys": jax.random.split(jax.random.key(0), 2), "step": 7}
    mj.save_state(tmp_path / "state", state)
    restored = mj.restore_state(tmp_path / "state", state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert restored["mine"][1][0] == 2.5 and restored["step"] == 7 and restored["mine"][1][1].dtype == jnp.bfloat16
    np.testing.assert_array_equal(*(jax.random.key_data(one["keys"]) for one in (state, restored)))
    with pytest.raises(mj.MnistJaxError, match=r"\['mine'\]\[0\] is int32\[3\], expected int32\[4\]"):
        mj.restore_state(tmp_path / "state", {**state, "mine": [jnp.arange(4), state["mine"][1]]})


def test_the_average_is_evaluated_by_choice(batch):
    state = mj.init_state(Plain(), optax.sgd(0.5), jax.random.key(0), batch.image[:1], with_ema=True)
    step = jax.jit(mj.make_train_step(Plain(), optax.sgd(0.5), LOSS, ema_decay=0.9))
    expected = state.params["Dense_0"]["bias"]
    for number in range(5):
        state, _ = step(state, batch)
        decay = min(0.9, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * state.params["Dense_0"]["bias"]
    np.testing.assert_allclose(mj.averaged(state).params["Dense_0"]["bias"], expected, rtol=1e-5)
    with pytest.raises(ArgumentError, match=r"init_state\(\.\.\., with_ema=True\)"):
        step(state._replace(ema_params=None), batch)


def test_64_bits_change_no_float32_runs_random_numbers():
    script = """
import jax, jax.numpy as jnp, mnist_jax as mj
experiment = mj.Experiment(hidden_sizes=(16,), dropout=0.3, rotation=20.0, zoom=0.1, translation=2.0, dataset="mnist5k")
data = experiment.dataset
parts = experiment.build(steps=3)
args = jnp.asarray(data.train_images[::40]), jnp.asarray(data.train_labels[::40])
state, per_step = mj.train_epoch(parts.train_step, parts.init(jax.random.key(0)), *args, batch_size=40)
assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))
print(*(f"{float(loss):.3f}" for loss in per_step["loss"].total))
"""
    outputs = []
    for enabled in ("0", "1"):
        env = os.environ | {"JAX_ENABLE_X64": enabled}
        done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        outputs.append(np.array(done.stdout.split(), float))
    np.testing.assert_allclose(*outputs, rtol=2e-5)


def test_batch_norm_without_a_mask_does_not_learn_from_padding_unnoticed(batch):
    state, step = make(Batchnorm(), batch)
    step(state, batch)
    with pytest.raises(ArgumentError, match="no `mask` argument, so it would learn them from padding"):
        step(state, batch._replace(mask=jnp.arange(40) < 30))
    with pytest.raises(ArgumentError, match="no `mask` argument"):
        mj.train_epoch(step, state, *batch[:2], batch_size=30)


def test_numpy_arrays_are_taken_under_jit(batch):
    state, step = make(Plain(), batch)
    arrays = [np.asarray(array) for array in batch[:2]]
    compiled = jax.jit(lambda state: mj.train_epoch(step, state, *arrays, batch_size=20))
    assert int(compiled(state)[1]["loss"].count.sum()) == 40
    assert int(jax.jit(lambda s: mj.evaluate(mj.make_eval_step(Plain(), LOSS), s, *arrays))(state)["loss"].count) == 40


def scalar_loss(logits, batch):
    return LOSS(logits, batch).mean()


WRONG = {
    "lengths": (lambda b: b._replace(label=b.label[:39]), {}, r"same first dimension; got image \(40, 28, 28, 1\)"),
    "mask": (lambda b: b._replace(mask=jnp.ones(39, bool)), {}, r"mask \(39,\)"),
    "scalar loss": (lambda b: b, {"loss": scalar_loss}, r"loss: returned shape \(\) for a batch of 40; it must return"),
    "no loss": (lambda b: b, {"loss": lambda logits, batch: None}, "loss: returned NoneType for a batch of 40"),
    "integer images": (lambda b: b._replace(image=b.image.astype(jnp.int32)), {}, "image: dtype int32; it must be"),
    "one image": (lambda b: b._replace(image=b.image[0, :, 0, 0]), {}, "same first dimension"),
    "one-hot": (lambda b: b._replace(label=jax.nn.one_hot(b.label, 10)), {}, "takes integer labels of shape"),
    "float labels": (lambda b: b._replace(label=b.label * 1.0), {}, "takes integer labels of shape"),
    "float mask": (lambda b: b._replace(mask=jnp.full(40, 0.5)), {}, "mask: must be bool of shape"),
    "metric of pairs": (
        lambda b: b,
        {"metrics": {"pairs": lambda logits, batch: mj.Mean.of(logits == logits)}},
        r"Mean.of: takes one value per example, \[B\], and a mask of that shape; got values \(40, 10\)",
    ),
    "metric of a number": (lambda b: b, {"metrics": {"one": lambda *_: 1.0}}, "metrics: one returned a float; it must"),
    "metric's name": (lambda b: b, {"metrics": {"loss": lambda *_: mj.Mean(0, 1)}}, "'loss' is the name of something"),
    "augment": (lambda b: b, {"augment": lambda key, b: b.image}, "augment: returned a .*; it must return a Batch"),
    "microbatches": (lambda b: b, {"microbatch_size": -5}, "microbatch_size=-5: must be at least 0"),
    "no model": (lambda b: b, {"model": "cnn"}, "model: a str is neither a Linen module nor a Model"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_error_names_arguments_and_shapes_while_it_is_traced(batch, name):
    change, options, message = WRONG[name]
    state, _ = make(Plain(), batch)
    options = {"model": Plain(), "loss": LOSS, **options}

    def step(state, batch):
        return mj.make_train_step(options.pop("model"), optax.sgd(0.1), options.pop("loss"), **options)(state, batch)

    with pytest.raises(ArgumentError, match=message) as caught:
        jax.eval_shape(step, state, change(batch))
    assert "--" not in str(caught.value).partition("\n")[0]


@pytest.mark.parametrize("batch_size", [0, 41, -1])
def test_an_epoch_checks_images_labels_and_batch_size(batch, batch_size):
    state, step = make(Plain(), batch)
    with pytest.raises(ArgumentError, match=f"batch_size={batch_size}: must be between 1 and the number of images, 40"):
        mj.train_epoch(step, state, *batch[:2], batch_size=batch_size)
    for use in (
        lambda: mj.train_epoch(step, state, batch.image, batch.label[:39], batch_size=20),
        lambda: mj.evaluate(mj.make_eval_step(Plain(), LOSS), state, batch.image, batch.label[:39]),
    ):
        with pytest.raises(ArgumentError, match="with the same first dimension"):
            use()


def test_a_key_must_be_typed_and_an_evaluation_not_empty(batch):
    with pytest.raises(ArgumentError, match="key: must be a typed key"):
        mj.init_state(Plain(), optax.sgd(0.1), 7, batch.image)
    state, _ = make(Plain(), batch)
    with pytest.raises(ArgumentError, match="batch_size=0, 40 images: both must be at least 1"):
        mj.evaluate(mj.make_eval_step(Plain(), LOSS), state, *batch[:2], batch_size=0)


def test_a_schedule_by_the_loss_sees_the_regularizer_too(batch):
    seen = []

    def update(grads, state, params=None, *, value, **_):
        seen.append(value)
        return grads, state

    optimizer = optax.GradientTransformationExtraArgs(lambda params: (), update)
    for regularizer in (None, lambda params: jnp.float32(5)):
        state, step = make(Plain(), batch, optimizer, regularizer=regularizer)
        step(state, batch)
    assert float(seen[1] - seen[0]) == pytest.approx(5, rel=1e-5)


def test_the_gradient_function_by_itself_is_that_of_the_step(batch):
    state, step = make(Plain(), batch)
    grads, _ = mj.make_grad_fn(Plain(), LOSS)(state.params, {}, jax.random.key(0), batch)
    after, _ = step(state, batch)
    expected = jax.tree.map(lambda leaf, grad: leaf - 0.1 * grad, state.params, grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), after.params, expected)
