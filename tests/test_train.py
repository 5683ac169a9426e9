import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from mnist_jax import metrics
from mnist_jax.checkpoint import restore_state, save_state
from mnist_jax.config import Config
from mnist_jax.evaluation import evaluate, make_eval_step
from mnist_jax.losses import LOSSES
from mnist_jax.models import make_model
from mnist_jax.optimizers import make_optimizer
from mnist_jax.train import init_state, make_train_step, train_epoch
from mnist_jax.types import Batch, Mean

LOSS = LOSSES["sparse_categorical_crossentropy"]
CONFIG = Config(hidden_sizes=(16,))


class Noisy(nn.Module):
    """Dropout and batch norm: a model with hidden randomness and state to lose."""

    @nn.compact
    def __call__(self, image, train, mask=None):
        x = nn.relu(nn.Dense(16)(image.reshape(image.shape[0], -1)))
        x = nn.BatchNorm(use_running_average=not train)(x, mask=None if mask is None else mask[:, None])
        return nn.Dense(10)(nn.Dropout(0.3, deterministic=not train)(x))


@pytest.fixture(scope="module")
def arrays(small):
    return jnp.asarray(small["train_images"][:90, :, :, None]), jnp.asarray(small["train_labels"][:90], jnp.int32)


def setup(arrays, model=None, seed=0):
    model, optimizer = model or make_model(CONFIG, 10), make_optimizer(CONFIG)
    return init_state(model, optimizer, jax.random.key(seed), arrays[0][:1]), make_train_step(model, optimizer, LOSS)


def assert_same(first, second):
    first, second = (tree._replace(key=jax.random.key_data(tree.key)) for tree in (first, second))
    jax.tree.map(np.testing.assert_array_equal, first, second)


def differ(first, second):
    return any(bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, (first.params, second.params)), strict=True))


def test_masked_rows_count_for_nothing(arrays):
    state, step = setup(arrays)
    images, labels = arrays[0][:8], arrays[1][:8]
    complete, seen = step(state, Batch(images, labels, jnp.ones(8, bool)))
    garbage = Batch(jnp.concatenate([images, 255 - images]), jnp.tile(labels, 2), jnp.arange(16) < 8)
    padded, seen_padded = step(state, garbage)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), complete.params, padded.params)
    assert int(seen_padded["loss"].count) == 8 and int(seen["accuracy"].total) == int(seen_padded["accuracy"].total)


def test_step_is_the_textbooks(arrays):
    """One step of SGD on one dense layer, against the gradient written out: x (softmax(xw) - onehot)."""
    model, optimizer = make_model(Config(hidden_sizes=()), 10), optax.sgd(0.5)
    state = init_state(model, optimizer, jax.random.key(0), arrays[0][:1])
    batch = Batch(arrays[0][:20], arrays[1][:20], jnp.ones(20, bool))
    after, _ = make_train_step(model, optimizer, LOSS)(state, batch)
    x = np.asarray(batch.image).reshape(20, -1) / np.float32(255)
    before = state.params["Dense_0"]
    gradient = jax.nn.softmax(x @ before["kernel"] + before["bias"][None]) - np.eye(10)[batch.label]
    np.testing.assert_allclose(
        after.params["Dense_0"]["kernel"], before["kernel"] - 0.5 * x.T @ gradient / 20, atol=1e-6
    )


@pytest.mark.parametrize("size", [1, 8, 10, 30])
def test_microbatches_add_up_to_the_step(arrays, size):
    model, optimizer = make_model(CONFIG, 10), optax.sgd(0.5)
    state = init_state(model, optimizer, jax.random.key(0), arrays[0][:1])
    batch = Batch(arrays[0][:20], arrays[1][:20], jnp.arange(20) < 17)
    steps = (make_train_step(model, optimizer, LOSS, microbatch_size=micro) for micro in (0, size))
    (complete, seen), (added, seen_added) = (step(state, batch) for step in steps)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), complete.params, added.params)
    assert int(seen["loss"].count) == int(seen_added["loss"].count) == 17
    assert int(seen["accuracy"].total) == int(seen_added["accuracy"].total)
    np.testing.assert_allclose(seen["loss"].total, seen_added["loss"].total, rtol=1e-6)


def test_a_microbatch_of_padding_alone_teaches_nothing(arrays):
    model, optimizer = make_model(Config(hidden_sizes=(16,), norm="batch"), 10), optax.sgd(0.5)
    state = init_state(model, optimizer, jax.random.key(0), arrays[0][:1])
    batch = Batch(arrays[0][:20], arrays[1][:20], jnp.arange(20) < 8)
    added, _ = make_train_step(model, optimizer, LOSS, microbatch_size=8)(state, batch)
    alone, _ = make_train_step(model, optimizer, LOSS)(state, jax.tree.map(lambda leaf: leaf[:8], batch))
    for name in ("params", "model_state"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), getattr(added, name), getattr(alone, name)
        )


