"""The same tests for every entry of every table, also for one that is added later."""

import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.make_keras_values import cases

from mnist_jax import datasets, metrics
from mnist_jax.augment import AUGMENTATIONS
from mnist_jax.config import Config
from mnist_jax.errors import ArgumentError, ConfigError, DataError
from mnist_jax.evaluation import predict
from mnist_jax.experiment import Experiment
from mnist_jax.layers import ACTIVATIONS, INITIALIZERS
from mnist_jax.losses import LOSSES, has_option, make_loss, make_regularizer
from mnist_jax.models import MODELS
from mnist_jax.optimizers import OPTIMIZERS, SCHEDULES, make_optimizer, make_schedule
from mnist_jax.train import train_epoch
from mnist_jax.types import Batch

KERAS = json.loads((pathlib.Path(__file__).parent / "fixtures" / "keras_values.json").read_text())
CASES = {case: (targets.astype(np.float32), outputs.astype(np.float32)) for case, targets, outputs in cases()}
# Networks of every kind, small enough for a test.
SHAPES = {
    "softmax": {},
    "perceptron": {"hidden_sizes": (32,)},
    "cnn": {"hidden_sizes": (32,), "filters": (8,)},
    "deep_cnn": {"hidden_sizes": (), "filters": (4, 8)},
    "rnn": {"hidden_sizes": (32,), "activation": "tanh"},
    "vit": {"hidden_sizes": (32,)},
}
VARIANTS = [(model, {}) for model in MODELS] + [
    *(("perceptron", {"norm": norm}) for norm in ("batch", "layer")),
    ("cnn", {"norm": "layer"}),
    ("deep_cnn", {"norm": "batch", "filters": (8, 32), "pooling": "avg_max"}),
    ("rnn", {"cell": "gru", "norm": "layer"}),
]
SLOW_VARIANTS = [
    ("deep_cnn", {"norm": "batch"}),
    *(("deep_cnn", {"norm": "batch", "filters": (8, 32), "pooling": pooling}) for pooling in ("avg", "max")),
    ("vit", {"tokens": "intensity"}),
]
VARIANTS += [pytest.param(*variant, marks=pytest.mark.slow) for variant in SLOW_VARIANTS]


@pytest.fixture(scope="module")
def tiny(small):
    return jnp.asarray(small["train_images"][:60, :, :, None]), jnp.asarray(small["train_labels"][:60], jnp.int32)


def parts_of(steps=60, **choices):
    experiment = Experiment(**{**SHAPES.get(choices.get("model", "perceptron"), {}), **choices})
    image = jax.ShapeDtypeStruct((28, 28, 1), jnp.uint8)
    return experiment.build(steps=steps, num_classes=10, image=image)


def finite(tree):
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


def accuracy_after(tiny, epochs=20, **choices):
    parts = parts_of(steps=epochs * 2, epochs=epochs, **choices)
    epoch = jax.jit(lambda state: train_epoch(parts.train_step, state, *tiny, batch_size=30))
    state = parts.init(jax.random.key(0))
    for _ in range(epochs):
        state, per_step = epoch(state)
        assert finite(state.params) and finite(per_step["loss"])
    return metrics.compute(metrics.sum_over_steps(per_step))["accuracy"]


