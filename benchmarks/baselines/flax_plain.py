"""Plain JAX in the style of flax's MNIST example: nn.Conv, nn.max_pool, and a Python loop over a jitted step.

Source: https://github.com/google/flax/tree/main/examples/mnist.
"""

import functools
from collections.abc import Callable

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import jax_peak_memory_bytes, load_data, measure, parse_args
from flax import linen as nn


class Classifier(nn.Module):
    model: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        conv = functools.partial(nn.Conv, dtype=self.dtype)
        if self.model == "perceptron":
            x = nn.relu(dense(784)(x.reshape(len(x), -1)))
        elif self.model == "cnn":
            x = nn.max_pool(nn.relu(conv(32, (5, 5), padding="VALID")(x)), (2, 2), (2, 2))
            x = nn.Dropout(0.2, deterministic=not train)(x)
            x = nn.relu(dense(128)(x.reshape(len(x), -1)))
        elif self.model == "deep_cnn":
            for stage, filters in enumerate((32, 64, 128)):
                x = nn.max_pool(x, (2, 2), (2, 2)) if stage else x
                for _ in range(2 if stage else 1):
                    x = conv(filters, (3, 3) if stage else (5, 5))(x)
                    x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(x))
        elif self.model == "example":
            x = nn.avg_pool(nn.relu(conv(32, (3, 3))(x)), (2, 2), (2, 2))
            x = nn.avg_pool(nn.relu(conv(64, (3, 3))(x)), (2, 2), (2, 2))
            x = nn.relu(dense(256)(x.reshape(len(x), -1)))
        return dense(10)(x.reshape(len(x), -1)).astype(jnp.float32)


def make_steps(model: nn.Module, optimizer: optax.GradientTransformation) -> tuple[Callable, Callable]:
    """Returns the jitted train step and the jitted function from images to logits."""

    @jax.jit
    def step(params, variables, opt_state, key, x, y):
        def loss(params):
            rngs = {"dropout": key}
            logits, new = model.apply({"params": params, **variables}, x, True, rngs=rngs, mutable=list(variables))
            return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean(), (logits, dict(new))

        (value, (logits, new)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), new, opt_state, value, (logits.argmax(-1) == y).mean()

    @jax.jit
    def predict(params, variables, x):
        return model.apply({"params": params, **variables}, x, False)

    return step, predict


def main() -> None:
    args = parse_args()
    images, labels = load_data(args)
    images = jnp.asarray(images.astype(np.float32) / 255)
    labels = jnp.asarray(labels)
    model = Classifier(args.model, jnp.dtype(args.dtype))
    variables = dict(model.init(jax.random.key(0), images[:1], False))
    params = variables.pop("params")
    optimizer = {"deep_cnn": optax.sgd(0.01), "example": optax.sgd(0.1, 0.9)}.get(args.model, optax.adam(1e-3))
    opt_state, step_count = optimizer.init(params), 0

    step, predict = make_steps(model, optimizer)
    rng = np.random.default_rng(0)
    batch_size, count = args.batch_size, len(images)
    num_train = count // batch_size * batch_size

    def train():
        nonlocal params, variables, opt_state, step_count
        for index in rng.permutation(count)[:num_train].reshape(-1, batch_size):
            key = jax.random.fold_in(jax.random.key(1), step_count)
            params, variables, opt_state, *_ = step(params, variables, opt_state, key, images[index], labels[index])
            step_count += 1
        jax.block_until_ready(params)

    def batches():
        return (slice(start, start + batch_size) for start in range(0, count, batch_size))

    def evaluate():
        return sum(int((predict(params, variables, images[b]).argmax(-1) == labels[b]).sum()) for b in batches())

    run_pass = {
        "train": train,
        "evaluate": evaluate,
        "predict": lambda: [np.asarray(predict(params, variables, images[b])) for b in batches()],
    }[args.task]
    device = jax.devices()[0]
    versions = {"jax": jax.__version__, "flax": flax.__version__}
    name, get_peak_memory = f"{device.platform} {device.device_kind}", functools.partial(jax_peak_memory_bytes, device)
    measure(args, num_train if args.task == "train" else count, run_pass, versions, name, get_peak_memory)


if __name__ == "__main__":
    main()
