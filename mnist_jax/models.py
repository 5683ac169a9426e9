"""Flax Linen modules, and MODELS, the table from a name to a module. Linen stays in this file.

Every module is called as (image, train, mask): image [B, H, W, C] float32 in [0, 1]; train says whether dropout drops
and batch norm learns; mask [B] bool, or None for all, says which rows batch norm may learn from. It returns [B,
classes] float32 logits.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from mnist_jax.config import Config
from mnist_jax.errors import ConfigError, lookup
from mnist_jax.layers import ACTIVATIONS, INITIALIZERS, convolution, dense_product, dropout, max_pool, unpromoted

NORMS = ("none", "batch", "layer")
CELLS = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}
TOKENS = ("patches", "grey")


class Network(nn.Module):
    """What all networks share: the choices of their hidden layers.

    Attributes:
      classes: number of outputs.
      hidden: units of each hidden layer.
      activation: function after each hidden layer.
      kernel_init: initialiser of every kernel.
      norm: one of NORMS, applied before each activation.
      dropout: share of activations dropped in training.
    """

    classes: int = 10
    hidden: Sequence[int] = ()
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    kernel_init: Callable[..., jax.Array] = nn.initializers.glorot_uniform()
    norm: str = "none"
    dropout: float = 0.0

    @nn.nowrap
    def activate(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """Normalises, then activates."""
        if self.norm == "batch":
            mask = None if mask is None else mask.reshape(-1, *[1] * (x.ndim - 1))
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x, mask=mask)
        elif self.norm == "layer":
            x = nn.LayerNorm()(x)
        return self.activation(x)

    @nn.nowrap
    def drop(self, x: jax.Array, train: bool) -> jax.Array:
        """Drops activations in training (N. Srivastava et al., Dropout, JMLR 2014)."""
        return dropout(self.make_rng("dropout"), x, self.dropout) if train and self.dropout else x

    @nn.nowrap
    def convolve(self, x: jax.Array, filters: int, size: int, padding: str) -> jax.Array:
        """Convolves with square kernels, by the way that is fast on the platform."""
        layer = nn.Conv(
            filters,
            (size, size),
            padding=padding,
            kernel_init=self.kernel_init,
            conv_general_dilated=convolution,
            promote_dtype=unpromoted,
        )
        return layer(x)

    @nn.nowrap
    def dense(self, x: jax.Array, units: int) -> jax.Array:
        """A dense layer, its product by the way that is fast on the platform."""
        layer = nn.Dense(units, kernel_init=self.kernel_init, dot_general=dense_product, promote_dtype=unpromoted)
        return layer(x)


class Perceptron(Network):
    """A fully connected network; the lecture's baseline has hidden=(784,), softmax regression has hidden=().

    Dropout comes after each hidden layer.
    """

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        x = image.reshape(len(image), -1)
        for units in self.hidden:
            x = self.drop(self.activate(self.dense(x, units), train, mask), train)
        return self.dense(x, self.classes)


class CNN(Network):
    """Stages of convolution and max-pooling, then dense layers; the lecture's has one stage and hidden=(128,).

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
                raise ConfigError(
                    f"--filters={','.join(map(str, self.filters))}: images of {image.shape[1]}x{image.shape[2]} are "
                    f"too small for {len(self.filters)} stages of --kernel_size={self.kernel_size}"
                )
            x = self.convolve(x, filters, size, "VALID")
            x = self.drop(max_pool(self.activate(x, train, mask)), train)
            size = 3
        x = x.reshape(len(x), -1)
        for units in self.hidden:
            x = self.activate(self.dense(x, units), train, mask)
        return self.dense(x, self.classes)


class DeepCNN(Network):
    """A deep convolutional network: one wide convolution, then two of 3x3 a stage, with pooling between the stages.

    Dropout comes once, before the dense end.

    Attributes:
      filters: filters of each stage.
      kernel_size: side of the first stage's kernels, in pixels.

    Source: the pattern of K. Simonyan and A. Zisserman, Very deep convolutional networks, 2014.
    """

    filters: Sequence[int] = (32, 64, 128)
    kernel_size: int = 5

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        x = image
        for stage, filters in enumerate(self.filters):
            x = max_pool(x) if stage else x
            if 0 in x.shape:
                raise ConfigError(
                    f"--filters={','.join(map(str, self.filters))}: images of {image.shape[1]}x{image.shape[2]} can't "
                    f"be halved {stage} times"
                )
            for _ in range(2 if stage else 1):
                x = self.convolve(x, filters, 3 if stage else self.kernel_size, "SAME")
                x = self.activate(x, train, mask)
        x = self.drop(x.reshape(len(x), -1), train)
        for units in self.hidden:
            x = self.activate(self.dense(x, units), train, mask)
        return self.dense(x, self.classes)