class Centred(nn.Module):
    """Divides by each image's standard deviation: a uniform image gives NaN, which no mask takes out of a gradient."""

    @nn.compact
    def __call__(self, image, train):
        x = image.reshape(image.shape[0], -1)
        return nn.Dense(10)((x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True))


def test_what_fills_up_a_microbatch_is_a_real_image(arrays):
    optimizer = optax.sgd(0.01)
    state = init_state(Centred(), optimizer, jax.random.key(0), arrays[0][:1])
    batch = Batch(arrays[0][:20], arrays[1][:20], jnp.ones(20, bool))
    steps = (make_train_step(Centred(), optimizer, LOSS, microbatch_size=size) for size in (0, 8))
    complete, added = (step(state, batch)[0].params for step in steps)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), complete, added)


@pytest.mark.slow
def test_microbatches_need_less_memory_and_draw_apart(arrays):
    model = make_model(Config(model="cnn", hidden_sizes=(16,), filters=(8,), dropout=0.5), 10)
    optimizer = optax.sgd(0.5)
    state = init_state(model, optimizer, jax.random.key(0), arrays[0][:1])
    twice = Batch(jnp.tile(arrays[0][:1], (90, 1, 1, 1)), arrays[1][:90] * 0, jnp.ones(90, bool))
    bytes_needed, losses = [], []
    for size in (0, 10, 1):
        step = jax.jit(make_train_step(model, optimizer, LOSS, microbatch_size=size)).lower(state, twice).compile()
        bytes_needed.append(step.memory_analysis().temp_size_in_bytes)
        losses.append(float(step(state, twice)[1]["loss"].total))
    assert bytes_needed[1] < bytes_needed[0] / 3
    same = make_train_step(model, optimizer, LOSS, microbatch_size=1)
    one = same(state, jax.tree.map(lambda leaf: leaf[:1], twice))[1]["loss"].total
    assert abs(losses[2] - 90 * float(one)) > 1e-3  # were each micro-batch's draw the same, it would be equal


@pytest.mark.parametrize("model", [None, Noisy()], ids=["perceptron", "noisy"])
def test_four_epochs_equal_two_saved_restored_and_two(tmp_path, arrays, model):
    state, step = setup(arrays, model)
    epoch = jax.jit(lambda state: train_epoch(step, state, *arrays, batch_size=40)[0])
    through = epoch(epoch(epoch(epoch(state))))
    save_state(tmp_path / "state", epoch(epoch(state)))
    assert_same(through, epoch(epoch(restore_state(tmp_path / "state", state))))
    assert int(through.step) == 12


@pytest.mark.parametrize("cuts", [(0, 1, 2, 3), (0, 2, 3), (0, 1, 3)])
def test_an_epoch_in_pieces_gives_the_bits_of_the_complete_one(arrays, cuts):
    state, step = setup(arrays, Noisy())
    piece = jax.jit(
        lambda state, start_step, end_step: train_epoch(step, state, *arrays, start_step, end_step, batch_size=40)
    )
    complete, per_step = piece(piece(state, 0, 3)[0], 0, 3)
    state, summed = piece(state, 0, 3)[0], 0
    for start_step, end_step in itertools.pairwise(cuts):
        state, some = piece(state, start_step, end_step)
        summed = np.add(summed, some["loss"].total)
    assert_same(state, complete)
    np.testing.assert_array_equal(summed, per_step["loss"].total)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_that_is_not_finite_is_skipped(arrays, bad):
    state, _ = setup(arrays)
    model, optimizer = make_model(CONFIG, 10), make_optimizer(CONFIG)

    def loss(logits, batch):
        return LOSS(logits, batch) + jnp.where(batch.label == 10, bad, 0)

    step = make_train_step(model, optimizer, loss, skip_nonfinite=True)
    good = Batch(arrays[0][:8], arrays[1][:8], jnp.ones(8, bool))
    after, measured = step(state, good._replace(label=good.label.at[3].set(10)))
    assert all(float(part) == 0 for mean in measured.values() for part in mean) and int(after.step) == 1
    assert_same(after._replace(step=state.step), state)
    after, measured = step(state, good)
    assert int(measured["loss"].count) == 8 and differ(after, state)


def test_same_seed_same_bits_other_seed_other_bits(arrays):
    results = []
    for seed in (0, 0, 1):
        state, step = setup(arrays, Noisy(), seed)
        results.append(jax.jit(lambda state, step=step: train_epoch(step, state, *arrays, batch_size=40)[0])(state))
    assert_same(results[0], results[1])
    assert differ(results[0], results[2])


def test_dropout_and_order_change_from_step_to_step(arrays):
    state, step = setup(arrays, Noisy())
    batch = Batch(*(array[:8] for array in arrays))
    assert differ(step(state, batch)[0], step(state._replace(step=state.step + 1), batch)[0])
    first = train_epoch(step, state, *arrays, batch_size=40)[1]
    second = train_epoch(step, state._replace(step=state.step + 3), *arrays, batch_size=40)[1]
    assert float(first["loss"].total[0]) != float(second["loss"].total[0])


