"""One battery for every entry of every table."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.make_keras_values import cases

from mnist_jax import metrics
from mnist_jax.config import Config
from mnist_jax.errors import ConfigError
from mnist_jax.layers import ACTIVATIONS, INITIALIZERS
from mnist_jax.losses import LOSSES, make_loss, make_penalty
from mnist_jax.models import MODELS, NORMS
from mnist_jax.optimizers import OPTIMIZERS, SCHEDULES, make_optimizer, make_schedule
from mnist_jax.train import make_parts, predict, train_epoch
from mnist_jax.types import Batch, Hyperparams

KERAS = json.loads((pathlib.Path(__file__).parent / "fixtures" / "keras_values.json").read_text())
CASES = {case: (targets.astype(np.float32), outputs.astype(np.float32)) for case, targets, outputs in cases()}
# Networks of every kind, small enough for a test.
SHAPES = {
    "softmax": {},
    "perceptron": {"hidden": (32,)},
    "cnn": {"hidden": (32,), "filters": (8,)},
    "deep_cnn": {"hidden": (), "filters": (4, 8)},
    "rnn": {"hidden": (32,), "activation": "tanh"},
    "embedding": {"hidden": (32,)},
}
VARIANTS = [(model, {}) for model in MODELS] + [
    *(("perceptron", {"norm": norm}) for norm in NORMS[1:]),
    ("cnn", {"norm": "layer"}),
    ("deep_cnn", {"norm": "batch"}),
    ("rnn", {"cell": "gru", "norm": "layer"}),
    ("embedding", {"tokens": "grey"}),
]


@pytest.fixture(scope="module")
def tiny(small):
    return jnp.asarray(small["train_images"][:60, :, :, None]), jnp.asarray(small["train_labels"][:60], jnp.int32)


def parts_of(steps=60, **choices):
    config = Config(**{**SHAPES[choices.get("model", "perceptron")], **choices})
    return config, make_parts(config, 10, (28, 28, 1), steps)


def finite(tree):
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


def accuracy_after(tiny, epochs=20, **choices):
    _, parts = parts_of(steps=epochs * 2, epochs=epochs, **choices)
    epoch = jax.jit(lambda state: train_epoch(parts.train_step, state, *tiny, batch_size=30))
    state = parts.init(jax.random.key(0))
    for _ in range(epochs):
        state, per_step = epoch(state)
        assert finite(state.params) and finite(per_step.loss)
    return metrics.compute(metrics.merge(per_step))["accuracy"]


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_kerass(name):
    entries = [entry for entry in KERAS["losses"] if entry["name"] == name]
    assert len(entries) >= 6
    for entry in entries:
        targets, outputs = CASES[entry["case"]]
        labels = targets.argmax(axis=-1) if name.startswith("sparse") else targets
        options = {key: entry[key] for key in ("from_logits", "label_smoothing")}
        if name not in ("binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy"):
            options["from_logits"] = False
        ours = LOSSES[name](jnp.asarray(outputs), jnp.asarray(labels), **options)
        np.testing.assert_allclose(ours, entry["values"], rtol=1e-5, atol=1e-7, err_msg=str(entry["case"]))


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_has_shape_and_finite_gradients_and_jits(name, from_logits):
    loss = make_loss(Config(loss=name, from_logits=from_logits), Hyperparams(1e-3))
    logits = jnp.concatenate([jax.random.normal(jax.random.key(0), (5, 10)), 50 * jnp.eye(10)[:2]])
    labels = jnp.array([0, 9, 3, 3, 5, 0, 7])
    plain = loss(logits, labels)
    assert plain.shape == (7,) and plain.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(loss)(logits, labels), plain, rtol=1e-5, atol=1e-6)
    assert finite(jax.grad(lambda logits: loss(logits, labels).sum())(logits))
    right, wrong = loss(10 * jnp.eye(10)[:1], jnp.array([0])), loss(10 * jnp.eye(10)[:1], jnp.array([1]))
    assert float(right[0]) < float(wrong[0])


def test_cross_entropies_agree_on_logits_and_probabilities():
    logits, labels = jax.random.normal(jax.random.key(1), (6, 10)), jnp.arange(6)
    values = [LOSSES[name](logits, labels) for name in ("sparse_categorical_crossentropy", "categorical_crossentropy")]
    values += [LOSSES["categorical_crossentropy"](jax.nn.softmax(logits), jnp.eye(10)[:6], from_logits=False)]
    for value in values[1:]:
        np.testing.assert_allclose(value, values[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "outputs", "labels", "message"),
    [
        ("sparse_categorical_crossentropy", (4, 10), jnp.zeros((4, 10)), "say --loss=categorical_crossentropy"),
        ("mean_squared_error", (4, 10), jnp.zeros((4, 9)), "these are float32 of shape"),
        ("poisson", (4, 10), jnp.zeros(4), "need whole labels"),
        ("categorical_crossentropy", (4, 1), jnp.zeros(4, int), "compares at least 2 classes"),
    ],
)
def test_a_loss_that_does_not_fit_says_why(name, outputs, labels, message):
    with pytest.raises(ConfigError, match=message):
        LOSSES[name](jnp.zeros(outputs), labels)


def test_label_smoothing_only_where_keras_has_it():
    with pytest.raises(ConfigError, match="hinge has none, as in Keras"):
        make_loss(Config(loss="hinge", label_smoothing=0.1), Hyperparams(1e-3))


def test_penalty_is_of_kernels_not_biases():
    params = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([100.0])}
    assert float(make_penalty(Hyperparams(1.0, l1=0.5, l2=0.25))(params)) == pytest.approx(0.5 * 3 + 0.25 * 5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_kerass_and_has_finite_gradients(name):
    x = jnp.linspace(-6, 6, 49).reshape(7, 7)
    activation = ACTIVATIONS[name]
    ours = activation(x)
    assert ours.shape == x.shape and ours.dtype == x.dtype
    np.testing.assert_allclose(ours.ravel(), KERAS["activations"][name], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.jit(activation)(x), ours, rtol=1e-5, atol=1e-6)
    assert finite(jax.grad(lambda x: activation(x).sum())(x * 5))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_perceptron_learns_with_every_activation(tiny, name):
    rate = {"exponential": 1e-3, "softmax": 5e-2}.get(name, 1e-2)
    assert accuracy_after(tiny, activation=name, learning_rate=rate, epochs=40) > 0.9


# https://keras.io/api/layers/initializers/: standard deviations for 300 inputs and 100 outputs.
DEVIATIONS = {
    "constant": 0.0,
    "glorot_normal": (2 / 400) ** 0.5,
    "glorot_uniform": (2 / 400) ** 0.5,
    "he_normal": (2 / 300) ** 0.5,
    "he_uniform": (2 / 300) ** 0.5,
    "lecun_normal": (1 / 300) ** 0.5,
    "lecun_uniform": (1 / 300) ** 0.5,
    "normal": 0.05,
    "ones": 0.0,
    "orthogonal": 1 / 300**0.5,
    "random_normal": 0.05,
    "random_uniform": 0.1 / 12**0.5,
    "truncated_normal": 0.05 * 0.8796,
    "uniform": 0.1 / 12**0.5,
    "variance_scaling": (1 / 300) ** 0.5,
    "zeros": 0.0,
}


@pytest.mark.parametrize("name", INITIALIZERS)
def test_an_initializer_has_kerass_deviation(tiny, name):
    kernel = INITIALIZERS[name](jax.random.key(0), (300, 100), jnp.float32)
    assert kernel.shape == (300, 100) and kernel.dtype == jnp.float32
    assert float(kernel.std()) == pytest.approx(DEVIATIONS[name], rel=0.03, abs=1e-6)
    if DEVIATIONS[name]:
        assert abs(float(kernel.mean())) < 0.01
        assert (kernel != INITIALIZERS[name](jax.random.key(1), (300, 100), jnp.float32)).any()
    assert accuracy_after(tiny, model="softmax", kernel_init=name, learning_rate=1e-2) > 0.9


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_trains_and_decays_weights(tiny, name):
    rate = {"adadelta": 10.0, "sgd": 0.3, "adagrad": 0.03, "lion": 1e-3, "muon": 2e-2}.get(name, 1e-2)
    assert accuracy_after(tiny, optimizer=name, learning_rate=rate, epochs=40) > 0.9
    params, nothing = {"kernel": jnp.ones((3, 3))}, {"kernel": jnp.zeros((3, 3))}
    optimizer = make_optimizer(Config(optimizer=name, weight_decay=0.1), Hyperparams(0.5, weight_decay=0.1))
    updates, _ = optimizer.update(nothing, optimizer.init(params), params)
    shrunk = -0.05 if name != "lamb" else -0.5  # lamb scales a step to the parameters' length
    np.testing.assert_allclose(updates["kernel"], shrunk, rtol=1e-5)


def test_momentum_nesterov_and_clipping():
    params, grads = {"w": jnp.zeros(2)}, {"w": jnp.array([3.0, 4.0])}
    hparams = Hyperparams(0.1, momentum=0.5, clip_norm=1.0)
    for choices, wanted in (
        ({"momentum": 0.5}, -0.1 * 3 * 1.5),
        ({"momentum": 0.5, "nesterov": True}, -0.1 * 3 * 1.75),
        ({"clip_norm": 1.0}, -0.1 * 3 / 5),
    ):
        optimizer = make_optimizer(Config(optimizer="sgd", **choices), hparams)
        state = optimizer.init(params)
        for _ in range(2):
            updates, state = optimizer.update(grads, state, params)
        assert float(updates["w"][0]) == pytest.approx(wanted), choices
    with pytest.raises(ConfigError, match=r"--momentum=0\.5: not for adam; for rmsprop, sgd"):
        make_optimizer(Config(momentum=0.5), hparams)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_starts_peaks_ends_and_trains(tiny, name):
    schedule = make_schedule(Config(schedule=name, epochs=10), Hyperparams(2.0), 100)
    rates = np.array([float(schedule(step)) for step in range(101)])
    assert rates.max() == pytest.approx(2.0) and (rates >= 0).all()
    ends = {"constant": 2.0, "cosine": 0, "exponential": 0.02, "linear": 0, "one_cycle": 2 / 25e4, "step": 0.02}
    assert rates[-1] == pytest.approx(ends[name], abs=1e-6)
    assert rates[0] == pytest.approx(0.08 if name == "one_cycle" else 2.0)
    warmed = make_schedule(Config(schedule=name, epochs=10, warmup_epochs=2), Hyperparams(2.0), 100)
    assert [float(warmed(step)) for step in (0, 10)] == pytest.approx([0.0, 1.0])
    assert float(warmed(100)) == pytest.approx(ends[name], abs=1e-6)
    assert accuracy_after(tiny, schedule=name, learning_rate=1e-2) > 0.9


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ConfigError, match="must be below --epochs=5"):
        make_optimizer(Config(warmup_epochs=5, epochs=5), Hyperparams(1e-3), 10)


@pytest.mark.parametrize(("model", "choices"), VARIANTS, ids=str)
def test_a_model_trains_jits_and_respects_the_mask(tiny, model, choices):
    _, parts = parts_of(model=model, dropout=0.0, **choices)
    state = parts.init(jax.random.key(0))
    images, labels = (array[:12] for array in tiny)
    logits = predict(parts.model, state, images, batch_size=5)
    assert logits.shape == (12, 10) and logits.dtype == jnp.float32
    step = jax.jit(parts.train_step)
    with jax.disable_jit():
        plain = parts.model.apply({"params": state.params, **state.model_state}, images / np.float32(255), train=False)
    np.testing.assert_allclose(logits, plain, rtol=1e-4, atol=1e-4)

    alone, seen = step(state, Batch(images, labels, jnp.ones(12, bool)))
    garbage = Batch(jnp.concatenate([images, 255 - images]), jnp.tile(labels, 2), jnp.arange(24) < 12)
    padded, seen_padded = step(state, garbage)
    assert finite(alone.params) and int(seen_padded.count) == 12
    assert float(seen.loss) == pytest.approx(float(seen_padded.loss), rel=1e-4)
    statistics = (alone.model_state, padded.model_state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *statistics)


@pytest.mark.parametrize(("model", "choices"), VARIANTS, ids=str)
def test_a_model_computes_in_bfloat16_and_learns_in_float32(tiny, model, choices):
    _, full = parts_of(model=model, **choices)
    _, half = parts_of(model=model, precision="bf16", **choices)
    images, labels = (array[:12] for array in tiny)
    state = full.init(jax.random.key(0))
    after, _ = jax.eval_shape(half.train_step, state, Batch(images, labels, jnp.ones(12, bool)))
    kinds = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), kind) for kind in (state, after)]
    assert kinds[0] == kinds[1]
    exact, close = (predict(full.model, state, images, dtype=parts.dtype) for parts in (full, half))
    assert close.dtype == jnp.float32 and (exact != close).any()
    np.testing.assert_allclose(close, exact, atol=0.1 * float(jnp.abs(exact).max()))


@pytest.mark.parametrize(("model", "choices"), VARIANTS, ids=str)
def test_a_model_learns_a_tiny_set(tiny, model, choices):
    epochs = 60 if model == "rnn" else 40
    assert accuracy_after(tiny, model=model, learning_rate=1e-2, epochs=epochs, **choices) > 0.9


@pytest.mark.parametrize("name", LOSSES)
def test_the_perceptron_learns_with_every_loss(tiny, name):
    assert accuracy_after(tiny, loss=name, learning_rate=3e-3, epochs=40) > 0.9


def test_regularisation_by_flags_trains(tiny):
    choices = dict(norm="batch", dropout=0.3, l1=1e-5, l2=1e-4, weight_decay=1e-3, clip_norm=1.0, activation="gelu")
    assert (
        accuracy_after(tiny, kernel_init="he_normal", hidden=(64, 32), learning_rate=1e-2, epochs=40, **choices) > 0.8
    )


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"model": "cnn", "filters": (8,) * 5}, "too small for 5 stages"),
        ({"model": "deep_cnn", "filters": (4,) * 7}, "can't be halved"),
        ({"model": "rnn", "hidden": ()}, "needs at least one layer"),
        ({"norm": "bacth"}, "did you mean 'batch'"),
        ({"activation": "rleu"}, "did you mean 'relu'"),
        ({"kernel_init": "he"}, "no such kernel_init"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
    ],
    ids=str,
)
def test_a_network_that_cannot_be_is_refused(choices, message):
    with pytest.raises(ConfigError, match=message):
        parts_of(**choices)
