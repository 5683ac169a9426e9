"""Random small deformations of images, drawn from a key on the device, a batch at a time."""

import jax
import jax.numpy as jnp


def affine(key: jax.Array, image: jax.Array, rotation: float, zoom: float, shift: float) -> jax.Array:
    """Turns, scales and moves each image by its own random amount about its centre, interpolating bilinearly.

    Args:
      key: [] typed PRNG key.
      image: [B, H, W, C] float32; what comes in from outside the frame is 0.
      rotation: largest turn, in degrees, either way.
      zoom: largest change of scale, as a share, either way.
      shift: largest move along each axis, in pixels, either way.

    Returns:
      [B, H, W, C] float32. The amounts are uniform and independent.

    Source: Y. LeCun et al., Gradient-based learning applied to document recognition, 1998 (distortions of MNIST).

    >>> import numpy as np
    >>> image = np.random.rand(2, 28, 28, 1).astype("float32")
    >>> same = affine(jax.random.key(0), image, rotation=0.0, zoom=0.0, shift=0.0)
    >>> bool(np.allclose(same, image, atol=1e-5))
    True
    """
    batch, height, width, channels = image.shape
    draws = jax.random.uniform(key, (4, batch), minval=-1.0)
    angle, scale = jnp.deg2rad(rotation) * draws[0], 1 + zoom * draws[1]
    cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale

    y = (jnp.arange(height) - (height - 1) / 2)[None, :, None]
    x = (jnp.arange(width) - (width - 1) / 2)[None, None, :]
    cos, sin, down, right = (part[:, None, None] for part in (cos, sin, shift * draws[2], shift * draws[3]))
    from_y = cos * y + sin * x + (height - 1) / 2 + down
    from_x = cos * x - sin * y + (width - 1) / 2 + right

    # A frame of zeros, so that the four neighbours of every point exist; a point further out reads only zeros.
    from_y, from_x = jnp.clip(from_y, -1, height) + 1, jnp.clip(from_x, -1, width) + 1
    framed = jnp.pad(image, ((0, 0), (1, 2), (1, 2), (0, 0))).reshape(batch, -1, channels)
    top, left = jnp.floor(from_y).astype(jnp.int32), jnp.floor(from_x).astype(jnp.int32)
    below, beside = (from_y - top)[..., None], (from_x - left)[..., None]
    corner = (top * (width + 3) + left).reshape(batch, -1)

    def at(offset):
        return jnp.take_along_axis(framed, (corner + offset)[..., None], axis=1).reshape(image.shape)

    upper = at(0) * (1 - beside) + at(1) * beside
    lower = at(width + 3) * (1 - beside) + at(width + 4) * beside
    return upper * (1 - below) + lower * below
