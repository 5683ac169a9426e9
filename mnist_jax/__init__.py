"""MNIST in JAX: pure train steps, explicit keys, reproducible numbers.

Importing this package does nothing and loads nothing heavy: a name is loaded when it is first used.

>>> import mnist_jax as mj
>>> sorted(mj.__all__)[:3]
['Batch', 'Components', 'Config']
"""

import importlib
from typing import Any

__version__ = "0.2.0"

_MODULES = {
    "adapters": ("Model", "from_equinox", "from_haiku", "from_linen", "from_nnx"),
    "batches": ("split_validation",),
    "checkpoint": ("restore_state", "save_state"),
    "cli": ("main",),
    "config": ("Config", "Hyperparams"),
    "datasets": ("load_dataset", "make_dataset"),
    "distillation": ("DistilledConfig", "distill"),
    "errors": ("ConfigError", "MnistJaxError"),
    "evaluation": ("averaged", "evaluate", "make_eval_step", "predict"),
    "experiment": ("Components", "Experiment"),
    "fields": ("flag_field",),
    "gradients": ("make_grad_fn",),
    "loaded_run": ("load_ensemble", "load_run"),
    "losses": ("make_loss",),
    "metrics": ("compute", "sum_over_steps"),
    "models": ("make_model",),
    "optimizers": ("make_optimizer",),
    "runner": ("run",),
    "sweeps.pure": ("make_run",),
    "sweeps.sweep": ("sweep",),
    "train": ("init_state", "make_train_step", "train_epoch"),
    "types": ("Batch", "Dataset", "Mean", "TrainState"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'mnist_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mnist_jax.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
