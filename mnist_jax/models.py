"""Flax Linen modules, and MODELS, the table from a name to a function that makes one of a configuration.

Every module is called as (image, train, mask): image [B, H, W, C] float32, in [0, 1]; train says whether dropout drops
and batch norm learns; mask [B] bool, or None for all, says which rows batch norm may learn from. It returns
[B, num_classes] float32 logits.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from mnist_jax.adapters import AnyModel
from mnist_jax.config import Config
from mnist_jax.errors import ArgumentError, ConfigError, get_entry
from mnist_jax.fields import is_on
from mnist_jax.kernels import conv2d, dropout, max_pool
from mnist_jax.layers import ACTIVATIONS, INITIALIZERS, BatchNorm
from mnist_jax.matmul import dot_general, no_dtype_promotion

MakeModel: TypeAlias = Callable[[Config, int], AnyModel]
CELLS = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}


class BaseClassifier(nn.Module):
    """What all networks share: the options of their hidden layers.

    Attributes:
      num_classes: number of outputs.
      hidden_sizes: units of each hidden layer.
      activation: function after each hidden layer.
      kernel_init: initializer of every kernel.
      norm: "none", "batch" or "layer", applied before each activation.
      dropout: fraction of activations dropped in training.
    """

    num_classes: int = 10
    hidden_sizes: Sequence[int] = ()
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    kernel_init: Callable[..., jax.Array] = nn.initializers.glorot_uniform()
    norm: str = "none"
    dropout: float | jax.Array = 0.0

    @nn.nowrap
    def norm_act(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """Normalizes, then activates."""
        if self.norm == "batch":
            mask = None if mask is None else mask.reshape(-1, *[1] * (x.ndim - 1))
            x = BatchNorm()(x, train, mask)
        elif self.norm == "layer":
            x = nn.LayerNorm()(x)
        return self.activation(x)

    @nn.nowrap
    def dropout_layer(self, x: jax.Array, train: bool) -> jax.Array:
        """Drops activations in training (N. Srivastava et al., Dropout, JMLR 2014)."""
        return dropout(self.make_rng("dropout"), x, self.dropout) if train and is_on(self.dropout) else x

    @nn.nowrap
    def conv(self, x: jax.Array, filters: int, size: int, padding: str) -> jax.Array:
        """Convolves with square kernels."""
        fast: dict[str, Any] = {"conv_general_dilated": conv2d, "promote_dtype": no_dtype_promotion}
        use_bias = self.norm != "batch"  # which subtracts the mean, and any bias with it
        layer = nn.Conv(filters, (size, size), padding=padding, use_bias=use_bias, kernel_init=self.kernel_init, **fast)
        return layer(x)

    @nn.nowrap
    def dense(self, x: jax.Array, units: int, use_bias: bool = True) -> jax.Array:
        """Applies a dense layer."""
        fast: dict[str, Any] = {"dot_general": dot_general, "promote_dtype": no_dtype_promotion}
        return nn.Dense(units, use_bias=use_bias, kernel_init=self.kernel_init, **fast)(x)

    @nn.nowrap
    def hidden(self, x: jax.Array, units: int, train: bool, mask: jax.Array | None) -> jax.Array:
        """Applies a dense layer, normalizes and activates; before batch norm, which subtracts the mean, no bias."""
        return self.norm_act(self.dense(x, units, use_bias=self.norm != "batch"), train, mask)


class Perceptron(BaseClassifier):
    """A fully connected network: the baseline of the lecture with hidden_sizes=(784,), softmax regression with ().

    Dropout comes after each hidden layer.
    """

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        x = image.reshape(image.shape[0], -1)
        for units in self.hidden_sizes:
            x = self.dropout_layer(self.hidden(x, units, train, mask), train)
        return self.dense(x, self.num_classes)


class CNN(BaseClassifier):
    """Stages of convolution and max-pooling, then dense layers; the lecture's has one stage and hidden_sizes=(128,).

    Dropout comes after each stage, and not in the dense end, as in the lecture.

    Attributes:
      filters: filters of each stage.
      kernel_size: side of the first stage's kernels, in pixels; 3 in the later ones.
    """

    filters: Sequence[int] = (32,)
    kernel_size: int = 5

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        x, size = image, self.kernel_size
        for filters in self.filters:
            if min(x.shape[1:3]) <= size:
                raise ArgumentError(
                    f"filters={','.join(map(str, self.filters))}: images of {image.shape[1]}x{image.shape[2]} are "
                    f"too small for {len(self.filters)} stages with kernel_size={self.kernel_size}"
                )
            x = self.conv(x, filters, size, "VALID")
            x = self.dropout_layer(max_pool(self.norm_act(x, train, mask)), train)
            size = 3
        x = x.reshape(x.shape[0], -1)
        for units in self.hidden_sizes:
            x = self.hidden(x, units, train, mask)
        return self.dense(x, self.num_classes)


class DeepCNN(BaseClassifier):
    """A deep convolutional network: one wide conv2d, then several of 3x3 per stage, pooling between stages.

    Dropout comes once, before the dense end.

    Attributes:
      filters: filters of each stage.
      kernel_size: side of the first stage's kernels, in pixels.
      convs_per_stage: convolutions of 3x3 in each stage after the first.
      pooling: of the last stage over the whole image: "none", "avg", "max", or "avg_max" for both side by side.

    Source: the pattern of K. Simonyan and A. Zisserman, Very deep convolutional networks, 2014.
    """

    filters: Sequence[int] = (32, 64, 128)
    kernel_size: int = 5
    convs_per_stage: int = 2
    pooling: str = "none"

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        x = image
        for stage, filters in enumerate(self.filters):
            x = max_pool(x) if stage else x
            if 0 in x.shape:
                raise ArgumentError(
                    f"filters={','.join(map(str, self.filters))}: images of {image.shape[1]}x{image.shape[2]} can't "
                    f"be halved {stage} times"
                )
            for _ in range(self.convs_per_stage if stage else 1):
                x = self.conv(x, filters, 3 if stage else self.kernel_size, "SAME")
                x = self.norm_act(x, train, mask)
        if self.pooling != "none":
            x = x.reshape(x.shape[0], -1, x.shape[-1])
            # The gradient of x.max() compares x with its maximum: NaN where XLA computes x twice, rounded differently.
            largest = jnp.take_along_axis(x, jnp.argmax(x, axis=1, keepdims=True), axis=1)[:, 0]
            pools = {"avg": x.mean(axis=1), "max": largest}
            x = jnp.concatenate([pools[name] for name in self.pooling.split("_")], axis=-1)
        x = self.dropout_layer(x.reshape(x.shape[0], -1), train)
        for units in self.hidden_sizes:
            x = self.hidden(x, units, train, mask)
        return self.dense(x, self.num_classes)


class RNN(BaseClassifier):
    """A recurrent network that reads the image from top to bottom, a row at a time.

    Dropout comes after each recurrent layer; the activation is the cell's own.

    Attributes:
      hidden_sizes: units of each recurrent layer.
      cell: a name in CELLS.

    Source: S. Hochreiter and J. Schmidhuber, Long short-term memory, 1997; K. Cho et al., 2014 (the GRU).
    """

    cell: str = "lstm"

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        if not self.hidden_sizes:
            raise ArgumentError("hidden_sizes=: a recurrent network needs at least one layer")
        x = image.reshape(*image.shape[:2], -1)
        for units in self.hidden_sizes:
            cell = CELLS[self.cell](units, kernel_init=self.kernel_init, activation_fn=self.activation)
            outputs: Any = nn.RNN(cell)(x)
            x = outputs
            if self.norm == "layer":
                x = nn.LayerNorm()(x)
            x = self.dropout_layer(x, train)
        return self.dense(x[:, -1], self.num_classes)


class ViT(BaseClassifier):
    """Tokens, embedded with their positions, through attention blocks, averaged.

    Dropout comes after each half of a block. Layer norm is where transformers have it; `norm` adds to it.

    Attributes:
      hidden_sizes: units of the dense half of each block.
      tokens: "patches" of 4x4 pixels, or the "intensity" (16 levels) of each pixel of the image at half its size.
      width: size of the embedding.

    Source: A. Vaswani et al., Attention is all you need, 2017; A. Dosovitskiy et al., An image is worth
    16x16 words, 2020.
    """

    tokens: str = "patches"
    width: int = 64

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        side = 4 if self.tokens == "patches" else 2
        bottom, right = (-image.shape[1] % side, -image.shape[2] % side)
        x = jnp.pad(image, ((0, 0), (0, bottom), (0, right), (0, 0)))
        rows, cols = x.shape[1] // side, x.shape[2] // side
        x = x.reshape(x.shape[0], rows, side, cols, side, -1).swapaxes(2, 3).reshape(x.shape[0], rows * cols, -1)
        if self.tokens == "patches":
            x = self.dense(x, self.width)
        else:
            levels = jnp.minimum(x.mean(axis=-1) * 16, 15).astype(jnp.int32)
            x = nn.Embed(16, self.width)(levels)
        x = x + nn.Embed(rows * cols, self.width, name="positions")(jnp.arange(rows * cols))[None]
        for units in self.hidden_sizes:
            attention = nn.MultiHeadDotProductAttention(num_heads=4, kernel_init=self.kernel_init)
            x = x + self.dropout_layer(attention(nn.LayerNorm()(x).astype(image.dtype)), train)
            y = self.hidden(nn.LayerNorm()(x), units, train, mask)
            x = x + self.dropout_layer(self.dense(y, self.width), train)
        return self.dense(nn.LayerNorm()(x).mean(axis=1), self.num_classes)


def _shared_kwargs(config: Config, num_classes: int) -> dict[str, Any]:
    """Returns the arguments that every BaseClassifier takes from a configuration."""
    return dict(
        num_classes=num_classes,
        activation=get_entry(ACTIVATIONS, "activation", config.activation),
        kernel_init=get_entry(INITIALIZERS, "kernel_init", config.kernel_init),
        norm=config.norm,
        dropout=config.dropout,
    )


def _softmax(config: Config, num_classes: int) -> nn.Module:
    if is_on(config.dropout):
        raise ConfigError("dropout: softmax has no hidden layer to drop activations of")
    return Perceptron(hidden_sizes=(), **_shared_kwargs(config, num_classes))


def with_fields(module: type[BaseClassifier], *names: str) -> MakeModel:
    """Makes a row of MODELS.

    Args:
      module: the network.
      *names: of the fields that it takes from a configuration, beside those that all share.

    Returns:
      (config, number of classes) -> the module.
    """
    return lambda config, num_classes: module(
        **{name: getattr(config, name) for name in names}, **_shared_kwargs(config, num_classes)
    )


DEEP_CNN_FIELDS = ("hidden_sizes", "filters", "kernel_size", "convs_per_stage", "pooling")

# name -> (config, number of classes) -> a Linen module or a Model
MODELS: dict[str, MakeModel] = {
    "softmax": _softmax,
    "perceptron": with_fields(Perceptron, "hidden_sizes"),
    "cnn": with_fields(CNN, "hidden_sizes", "filters", "kernel_size"),
    "deep_cnn": with_fields(DeepCNN, *DEEP_CNN_FIELDS),
    "rnn": with_fields(RNN, "hidden_sizes", "cell"),
    "vit": with_fields(ViT, "hidden_sizes", "tokens"),
}


def make_model(config: Config, num_classes: int) -> AnyModel:
    """Makes the model that a configuration names.

    Args:
      config: its `model` is a name in MODELS; `dropout` may be traced.
      num_classes: number of outputs.

    Returns:
      What the table's entry returns, such as a Linen module.

    Raises:
      ConfigError: no such model, activation or initializer.
    """
    return get_entry(MODELS, "model", config.model)(config, num_classes)
