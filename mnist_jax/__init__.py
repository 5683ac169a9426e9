"""MNIST in JAX: pure train steps, explicit keys, honest numbers.

Importing this package does nothing and loads nothing heavy: a name is loaded when it is first used.

>>> import mnist_jax
>>> sorted(mnist_jax.__all__)[:3]
['Batch', 'Config', 'Dataset']
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "Batch": "types",
    "Config": "config",
    "Dataset": "types",
    "Hyperparams": "types",
    "Metrics": "types",
    "MnistJaxError": "errors",
    "TrainState": "types",
    "compute": "metrics",
    "evaluate": "train",
    "init_state": "train",
    "load_dataset": "data",
    "make_eval_step": "train",
    "make_model": "models",
    "make_optimizer": "optimizers",
    "make_train_step": "train",
    "merge": "metrics",
    "split_validation": "data",
    "train_epoch": "train",
}
__all__ = list(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'mnist_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mnist_jax.{_HOMES[name]}"), name)


def __dir__():
    return sorted([*globals(), *_HOMES])