@pytest.mark.parametrize("name", sorted({entry["name"] for entry in KERAS["losses"]}))
def test_a_loss_is_kerass(name):
    entries = [entry for entry in KERAS["losses"] if entry["name"] == name]
    assert len(entries) >= 6
    for entry in entries:
        targets, outputs = CASES[entry["case"]]
        labels = targets.argmax(axis=-1) if name.startswith("sparse") else targets
        options = {key: entry[key] for key in ("from_logits", "label_smoothing") if has_option(LOSSES[name], key)}
        if name not in ("binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy"):
            options["from_logits"] = False
        ours = LOSSES[name](jnp.asarray(outputs), Batch(None, jnp.asarray(labels)), **options)
        np.testing.assert_allclose(ours, entry["values"], rtol=1e-5, atol=1e-7, err_msg=str(entry["case"]))


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_has_shape_and_finite_gradients_and_jits(name, from_logits):
    if not from_logits and not has_option(LOSSES[name], "from_logits"):
        with pytest.raises(ConfigError, match=r"from_logits=False: .* does not have it"):
            make_loss(Config(loss=name, from_logits=False))
        return
    make = make_loss(Config(loss=name, from_logits=from_logits))

    def loss(logits, labels):
        return make(logits, Batch(None, labels))

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
    integer, soft = (Batch(None, labels) for labels in (labels, jnp.eye(10)[:6]))
    values = [LOSSES[name](logits, integer) for name in ("sparse_categorical_crossentropy", "categorical_crossentropy")]
    values += [LOSSES["categorical_crossentropy"](jax.nn.softmax(logits), soft, from_logits=False)]
    for value in values[1:]:
        np.testing.assert_allclose(value, values[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "outputs", "labels", "message"),
    [
        ("sparse_categorical_crossentropy", (4, 10), jnp.zeros((4, 10)), "use loss=categorical_crossentropy"),
        ("mean_squared_error", (4, 10), jnp.zeros((4, 9)), "the labels are float32 of shape"),
        ("poisson", (4, 10), jnp.zeros(4), "need integer labels"),
        ("categorical_crossentropy", (4, 1), jnp.zeros(4, int), "compares at least 2 classes"),
    ],
)
def test_a_loss_that_does_not_fit_says_why(name, outputs, labels, message):
    with pytest.raises(ArgumentError, match=message):
        LOSSES[name](jnp.zeros(outputs), Batch(None, labels))


def test_label_smoothing_only_where_keras_has_it():
    with pytest.raises(ConfigError, match="hinge does not have it"):
        make_loss(Config(loss="hinge", label_smoothing=0.1))


def test_the_regularizer_is_of_kernels_not_biases():
    params = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([100.0])}
    assert float(make_regularizer(Config(l1=0.5, l2=0.25))(params)) == pytest.approx(0.5 * 3 + 0.25 * 5)


@pytest.mark.parametrize("name", KERAS["activations"])
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
STANDARD_DEVIATIONS = {
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
def test_an_initializer_has_kerass_standard_deviation(tiny, name):
    expected = STANDARD_DEVIATIONS.get(name, 0.0)
    kernel = INITIALIZERS[name](jax.random.key(0), (300, 100), jnp.float32)
    assert kernel.shape == (300, 100) and kernel.dtype == jnp.float32
    assert name not in STANDARD_DEVIATIONS or float(kernel.std()) == pytest.approx(expected, rel=0.03, abs=1e-6)
    if expected:
        assert abs(float(kernel.mean())) < 0.01
        assert (kernel != INITIALIZERS[name](jax.random.key(1), (300, 100), jnp.float32)).any()
    assert accuracy_after(tiny, model="softmax", kernel_init=name, learning_rate=1e-2) > 0.9


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_trains_and_decays_weights(tiny, name):
    rate = {"adadelta": 10.0, "sgd": 0.3, "adagrad": 0.03, "lion": 1e-3, "muon": 2e-2}.get(name, 1e-2)
    assert accuracy_after(tiny, optimizer=name, learning_rate=rate, epochs=40) > 0.9
    params, nothing = {"kernel": jnp.ones((3, 3))}, {"kernel": jnp.zeros((3, 3))}
    optimizer = make_optimizer(Config(optimizer=name, learning_rate=0.5, weight_decay=0.1))
    updates, _ = optimizer.update(nothing, optimizer.init(params), params)
    shrunk = -0.05 if name != "lamb" else -0.5  # lamb scales a step to the parameters' length
    np.testing.assert_allclose(updates["kernel"], shrunk, rtol=1e-5)


def test_muon_moves_kernels_of_convolutions_along_orthogonal_matrices():
    params = {"conv": jnp.zeros((3, 3, 4, 12)), "dense": jnp.zeros((20, 8)), "scale": jnp.zeros(12)}
    grads = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(0), leaf.shape), params)
    optimizer = make_optimizer(Config(optimizer="muon", learning_rate=0.1))
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    for name in ("conv", "dense"):
        singular_values = jnp.linalg.svd(updates[name].reshape(-1, updates[name].shape[-1]), compute_uv=False)
        assert 0.06 < float(singular_values.min()) <= float(singular_values.max()) < 0.13, name  # the rate, roughly
    steps = jnp.abs(updates["scale"])  # Adam's first step is as long for every gradient
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)


