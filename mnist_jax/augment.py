"""Random changes of images on the device, and AUGMENTATIONS, the table from a name to a function that makes one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mnist_jax.config import Config
from mnist_jax.errors import ConfigError, get_entry
from mnist_jax.fields import is_on
from mnist_jax.types import Augment, Batch, Scalar

_SMOOTHNESS = 4.0  # of elastic deformation, in pixels, as in the paper


def random_affine(
    key: jax.Array,
    image: jax.Array,
    rotation: Scalar = 0.0,
    zoom: Scalar = 0.0,
    translation: Scalar = 0.0,
    elastic: Scalar = 0.0,
) -> jax.Array:
    """Rotates, scales, translates and bends each image by its own random amounts, in one bilinear interpolation.

    Args:
      key: [] typed PRNG key.
      image: [B, H, W, C] float32; outside the frame it is 0.
      rotation: largest rotation about the center in degrees, either way; like the others a number or traced scalar.
      zoom: largest change of scale, as a fraction, either way.
      translation: largest shift along each axis in pixels, either way.
      elastic: standard deviation, in pixels along each axis, of a smooth random field that moves each pixel.

    Returns:
      [B, H, W, C] float32. The amounts of the first three are uniform and independent.

    Source: Y. LeCun et al., Gradient-based learning applied to document recognition, 1998 (distortions of MNIST);
    P. Simard et al., Best practices for convolutional neural networks, 2003 (elastic).

    >>> import numpy as np
    >>> image = np.random.rand(2, 28, 28, 1).astype("float32")
    >>> bool(np.allclose(random_affine(jax.random.key(0), image), image, atol=1e-5))
    True
    """
    batch, height, width, _ = image.shape
    uniforms = jax.random.uniform(key, (4, batch), jnp.float32, minval=-1.0)
    angle, scale = jnp.deg2rad(rotation) * uniforms[0], 1 + zoom * uniforms[1]
    cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale

    y = (jnp.arange(height, dtype=jnp.float32) - (height - 1) / 2)[None, :, None]
    x = (jnp.arange(width, dtype=jnp.float32) - (width - 1) / 2)[None, None, :]
    cos, sin, down, right = (
        part[:, None, None] for part in (cos, sin, translation * uniforms[2], translation * uniforms[3])
    )
    source_y = cos * y + sin * x + (height - 1) / 2 + down
    source_x = cos * x - sin * y + (width - 1) / 2 + right
    if is_on(elastic):
        down, right = elastic * _smooth_field(jax.random.fold_in(key, 1), (batch, height, width))
        source_y, source_x = source_y + down, source_x + right
    return _resample(image, source_y, source_x)


def _smooth_field(key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """Draws uniform noise of variance 1, smoothed by a Gaussian, [2, *shape], along y and along x.

    Smoothed, noise at every 4th pixel is correlated as the paper's at every pixel is, but for a part in 5,000.
    """

    def smooth(size: int) -> jax.Array:
        """Weights of points that are _SMOOTHNESS pixels apart, [size, P]; of length 1, so that the variance stays."""
        points = jnp.arange(-2 * _SMOOTHNESS, size + 2 * _SMOOTHNESS, _SMOOTHNESS)
        weights = jnp.exp(-(((jnp.arange(size)[:, None] - points[None]) / _SMOOTHNESS) ** 2) / 2)
        return weights / jnp.linalg.norm(weights, axis=1, keepdims=True)

    rows, columns = smooth(shape[1]), smooth(shape[2])
    points = (2, shape[0], rows.shape[1], columns.shape[1])
    noise = jax.random.uniform(key, points, jnp.float32, -(3**0.5), 3**0.5)
    return jnp.einsum("yv,abvu,xu->abyx", rows, noise, columns)


def _resample(image: jax.Array, source_y: jax.Array, source_x: jax.Array) -> jax.Array:
    """Reads [B, H, W, C] images at [B, H, W] points in pixels, interpolating bilinearly; outside the frame is 0."""
    batch, height, width, channels = image.shape
    # A frame of zeros, so that the four neighbors of every point exist; a point further out reads only zeros.
    source_y, source_x = jnp.clip(source_y, -1, height) + 1, jnp.clip(source_x, -1, width) + 1
    padded = jnp.pad(image, ((0, 0), (1, 2), (1, 2), (0, 0))).reshape(batch, -1, channels)
    top, left = jnp.floor(source_y).astype(jnp.int32), jnp.floor(source_x).astype(jnp.int32)
    frac_y, frac_x = (source_y - top)[..., None], (source_x - left)[..., None]
    corner = (top * (width + 3) + left).reshape(batch, -1)

    def at(offset: int) -> jax.Array:
        return jnp.take_along_axis(padded, (corner + offset)[..., None], axis=1).reshape(image.shape)

    upper = at(0) * (1 - frac_x) + at(1) * frac_x
    lower = at(width + 3) * (1 - frac_x) + at(width + 4) * frac_x
    return upper * (1 - frac_y) + lower * frac_y


def make_affine(config: Config) -> Augment | None:
    """Makes the random map of a configuration.

    Args:
      config: its `rotation`, `zoom`, `translation` and `elastic` may be traced.

    Returns:
      (key, batch) -> batch; None where all of them are 0.
    """
    amounts = {name: getattr(config, name) for name in _FIELDS["affine"]}
    if not any(map(is_on, amounts.values())):
        return None
    return lambda key, batch: batch._replace(image=random_affine(key, batch.image, **amounts))


# name -> config -> (key, batch) -> batch, or None where the configuration turns it off
AUGMENTATIONS: dict[str, Callable[[Config], Augment | None]] = {"affine": make_affine}
_FIELDS = {"affine": ("rotation", "zoom", "translation", "elastic")}  # that a row alone reads


def make_augment(config: Config) -> Augment | None:
    """Chains the augmentations that a configuration names.

    Args:
      config: its `augmentations` are names in AUGMENTATIONS.

    Returns:
      (key, batch of float images) -> batch; None where there are none.

    Raises:
      ConfigError: no such augmentation.
    """
    for row, fields in _FIELDS.items():
        for name in fields:
            if is_on(getattr(config, name)) and row not in config.augmentations:
                raise ConfigError(f"{name}: has no effect without {row} in augmentations")
    makers = [get_entry(AUGMENTATIONS, "augmentations", name) for name in config.augmentations]
    chain = [augment for augment in (make(config) for make in makers) if augment]

    def augment_all(key: jax.Array, batch: Batch) -> Batch:
        for number, augment in enumerate(chain):
            batch = augment(jax.random.fold_in(key, number) if number else key, batch)
        return batch

    return augment_all if chain else None
