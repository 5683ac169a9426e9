"""mnist_jax, compiled as mnist_jax.runner compiles it; with --seeds, several runs in one program."""

import dataclasses
import functools

import jax
import numpy as np
from common import jax_peak_memory_bytes, load_data, measure, parse_args

from mnist_jax.config import Config
from mnist_jax.devices import check_memory
from mnist_jax.evaluation import evaluate, predict
from mnist_jax.experiment import Experiment
from mnist_jax.train import train_epoch

CONFIGS = {
    "softmax": Config(model="softmax", hidden_sizes=()),
    "perceptron": Config(model="perceptron"),
    "cnn": Config(model="cnn", hidden_sizes=(128,), dropout=0.2, microbatch_size=25),
    "deep_cnn": Config(
        model="deep_cnn", hidden_sizes=(), filters=(32, 64, 128), norm="batch", optimizer="sgd", learning_rate=0.01
    ),
}


def main() -> None:
    args = parse_args()
    config = dataclasses.replace(CONFIGS[args.model], dtype=args.dtype, batch_size=args.batch_size)
    if args.model == "perceptron":
        config = dataclasses.replace(config, hidden_sizes=(args.hidden_size,))
    images, labels = jax.device_put(load_data(args))
    device = jax.devices()[0]
    if device.platform != "cpu":
        config = dataclasses.replace(config, microbatch_size=0)  # microbatches are for a CPU's caches
    image = jax.ShapeDtypeStruct(images.shape[1:], images.dtype)
    components = Experiment(config=config).build(steps=1, num_classes=10, image=image)
    keys = jax.vmap(jax.random.key)(np.arange(args.seeds))
    init, epoch = components.init, functools.partial(train_epoch, components.train_step, batch_size=args.batch_size)
    if args.seeds > 1:
        state, epoch = jax.jit(jax.vmap(init))(keys), jax.vmap(epoch, in_axes=(0, *[None] * 4))
    else:
        state = jax.jit(init)(keys[0])
    bounds = 0, -(-len(images) // args.batch_size)  # traced, as in mnist_jax.runner
    evaluate_all = jax.jit(functools.partial(evaluate, components.eval_step, batch_size=args.batch_size))
    dtype = jax.numpy.dtype(args.dtype)
    predict_all = jax.jit(functools.partial(predict, components.model, batch_size=args.batch_size, dtype=dtype))

    @functools.cache
    def compile_epoch():
        program = jax.jit(epoch, donate_argnums=0).lower(state, images, labels, *bounds).compile()
        check_memory(program, device, args.batch_size)
        return program

    def train():
        nonlocal state
        state, metrics = compile_epoch()(state, images, labels, *bounds)
        jax.block_until_ready((state, metrics))

    run_pass = {
        "train": train,
        "evaluate": lambda: jax.device_get(evaluate_all(state, images, labels)),
        "predict": lambda: jax.device_get(predict_all(state, images)),
    }[args.task]
    name, get_peak_memory = f"{device.platform} {device.device_kind}", functools.partial(jax_peak_memory_bytes, device)
    measure(args, args.seeds * len(images), run_pass, {"jax": jax.__version__}, name, get_peak_memory)


if __name__ == "__main__":
    main()
