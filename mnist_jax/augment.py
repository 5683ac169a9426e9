"""Random changes of images on the device, and AUGMENTATIONS, the table from a name to a function that makes one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mnist_jax.config import Config
from mnist_jax.errors import ConfigError, get_entry
from mnist_jax.fields import is_on
from mnist_jax.types import Augment, Batch, Scalar


def random_affine(key: jax.Array, image: jax.Array, rotation: Scalar, zoom: Scalar, translation: Scalar) -> jax.Array:
    """Rotates, scales and translates each image by its own random amount about its center, interpolating bilinearly.

    Args:
      key: [] typed PRNG key.
      image: [B, H, W, C] float32; outside the frame it is 0.
      rotation: largest rotation in degrees, either way; like the others a number or traced scalar.
      zoom: largest change of scale, as a fraction, either way.
      translation: largest shift along each axis in pixels, either way.

    Returns:
      [B, H, W, C] float32. The amounts are uniform and independent.

    Source: Y. LeCun et al., Gradient-based learning applied to document recognition, 1998 (distortions of MNIST).

    >>> import numpy as np
    >>> image = np.random.rand(2, 28, 28, 1).astype("float32")
    >>> same = random_affine(jax.random.key(0), image, rotation=0.0, zoom=0.0, translation=0.0)
    >>> bool(np.allclose(same, image, atol=1e-5))
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

    return _resample(image, source_y, source_x)


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
    """Makes the random affine map of a configuration.

    Args:
      config: its `rotation`, `zoom` and `translation` may be traced.

    Returns:
      (key, batch) -> batch; None where all three are 0.
    """
    if not any(map(is_on, (config.rotation, config.zoom, config.translation))):
        return None

    def affine(key: jax.Array, batch: Batch) -> Batch:
        image = random_affine(key, batch.image, config.rotation, config.zoom, config.translation)
        return batch._replace(image=image)

    return affine


_SMOOTHNESS = 4.0  # pixels, as in the paper


def random_elastic(key: jax.Array, image: jax.Array, elastic: Scalar) -> jax.Array:
    """Moves each pixel by a smooth random field, as a hand that writes the same digit again, interpolating bilinearly.

    Args:
      key: [] typed PRNG key.
      image: [B, H, W, C] float32; outside the frame it is 0.
      elastic: standard deviation of a pixel's shift along each axis, in pixels; a number or traced scalar.

    Returns:
      [B, H, W, C] float32.

    Source: P. Simard et al., Best practices for convolutional neural networks, 2003, section 2: uniform noise, smoothed
    by a Gaussian of 4 pixels and scaled by 34, which is a standard deviation of 1.4 pixels.

    >>> import numpy as np
    >>> image = np.random.rand(2, 28, 28, 1).astype("float32")
    >>> bool(np.allclose(random_elastic(jax.random.key(0), image, elastic=0.0), image))
    True
    """
    batch, height, width, _ = image.shape

    def smooth(size: int) -> jax.Array:
        """Spreads points that are _SMOOTHNESS pixels apart over pixels, [size, P]; of length 1, so that variance stays."""
        points = jnp.arange(-2 * _SMOOTHNESS, size + 2 * _SMOOTHNESS, _SMOOTHNESS)
        weights = jnp.exp(-(((jnp.arange(size)[:, None] - points[None]) / _SMOOTHNESS) ** 2) / 2)
        return weights / jnp.linalg.norm(weights, axis=1, keepdims=True)

    # Smoothed, noise at every 4th pixel is correlated as that at every pixel, but for a part in 5,000.
    rows, columns = smooth(height), smooth(width)
    shape = (2, batch, rows.shape[1], columns.shape[1])
    noise = jax.random.uniform(key, shape, jnp.float32, -(3**0.5), 3**0.5)  # of variance 1
    down, right = elastic * jnp.einsum("yv,abvu,xu->abyx", rows, noise, columns)
    y, x = jnp.indices((1, height, width))[1:].astype(jnp.float32)
    return _resample(image, y + down, x + right)


def make_elastic(config: Config) -> Augment | None:
    """Makes the elastic deformation of a configuration.

    Args:
      config: its `elastic` may be traced.

    Returns:
      (key, batch) -> batch; None where it is 0.
    """
    if not is_on(config.elastic):
        return None
    return lambda key, batch: batch._replace(image=random_elastic(key, batch.image, config.elastic))


# name -> config -> (key, batch) -> batch, or None where the configuration turns it off
AUGMENTATIONS: dict[str, Callable[[Config], Augment | None]] = {"affine": make_affine, "elastic": make_elastic}
_FIELDS = {"affine": ("rotation", "zoom", "translation"), "elastic": ("elastic",)}  # that a row alone reads


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
