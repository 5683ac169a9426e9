import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from mnist_jax.augment import random_affine


@pytest.fixture(scope="module")
def images(small):
    return jnp.asarray(small["train_images"][:40, :, :, None], jnp.float32) / 255


def test_it_is_a_rotation_a_scaling_and_a_translation(images):
    """Against scipy's affine_transform, for the amounts that the key gives."""
    key = jax.random.key(3)
    rotation, zoom, translation = 30.0, 0.2, 3.0
    got = random_affine(key, images, rotation, zoom, translation)[..., 0]
    uniforms = np.asarray(jax.random.uniform(key, (4, len(images)), minval=-1.0))
    for i, image in enumerate(np.asarray(images)[..., 0]):
        angle, scale = np.deg2rad(rotation) * uniforms[0, i], 1 + zoom * uniforms[1, i]
        matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
        center = np.array([13.5, 13.5])
        offset = center - matrix @ center + translation * uniforms[2:, i]
        expected = ndimage.affine_transform(image, matrix, offset, order=1, mode="grid-constant")
        np.testing.assert_allclose(got[i], expected, atol=1e-4)


def test_each_image_has_its_own_draw_and_each_key_another(images):
    same = jnp.tile(images[:1], (6, 1, 1, 1))
    first, second = (np.asarray(random_affine(jax.random.key(seed), same, 15.0, 0.1, 2.0)) for seed in (0, 1))
    assert len({image.tobytes() for image in first}) == 6 and (first != second).any()
    np.testing.assert_array_equal(first, random_affine(jax.random.key(0), same, 15.0, 0.1, 2.0))


def test_values_stay_in_range_and_far_translations_leave_nothing(images):
    moved = random_affine(jax.random.key(0), images, 180.0, 0.5, 5.0)
    assert moved.shape == images.shape and float(moved.min()) >= 0 and float(moved.max()) <= 1 + 1e-6
    gone = random_affine(jax.random.key(5), images[:1] * 0 + 1, 0.0, 0.0, 1e6)
    assert float(jnp.abs(gone).max()) == 0


def test_elastic_shifts_have_the_asked_deviation_and_are_smooth():
    """Read from images whose pixels are their own coordinates."""
    y, x = (np.indices((28, 28)) + 1.0).astype(np.float32)
    images = jnp.tile(jnp.stack([y, x], axis=-1)[None], (2000, 1, 1, 1))
    moved = np.asarray(random_affine(jax.random.key(0), images, elastic=1.4)) - np.asarray(images)
    inside = moved[:, 7:21, 7:21]  # where no point leaves the frame
    assert inside.std(axis=0) == pytest.approx(1.4, rel=0.15) and inside.std() == pytest.approx(1.4, rel=0.03)
    # Noise smoothed by a Gaussian of s pixels is correlated as exp(-d^2 / 4 s^2) at d pixels.
    for distance in (1, 4, 8):
        products = inside[:, distance:] * inside[:, :-distance]
        assert products.mean() / inside.var() == pytest.approx(np.exp(-(distance**2) / 64), abs=0.05)
    assert abs(np.corrcoef(inside[..., 0].ravel(), inside[..., 1].ravel())[0, 1]) < 0.05


def test_it_moves_digits_as_scipy_does(images):
    """The points are read from an image of coordinates, then scipy reads the digits there."""
    key, amounts = jax.random.key(3), (10.0, 0.1, 1.0, 1.0)
    y, x = (np.indices((28, 28)) + 40.0).astype(np.float32)  # far from 0, so that the frame is found
    coordinates = jnp.tile(jnp.stack([y, x], axis=-1)[None], (len(images), 1, 1, 1))
    points = np.asarray(random_affine(key, coordinates, *amounts)) - 40
    got = random_affine(key, images, *amounts)[..., 0]
    for i, image in enumerate(np.asarray(images)[..., 0]):
        expected = ndimage.map_coordinates(image, points[i].transpose(2, 0, 1), order=1, mode="grid-constant")
        np.testing.assert_allclose(got[i, 8:-8, 8:-8], expected[8:-8, 8:-8], atol=1e-3)
