"""What a finished run makes of arrays and pictures."""

import pytest
from PIL import Image

from mnist_jax.datasets import DIGITS, make_dataset
from mnist_jax.errors import ArgumentError
from mnist_jax.experiment import Experiment
from mnist_jax.loaded_run import load_run
from mnist_jax.runner import run


def make_run(workdir, small, scale):
    """An untrained network of a data set whose images are divided by a number."""
    arrays = {part: array / scale if part.endswith("images") and scale != 1 else array for part, array in small.items()}
    experiment = Experiment(dataset=make_dataset(**arrays, class_names=DIGITS), hidden_sizes=(8,), epochs=0)
    run(experiment, workdir, quiet=True)
    return load_run(workdir, experiment)


def test_arrays_must_be_as_the_data_set_stores_them(tmp_path, small):
    images = small["test_images"]
    for scale, dtype, others in ((1, "uint8", [images / 255, images.astype(int)]), (255, "float32", [images])):
        loaded = make_run(tmp_path / dtype, small, scale)
        right = images if scale == 1 else images / 255
        assert loaded.predict(right)[0].name == "[0]"
        for array in (*others, right[0], right[:, :20], right[..., None]):
            with pytest.raises(ArgumentError, match=rf"pictures: an array must be \[N, 28, 28\] {dtype}.*; got"):
                loaded.predict(array)


def test_a_run_on_floats_sees_pictures_scaled(tmp_path, small):
    images = small["test_images"][:9]
    Image.fromarray(images[0]).save(tmp_path / "digit.png")
    expected = make_run(tmp_path / "bytes", small, 1).predict(images)
    found = make_run(tmp_path / "floats", small, 255).predict(tmp_path / "digit.png", images[1:] / 255)
    assert [one.probability for one in found] == pytest.approx([one.probability for one in expected])
    assert len({one.probability for one in found}) == 9