def test_epoch_counts_every_image_once_and_compiles_once(arrays):
    state, step = setup(arrays)
    traces = []

    def epoch(state):
        traces.append(1)
        return train_epoch(step, state, *arrays, batch_size=40)

    epoch = jax.jit(epoch)
    for _ in range(3):
        state, per_step = epoch(state)
    np.testing.assert_array_equal(per_step["loss"].count, [40, 40, 10])
    assert len(traces) == 1, "a run must compile its epoch once: something in the state changes type or shape"


@pytest.mark.parametrize("batch_size", [1, 7, 90, 1000])
def test_evaluate_does_not_depend_on_the_batch_size(arrays, batch_size):
    state, _ = setup(arrays)
    got = evaluate(make_eval_step(make_model(CONFIG, 10), LOSS), state, *arrays, batch_size)
    logits = make_model(CONFIG, 10).apply({"params": state.params}, arrays[0] / np.float32(255))
    assert int(got["loss"].count) == 90 and int(got["accuracy"].total) == int((logits.argmax(-1) == arrays[1]).sum())
    assert metrics.compute(got)["loss"] == pytest.approx(float(LOSS(logits, Batch(*arrays)).mean()), rel=1e-5)


def test_runs_over_seeds_and_rates_are_one_vmap(arrays):
    def run(key, rate):
        optimizer = make_optimizer(CONFIG.replace_traced({"learning_rate": rate}))
        model = make_model(CONFIG, 10)
        step = make_train_step(model, optimizer, LOSS)
        return train_epoch(step, init_state(model, optimizer, key, arrays[0][:1]), *arrays, batch_size=40)[0]

    keys, rates = jax.vmap(jax.random.key)(jnp.arange(2)), jnp.array([1e-3, 1e-2])
    grid = jax.jit(jax.vmap(run))(keys, rates)
    alone = run(keys[1], rates[1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, atol=1e-4), grid.params, alone.params)


def test_nothing_counted_is_not_a_number():
    assert np.isnan(metrics.compute({"loss": Mean(0.0, 0), "accuracy": Mean(0, 0)})["accuracy"])


def test_the_last_steps_see_images_as_they_are(arrays):
    """Against steps of both kinds, one after the other."""
    model, optimizer = make_model(CONFIG, 10), make_optimizer(CONFIG)
    state = init_state(model, optimizer, jax.random.key(0), arrays[0][:1])
    batch = Batch(*(array[:20] for array in arrays))

    def augment(key, batch):
        return batch._replace(image=batch.image * jax.random.uniform(key, (20, 1, 1, 1)))

    both, with_augment, without = (
        jax.jit(make_train_step(model, optimizer, LOSS, **options))
        for options in ({"augment": augment, "augment_steps": 2}, {"augment": augment}, {})
    )
    expected = found = state
    for step in with_augment, with_augment, without, without:
        expected, found = step(expected, batch)[0], both(found, batch)[0]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found.params, expected.params)
    assert differ(without(expected, batch)[0], with_augment(expected, batch)[0])


def test_a_teachers_probabilities_are_the_labels_of_what_the_student_sees(arrays):
    model, optimizer = make_model(CONFIG, 10), make_optimizer(CONFIG)
    loss = LOSSES["categorical_crossentropy"]
    state = init_state(model, optimizer, jax.random.key(0), arrays[0][:1])
    batch = Batch(*(array[:20] for array in arrays))

    def augment(key, batch):
        return batch._replace(image=batch.image * jax.random.uniform(key, (20, 1, 1, 1)))

    def teacher(image):
        return 9 * image[:, 10, 5:15, 0]

    def label(key, batch):
        batch = augment(key, batch)
        return batch._replace(label=jax.nn.softmax(teacher(batch.image)))

    taught = make_train_step(model, optimizer, loss, augment=augment, augment_steps=1, teacher=teacher)
    labeled = make_train_step(model, optimizer, loss, augment=label)
    expected, found = labeled(state, batch)[0], taught(state, batch)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found.params, expected.params)
    plain = batch._replace(label=jax.nn.softmax(teacher(batch.image.astype(jnp.float32) / 255)))
    expected, found = make_train_step(model, optimizer, loss)(found, plain)[0], taught(found, batch)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found.params, expected.params)


def test_labels_that_augmentation_makes_soft_are_one_hot_where_it_ends(arrays):
    model, optimizer = make_model(CONFIG, 10), make_optimizer(CONFIG)
    loss = LOSSES["categorical_crossentropy"]
    state = init_state(model, optimizer, jax.random.key(0), arrays[0][:1])
    batch = Batch(*(array[:20] for array in arrays))

    def mix(key, batch):
        soft = jax.nn.one_hot(batch.label, 10)
        return batch._replace(label=(soft + soft[::-1]) / 2)

    mixed = jax.jit(make_train_step(model, optimizer, loss, augment=mix, augment_steps=1))
    as_it_is = jax.jit(make_train_step(model, optimizer, loss))
    first = mixed(state, batch)[0]
    assert differ(first, as_it_is(state, batch)[0])
    expected, found = as_it_is(first, batch)[0], mixed(first, batch)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found.params, expected.params)
