"""mnist_jax itself, its pieces compiled as mnist_jax.runner compiles them; with --seeds, many runs in one program."""

import dataclasses
import functools

import jax
import numpy as np
from common import arguments, jax_peak_memory, load, measure

from mnist_jax.config import Config
from mnist_jax.runner import refuse_what_does_not_fit
from mnist_jax.train import evaluate, make_parts, predict, train_epoch

MODELS = {
    "softmax": Config(model="softmax", hidden=()),
    "perceptron": Config(model="perceptron"),
    "cnn": Config(model="cnn", hidden=(128,), dropout=0.2, micro_batch_size=25),
    "deep_cnn": Config(
        model="deep_cnn", hidden=(), filters=(32, 64, 128), norm="batch", optimizer="sgd", learning_rate=0.01
    ),
}


def main():
    args = arguments()
    config = dataclasses.replace(MODELS[args.model], precision=args.precision, batch_size=args.batch_size)
    if args.model == "perceptron":
        config = dataclasses.replace(config, hidden=(args.hidden,))
    images, labels = jax.device_put(load(args))
    device = jax.devices()[0]
    if device.platform != "cpu":
        config = dataclasses.replace(config, micro_batch_size=0)  # it is for a CPU's caches
    parts = make_parts(config, 10, images.shape[1:], 1)
    keys = jax.vmap(jax.random.key)(np.arange(args.seeds))
    init, epoch = parts.init, functools.partial(train_epoch, parts.train_step, batch_size=args.batch_size)
    if args.seeds > 1:
        state, epoch = jax.jit(jax.vmap(init))(keys), jax.vmap(epoch, in_axes=(0, *[None] * 4))
    else:
        state = jax.jit(init)(keys[0])
    steps = 0, -(-len(images) // args.batch_size)  # not known to the compiler, as in mnist_jax.runner
    score = jax.jit(functools.partial(evaluate, parts.eval_step, batch_size=args.batch_size))
    logits = jax.jit(functools.partial(predict, parts.model, batch_size=args.batch_size, dtype=parts.dtype))

    @functools.cache
    def compiled():
        program = jax.jit(epoch, donate_argnums=0).lower(state, images, labels, *steps).compile()
        refuse_what_does_not_fit(program, device, args.batch_size)
        return program

    def train():
        nonlocal state
        state, per_step = compiled()(state, images, labels, *steps)
        jax.block_until_ready((state, per_step))

    once = {
        "train": train,
        "evaluate": lambda: jax.device_get(score(state, images, labels)),
        "predict": lambda: jax.device_get(logits(state, images)),
    }[args.task]
    name, peak = f"{device.platform} {device.device_kind}", functools.partial(jax_peak_memory, device)
    measure(args, args.seeds * len(images), once, {"jax": jax.__version__}, name, peak)


if __name__ == "__main__":
    main()
