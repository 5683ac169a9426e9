"""What training needs of a model, two pure functions, and how a module of Linen, NNX, Haiku or Equinox becomes them."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
from flax import linen as nn
from flax import nnx

from mnist_jax.errors import ArgumentError
from mnist_jax.types import Outputs, PyTree

AnyModel: TypeAlias = Any  # a Model or a Linen module; as_model checks it
Rngs: TypeAlias = dict[str, jax.Array]  # from a stream's name to its key


class Apply(Protocol):
    """Runs a model."""

    def __call__(
        self, variables: PyTree, image: jax.Array, *, train: bool, rngs: Rngs | None, mask: jax.Array | None
    ) -> tuple[Outputs, PyTree]:
        """Returns (logits, model_state): [B, K], or a tuple that begins with it; and the state after the batch."""


class Model(NamedTuple):
    """A model as pure functions; `variables` is {"params": ..., **model_state}."""

    init: Callable[[jax.Array, jax.Array], dict[str, PyTree]]  # (key, image [B, H, W, C]) -> variables
    apply: Apply
    takes_mask: bool = False  # whether batch statistics leave masked rows out
    tabulate: Callable[[jax.Array], str] | None = None  # image [B, H, W, C] -> a table of layers, shapes and parameters


def from_linen(module: nn.Module) -> Model:
    """Adapts a Linen module, whose __call__ may have `train` and `mask` arguments, and may return auxiliary outputs.

    Args:
      module: called as module(image, train=..., mask=...), with those of the two that it has. Of its rng streams
        "dropout" has a key of its own; all others derive from one key.

    Returns:
      The model.
    """
    accepted = inspect.signature(type(module).__call__).parameters
    with_train = "train" in accepted

    def init(key: jax.Array, image: jax.Array) -> dict[str, PyTree]:
        options: dict[str, Any] = {"train": False} if with_train else {}
        return dict(module.init({"params": key}, image, **options))

    def apply(
        variables: PyTree, image: jax.Array, *, train: bool, rngs: Rngs | None, mask: jax.Array | None
    ) -> tuple[Outputs, PyTree]:
        options: dict[str, Any] = {"train": train} if with_train else {}
        if "mask" in accepted and train:
            options["mask"] = mask
        mutable = [name for name in variables if name != "params"] if train else False
        result = module.apply(variables, image, rngs=rngs, mutable=mutable, **options)
        if not train:
            return result, {name: leaf for name, leaf in variables.items() if name != "params"}
        logits, model_state = result
        return logits, dict(model_state)

    def tabulate(image: jax.Array) -> str:
        options: dict[str, Any] = {"train": False} if with_train else {}
        console: dict[str, Any] = {"width": 120, "force_terminal": False}
        return module.tabulate(jax.random.key(0), image, console_kwargs=console, **options)

    return Model(init, apply, "mask" in accepted, tabulate)


def from_nnx(make: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """Adapts an NNX module; `train` switches module.train() and module.eval().

    Args:
      make: rngs -> module, which is called as module(image); it must not close over arrays of its own.

    Returns:
      The model; whatever is neither an nnx.Param nor the state of a random stream is its model state.
    """

    def split(module: nnx.Module) -> tuple[Any, PyTree, PyTree, PyTree]:
        parts: Any = nnx.split(module, nnx.Param, nnx.RngState, ...)
        return parts

    def init(key: jax.Array, image: jax.Array) -> dict[str, PyTree]:
        _, params, _, state = split(make(nnx.Rngs(key)))
        return {"params": nnx.to_pure_dict(params), "state": nnx.to_pure_dict(state)}

    def apply(
        variables: PyTree, image: jax.Array, *, train: bool, rngs: Rngs | None, mask: jax.Array | None
    ) -> tuple[Outputs, PyTree]:
        module = make(nnx.Rngs(**(rngs or {"default": jax.random.key(0)})))
        graph, params, streams, state = split(module)
        nnx.replace_by_pure_dict(params, variables["params"])
        nnx.replace_by_pure_dict(state, variables["state"])
        module = nnx.merge(graph, params, streams, state)
        (module.train if train else module.eval)()
        logits = module(image)
        return logits, {"state": nnx.to_pure_dict(split(module)[3])}

    return Model(init, apply, tabulate=lambda image: nnx.tabulate(make(nnx.Rngs(0)), image))


def from_haiku(transformed: Any) -> Model:
    """Adapts what hk.transform_with_state returns.

    Args:
      transformed: its function is called as function(image, train).

    Returns:
      The model.
    """

    def init(key: jax.Array, image: jax.Array) -> dict[str, PyTree]:
        params, state = transformed.init(key, image, True)  # only then its averages start
        return {"params": params, "state": state}

    def apply(
        variables: PyTree, image: jax.Array, *, train: bool, rngs: Rngs | None, mask: jax.Array | None
    ) -> tuple[Outputs, PyTree]:
        key = rngs["dropout"] if rngs else None
        logits, state = transformed.apply(variables["params"], variables["state"], key, image, train)
        return logits, {"state": state}

    return Model(init, apply)


def from_equinox(make: Callable[[jax.Array], Any]) -> Model:
    """Adapts a stateless Equinox module, mapped over the batch.

    Args:
      make: key -> module, which is called as module(image [H, W, C], key=..., inference=...).

    Returns:
      The model.
    """
    import equinox as eqx

    def init(key: jax.Array, image: jax.Array) -> dict[str, PyTree]:
        return {"params": eqx.filter(make(key), eqx.is_inexact_array)}

    def apply(
        variables: PyTree, image: jax.Array, *, train: bool, rngs: Rngs | None, mask: jax.Array | None
    ) -> tuple[Outputs, PyTree]:
        rest = eqx.filter(make(jax.random.key(0)), eqx.is_inexact_array, inverse=True)
        module = eqx.combine(variables["params"], rest)
        keys = jax.random.split(rngs["dropout"] if rngs else jax.random.key(0), image.shape[0])
        return jax.vmap(lambda image, key: module(image, key=key, inference=not train))(image, keys), {}

    return Model(init, apply)


def as_model(model: AnyModel) -> Model:
    """Adapts a model where that is needed.

    Args:
      model: a Model, or a Linen module.

    Returns:
      The Model.

    Raises:
      ArgumentError: another type.
    """
    if isinstance(model, Model):
        return model
    if isinstance(model, nn.Module):
        return from_linen(model)
    raise ArgumentError(
        f"model: a {type(model).__name__} is neither a Linen module nor a Model; adapt other modules by from_nnx, "
        "from_haiku or from_equinox of mnist_jax.adapters"
    )
