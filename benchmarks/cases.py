"""What is compared: the implementations, and the models with their batch sizes and FLOPs."""

from collections.abc import Mapping
from typing import NamedTuple


class Case(NamedTuple):
    """One comparison."""

    model: str
    dtype: str
    task: str
    batch_size: int


class Implementation(NamedTuple):
    """A program in benchmarks/baselines and how to run it."""

    program: str
    variant: str = ""
    env: Mapping[str, str] = {}
    models: tuple[str, ...] = ()  # on which the variant makes a difference; empty for all


MNIST_JAX = "mnist_jax"
KERAS_TF_ENV = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
IMPLEMENTATIONS = {
    MNIST_JAX: Implementation("mnist_jax_loop.py"),
    "flax_plain": Implementation("flax_plain.py"),
    "torch": Implementation("torch_loop.py"),
    "torch_channels_last": Implementation("torch_loop.py", "channels_last", models=("cnn", "deep_cnn")),
    "torch_compile": Implementation("torch_loop.py", "compile"),
    "torch_cuda_graphs": Implementation("torch_loop.py", "cuda_graphs"),
    "keras_tf": Implementation("keras_fit.py", env=KERAS_TF_ENV),
    "keras_jax": Implementation("keras_fit.py", env={"KERAS_BACKEND": "jax"}),
}
TORCH = ("torch", "torch_channels_last", "torch_compile", "torch_cuda_graphs")
KERAS = ("keras_tf", "keras_jax")

BATCH_SIZES = {"softmax": 200, "perceptron": 200, "cnn": 200, "deep_cnn": 128}  # of the recipes
# (positions, kernel size) of each matmul: 2 * positions * kernel size FLOPs in the forward pass of one image
MATMULS = {
    "softmax": [(1, 784 * 10)],
    "perceptron": [(1, 784 * 784), (1, 784 * 10)],
    "cnn": [(24 * 24, 5 * 5 * 1 * 32), (1, 12 * 12 * 32 * 128), (1, 128 * 10)],
    "deep_cnn": [
        (28 * 28, 5 * 5 * 1 * 32),
        (14 * 14, 3 * 3 * 32 * 64),
        (14 * 14, 3 * 3 * 64 * 64),
        (7 * 7, 3 * 3 * 64 * 128),
        (7 * 7, 3 * 3 * 128 * 128),
        (1, 7 * 7 * 128 * 10),
    ],
}


def flops_per_image(model: str, task: str) -> int:
    """Counts the FLOPs of the matmuls; activations, normalization and the optimizer are not included.

    The backward pass needs two matmuls for each one of the forward pass, for the gradients of the kernel and of the
    input; the first layer needs no gradient of its input.

    Args:
      model: name in MATMULS.
      task: train, evaluate or predict.

    Returns:
      FLOPs per image.

    >>> flops_per_image("softmax", "predict")
    15680
    """
    forward = [2 * positions * kernel_size for positions, kernel_size in MATMULS[model]]
    return 3 * sum(forward) - forward[0] if task == "train" else sum(forward)
