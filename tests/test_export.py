"""Every network lowers for platforms that are not here, and exports with a free batch dimension."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mark_slow

from mnist_jax.evaluation import evaluate
from mnist_jax.experiment import Experiment
from mnist_jax.models import MODELS
from mnist_jax.train import train_epoch

SIZES = {"filters": (16, 16), "hidden_sizes": (16,), "norm": "batch", "dropout": 0.1, "rotation": 5.0}
IMAGE = jax.ShapeDtypeStruct((28, 28, 1), jnp.uint8)


def build(model, **fields):
    fields = SIZES | ({"dropout": 0.0} if model == "softmax" else {}) | fields  # it has no layer to drop from
    return Experiment(model=model, **fields).build(steps=6, num_classes=10, image=IMAGE)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", MODELS)
def test_training_and_evaluation_lower_for_cuda_and_tpu(model, dtype):
    components = build(model, dtype=dtype)
    data = jax.ShapeDtypeStruct((60, 28, 28, 1), jnp.uint8), jax.ShapeDtypeStruct((60,), jnp.int32)

    def epoch(key, images, labels):
        state, _ = train_epoch(components.train_step, components.init(key), images, labels, batch_size=25)
        return state.params, evaluate(components.eval_step, state, images, labels, batch_size=25)

    raw_key = jax.ShapeDtypeStruct((2,), jnp.uint32)
    program = jax.jit(lambda raw, *data: epoch(jax.random.wrap_key_data(raw), *data))
    exported = jax.export.export(program, platforms=["cuda", "tpu"])(raw_key, *data)
    assert exported.platforms == ("cuda", "tpu") and "func.func public @main" in exported.mlir_module()


@pytest.mark.parametrize("model", mark_slow(MODELS, fast=["perceptron", "cnn"]))
def test_a_network_exports_with_a_free_batch_dimension(model, small):
    components = build(model, dropout=0.0)
    state = components.init(jax.random.key(0))
    variables = {"params": state.params, **state.model_state}

    def forward(image):
        return components.model.apply(variables, image, train=False, rngs=None, mask=None)[0]

    (batch,) = jax.export.symbolic_shape("batch")
    free = jax.ShapeDtypeStruct((batch, 28, 28, 1), jnp.float32)
    exported = jax.export.export(jax.jit(forward))(free)
    for count in (1, 7):
        image = jnp.asarray(small["test_images"][:count, :, :, None], jnp.float32) / 255
        np.testing.assert_allclose(exported.call(image), forward(image), rtol=1e-4, atol=1e-5)