def test_momentum_nesterov_and_clipping():
    params, grads = {"w": jnp.zeros(2)}, {"w": jnp.array([3.0, 4.0])}
    for choices, expected in (
        ({"momentum": 0.5}, -0.1 * 3 * 1.5),
        ({"momentum": 0.5, "nesterov": True}, -0.1 * 3 * 1.75),
        ({"grad_clip_norm": 1.0}, -0.1 * 3 / 5),
    ):
        optimizer = make_optimizer(Config(optimizer="sgd", learning_rate=0.1, **choices))
        state = optimizer.init(params)
        for _ in range(2):
            updates, state = optimizer.update(grads, state, params)
        assert float(updates["w"][0]) == pytest.approx(expected), choices
    with pytest.raises(ConfigError, match=r"momentum=0\.5: not for adam; for rmsprop, sgd"):
        make_optimizer(Config(momentum=0.5))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_starts_peaks_ends_and_trains(tiny, name):
    schedule = make_schedule(Config(schedule=name, epochs=10, learning_rate=2.0), 100)
    rates = np.array([float(schedule(step)) for step in range(101)])
    assert rates.max() == pytest.approx(2.0) and (rates >= 0).all()
    ends = {"constant": 2.0, "cosine": 0, "exponential": 0.02, "linear": 0, "one_cycle": 2 / 25e4, "step": 0.02}
    assert name not in ends or rates[-1] == pytest.approx(ends[name], abs=1e-6)
    assert rates[0] == pytest.approx(0.08 if name == "one_cycle" else 2.0)
    warmed = make_schedule(Config(schedule=name, epochs=10, warmup_epochs=2, learning_rate=2.0), 100)
    assert [float(warmed(step)) for step in (0, 10)] == pytest.approx([0.0, 1.0])
    assert float(warmed(100)) == pytest.approx(float(rates[-1]), abs=1e-6)
    assert accuracy_after(tiny, schedule=name, learning_rate=1e-2) > 0.9


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ConfigError, match="must be below epochs=5"):
        make_optimizer(Config(warmup_epochs=5, epochs=5), 10)


@pytest.mark.parametrize(("model", "choices"), VARIANTS, ids=str)
def test_a_model_trains_jits_and_respects_the_mask(tiny, model, choices):
    parts = parts_of(model=model, dropout=0.0, **choices)
    state = parts.init(jax.random.key(0))
    images, labels = (array[:12] for array in tiny)
    logits = predict(parts.model, state, images, batch_size=5)
    assert logits.shape == (12, 10) and logits.dtype == jnp.float32
    step = jax.jit(parts.train_step)
    with jax.disable_jit():
        variables = {"params": state.params, **state.model_state}
        plain, _ = parts.model.apply(variables, images / np.float32(255), train=False, rngs=None, mask=None)
    np.testing.assert_allclose(logits, plain, rtol=1e-4, atol=1e-4)

    alone, seen = step(state, Batch(images, labels, jnp.ones(12, bool)))
    garbage = Batch(jnp.concatenate([images, 255 - images]), jnp.tile(labels, 2), jnp.arange(24) < 12)
    padded, seen_padded = step(state, garbage)
    assert finite(alone.params) and int(seen_padded["loss"].count) == 12
    assert float(seen["loss"].total) == pytest.approx(float(seen_padded["loss"].total), rel=1e-4)
    statistics = (alone.model_state, padded.model_state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *statistics)


@pytest.mark.parametrize(("model", "choices"), VARIANTS, ids=str)
def test_a_model_computes_in_bfloat16_and_learns_in_float32(tiny, model, choices):
    full = parts_of(model=model, **choices)
    half = parts_of(model=model, dtype="bfloat16", **choices)
    images, labels = (array[:12] for array in tiny)
    state = full.init(jax.random.key(0))
    after, _ = jax.eval_shape(half.train_step, state, Batch(images, labels, jnp.ones(12, bool)))
    kinds = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), kind) for kind in (state, after)]
    assert kinds[0] == kinds[1]
    exact, close = (parts.predict(state, images) for parts in (full, half))
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
    choices = dict(
        norm="batch", dropout=0.3, l1=1e-5, l2=1e-4, weight_decay=1e-3, grad_clip_norm=1.0, activation="gelu"
    )
    assert (
        accuracy_after(tiny, kernel_init="he_normal", hidden_sizes=(64, 32), learning_rate=1e-2, epochs=40, **choices)
        > 0.8
    )


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"model": "cnn", "filters": (8,) * 5}, "too small for 5 stages"),
        ({"model": "deep_cnn", "filters": (4,) * 7}, "can't be halved"),
        ({"model": "rnn", "hidden_sizes": ()}, "needs at least one layer"),
        ({"norm": "bacth"}, "did you mean 'batch'"),
        ({"activation": "rleu"}, "did you mean 'relu'"),
        ({"kernel_init": "he"}, "no such kernel_init"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
    ],
    ids=str,
)
def test_a_network_that_cannot_be_is_refused(choices, message):
    with pytest.raises((ConfigError, ArgumentError), match=message):
        parts_of(**choices)