class RNN(Network):
    """A recurrent network that reads the image from top to bottom, a row at a time.

    Dropout comes after each recurrent layer; the activation is the cell's own.

    Attributes:
      hidden: units of each recurrent layer.
      cell: a name in CELLS.

    Source: S. Hochreiter and J. Schmidhuber, Long short-term memory, 1997; K. Cho et al., 2014 (the GRU).
    """

    cell: str = "lstm"

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        if not self.hidden:
            raise ConfigError("--hidden=: a recurrent network needs at least one layer")
        x = image.reshape(*image.shape[:2], -1)
        for units in self.hidden:
            cell = CELLS[self.cell](units, kernel_init=self.kernel_init, activation_fn=self.activation)
            x = nn.RNN(cell)(x)
            if self.norm == "layer":
                x = nn.LayerNorm()(x)
            x = self.drop(x, train)
        return self.dense(x[:, -1], self.classes)


class Embedding(Network):
    """Tokens, embedded with their positions, through attention blocks, averaged.

    Dropout comes after each half of a block. Layer norm is where transformers have it; `norm` adds to it.

    Attributes:
      hidden: units of the dense half of each block.
      tokens: 'patches' of 4x4 pixels, or the 'grey' level, one of 16, of each pixel of the image at half its size.
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
        rows, columns = x.shape[1] // side, x.shape[2] // side
        x = x.reshape(len(x), rows, side, columns, side, -1).swapaxes(2, 3).reshape(len(x), rows * columns, -1)
        if self.tokens == "patches":
            x = self.dense(x, self.width)
        else:
            levels = jnp.minimum(x.mean(axis=-1) * 16, 15).astype(jnp.int32)
            x = nn.Embed(16, self.width)(levels)
        x = x + nn.Embed(rows * columns, self.width, name="positions")(jnp.arange(rows * columns))[None]
        for units in self.hidden:
            attention = nn.MultiHeadDotProductAttention(num_heads=4, kernel_init=self.kernel_init)
            x = x + self.drop(attention(nn.LayerNorm()(x).astype(image.dtype)), train)
            y = self.activate(self.dense(nn.LayerNorm()(x), units), train, mask)
            x = x + self.drop(self.dense(y, self.width), train)
        return self.dense(nn.LayerNorm()(x).mean(axis=1), self.classes)


MODELS = {
    "softmax": lambda config, common: Perceptron(hidden=(), **common),
    "perceptron": lambda config, common: Perceptron(hidden=config.hidden, **common),
    "cnn": lambda config, common: CNN(
        hidden=config.hidden, filters=config.filters, kernel_size=config.kernel_size, **common
    ),
    "deep_cnn": lambda config, common: DeepCNN(
        hidden=config.hidden, filters=config.filters, kernel_size=config.kernel_size, **common
    ),
    "rnn": lambda config, common: RNN(hidden=config.hidden, cell=config.cell, **common),
    "embedding": lambda config, common: Embedding(hidden=config.hidden, tokens=config.tokens, **common),
}


def tabulate(model: nn.Module, shape: tuple[int, ...]) -> str:
    """Lists a model's layers, with their shapes and numbers of parameters.

    Args:
      model: of MODELS.
      shape: (H, W, C) of the images.

    Returns:
      A table of text.
    """
    image = jnp.zeros((1, *shape), jnp.float32)
    return model.tabulate(jax.random.key(0), image, console_kwargs={"width": 120, "force_terminal": False})


def make_model(config: Config, classes: int) -> nn.Module:
    """Makes the module that a configuration names.

    Args:
      config: its `model` is a name in MODELS, its `activation` one in ACTIVATIONS, and so on.
      classes: number of outputs.

    Returns:
      A module with `init(rngs, image, train)` and `apply(variables, image, train, mask)`, which gives [B, classes]
      logits.

    Raises:
      ConfigError: no such model, activation, initialiser, norm, cell or tokens.
    """
    for flag, known in {"norm": NORMS, "cell": CELLS, "tokens": TOKENS}.items():
        lookup(dict.fromkeys(known), flag, getattr(config, flag))
    common = dict(
        classes=classes,
        activation=lookup(ACTIVATIONS, "activation", config.activation),
        kernel_init=lookup(INITIALIZERS, "kernel_init", config.kernel_init),
        norm=config.norm,
        dropout=config.dropout,
    )
    return lookup(MODELS, "model", config.model)(config, common)
