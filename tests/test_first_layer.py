"""Which layer sees the pixels, in networks of every kind; kernels have 64 rows, as many as the images have pixels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import mnist_jax as mj
from mnist_jax.adapters import as_model
from mnist_jax.config import Config
from mnist_jax.first_layer import find_first_layer
from mnist_jax.models import MODELS, make_model

SHAPE = (8, 8, 1)


def find(model, shape=SHAPE):
    """The layer that is found, and the parameters: none is 0, as after training."""
    model = as_model(model)
    variables = model.init(jax.random.key(0), jnp.zeros((1, *shape)))
    leaves, structure = jax.tree.flatten(variables["params"])
    rng = np.random.default_rng(0)
    leaves = [np.asarray(leaf) + rng.normal(0, 0.1, leaf.shape).astype(np.float32) for leaf in leaves]

    @jax.jit
    def predict(params, images):
        return model.apply(variables | {"params": params}, images, train=False, rngs=None, mask=None)[0]

    params = jax.tree.unflatten(structure, leaves)
    return find_first_layer(predict, params, shape), params


FOUND = {"softmax": "Dense_0", "perceptron": "Dense_0", "cnn": "Conv_0", "deep_cnn": "Conv_0", "rnn": None, "vit": None}
CONFIG = Config(hidden_sizes=(64, 64), filters=(3,), kernel_size=3)
CASES = [(name, CONFIG) for name in MODELS]
CASES += [(name, dataclasses.replace(CONFIG, norm=norm)) for name in MODELS for norm in ("batch", "layer")]
CASES += [("rnn", dataclasses.replace(CONFIG, cell="gru")), ("vit", dataclasses.replace(CONFIG, tokens="intensity"))]
CASES += [(name, dataclasses.replace(CONFIG, activation="tanh")) for name in ("perceptron", "cnn")]


@pytest.mark.parametrize(("name", "config"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_layer_is_found_where_it_sees_the_pixels(name, config):
    layer, params = find(make_model(dataclasses.replace(config, model=name), 10))
    if FOUND[name] is None:
        assert layer is None
        return
    kernel = params[FOUND[name]]["kernel"]
    weights = np.moveaxis(kernel.reshape(8, 8, -1) if FOUND[name] == "Dense_0" else kernel[:, :, 0], -1, 0)
    assert layer.is_output == (name == "softmax")
    if layer.is_output:
        np.testing.assert_array_equal(layer.weights, weights)
    else:
        norms = np.linalg.norm(layer.weights, axis=(1, 2))
        assert (np.diff(norms) <= 0).all()
        np.testing.assert_array_equal(np.sort(layer.weights, axis=0), np.sort(weights, axis=0))


class Own(nn.Module):
    """A layer of pixels in a network of one's own, after `before` and with a path of pixels around it if `beside`."""

    before: object
    beside: bool = False

    @nn.compact
    def __call__(self, image):
        x = self.before(image).reshape(image.shape[0], -1)
        y = nn.relu(nn.Dense(64, name="named_otherwise")(x))
        return nn.Dense(10)(y + x if self.beside else y)


@pytest.mark.parametrize(
    ("module", "is_found"),
    [
        (Own(lambda image: image), True),
        (Own(lambda image: image, beside=True), False),
        (Own(jnp.sin), False),
        (Own(lambda image: image.swapaxes(1, 2)), False),
        (Own(lambda image: image[:, ::-1]), False),
    ],
    ids=["pixels", "other ways", "not pixels", "transposed", "flipped"],
)
def test_own_modules_are_judged_by_what_they_compute(module, is_found):
    layer, params = find(module)
    assert (layer is not None) == is_found
    if is_found:
        kernel = params["named_otherwise"]["kernel"]
        np.testing.assert_allclose(sorted(layer.weights.sum((1, 2))), sorted(kernel.sum(0)), atol=1e-5)


def test_colors_have_no_filters():
    assert find(Own(lambda image: image), (8, 8, 3))[0] is None
    assert find(Own(lambda image: image), (8, 4, 2))[0] is None


class Network(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.out = nnx.Linear(64, 64, rngs=rngs), nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, image):
        return self.out(jax.nn.relu(self.hidden(image.reshape(image.shape[0], -1))))


def haiku_model():
    hk = pytest.importorskip("haiku")
    layers = [hk.Flatten, lambda: hk.Linear(64), lambda: jax.nn.relu, lambda: hk.Linear(10)]
    return mj.from_haiku(
        hk.transform_with_state(lambda image, train: hk.Sequential([make() for make in layers])(image))
    )


def equinox_model():
    eqx = pytest.importorskip("equinox")

    class MLP(eqx.Module):
        layers: eqx.nn.MLP

        def __init__(self, key):
            self.layers = eqx.nn.MLP(64, 10, 64, 1, key=key)

        def __call__(self, image, *, key, inference):
            return self.layers(image.ravel())

    return mj.from_equinox(MLP)


@pytest.mark.parametrize(
    ("make", "is_found"),
    [(lambda: mj.from_nnx(Network), True), (haiku_model, True), (equinox_model, False)],
    ids=["nnx", "haiku", "equinox"],
)
def test_modules_of_other_libraries(make, is_found):
    layer, params = find(make())  # Equinox's kernels are [units, pixels], which are left alone
    assert (layer is not None) == is_found
    if is_found:
        assert any(np.isin(layer.weights, leaf).all() for leaf in jax.tree.leaves(params))