@pytest.mark.parametrize("name", metrics.METRICS)
def test_a_metric_counts_what_the_mask_leaves(name):
    logits, labels = jax.random.normal(jax.random.key(0), (6, 10)), jnp.arange(6) % 3
    metric = jax.jit(lambda logits, batch: metrics.METRICS[name](logits, batch))
    alone = metric(logits[:4], Batch(None, labels[:4]))
    padded = metric(logits.at[4:].set(jnp.nan), Batch(None, labels, jnp.arange(6) < 4))
    assert alone.total.shape == () and int(alone.count) == int(padded.count) == 4
    assert float(alone.total) == pytest.approx(float(padded.total), rel=1e-6)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_keeps_shapes_and_depends_on_its_key(tiny, name):
    augment = AUGMENTATIONS[name](Config(rotation=20.0, zoom=0.1, translation=2.0, elastic=1.0))
    batch = Batch(tiny[0][:8] / np.float32(255), tiny[1][:8])
    first, again, other = (jax.jit(augment)(jax.random.key(seed), batch) for seed in (0, 0, 1))
    assert first.image.shape == batch.image.shape and first.image.dtype == jnp.float32
    np.testing.assert_array_equal(first.image, again.image)
    assert (first.image != other.image).any()


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_a_dataset_is_loaded_or_says_what_is_missing(tmp_path, monkeypatch, name):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: (_ for _ in ()).throw(ConnectionError()))
    try:
        data = datasets.load_dataset(name + "nowhere" * name.endswith(":"), str(tmp_path))
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert len(data.train_images) == len(data.train_labels) and len(data.class_names) > 1


ADDED_ROWS = """
import jax, jax.numpy as jnp, numpy as np, optax
from flax import linen as nn
from mnist_jax import augment, datasets, layers, losses, metrics, models, optimizers
from mnist_jax.types import Mean

class Mine(nn.Module):
    @nn.compact
    def __call__(self, image):
        return nn.Dense(10)(nn.relu(nn.Dense(32)(image.reshape(image.shape[0], -1))))

def loss(logits, batch):
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch.label)

def load(name, data_dir):
    images, labels = np.zeros((4, 28, 28), np.uint8), np.arange(4)
    return datasets.make_dataset(images, labels, images, labels, tuple("0123"), name)

models.MODELS["mine"] = lambda config, num_classes: Mine()
losses.LOSSES["mine"] = loss
optimizers.OPTIMIZERS["mine"] = lambda learning_rate: optax.adam(learning_rate)
optimizers.SCHEDULES["mine"] = lambda steps: optax.linear_schedule(1.0, 0.1, steps)
metrics.METRICS["mine"] = lambda logits, batch: Mean.of(logits.max(axis=-1), batch.mask)
augment.AUGMENTATIONS["mine"] = lambda config: lambda key, batch: batch._replace(
    image=batch.image * jax.random.uniform(key, (batch.image.shape[0], 1, 1, 1))
)
layers.ACTIVATIONS["mine"] = jnp.sin
layers.INITIALIZERS["mine"] = jax.nn.initializers.normal(0.02)
datasets.DATASETS["mine"] = load
"""


@pytest.mark.slow
def test_a_row_added_to_each_table_needs_no_other_edit(tmp_path):
    """Runs the tests above over tables with one more row each."""
    (tmp_path / "added_rows.py").write_text(ADDED_ROWS)
    words = [sys.executable, "-m", "pytest", "-p", "added_rows", "-n", "0", "-k", "mine", __file__]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(words, cwd=pathlib.Path(__file__).parents[1], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 13
