"""What a finished run makes of arrays and pictures."""

import jax
import numpy as np
import pytest
from PIL import Image

from mnist_jax.datasets import DIGITS, make_dataset
from mnist_jax.errors import ArgumentError, DataError
from mnist_jax.experiment import Experiment
from mnist_jax.loaded_run import load_ensemble, load_run
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
        for array in (*others, right[:, :20], right[..., None]):
            with pytest.raises(ArgumentError, match=rf"pictures: an array must be \[N, 28, 28\] {dtype}.*; got"):
                loaded.predict(array)


def test_a_run_on_floats_sees_pictures_scaled(tmp_path, small):
    images = small["test_images"][:9]
    Image.fromarray(images[0]).save(tmp_path / "digit.png")
    expected = make_run(tmp_path / "bytes", small, 1).predict(images)
    found = make_run(tmp_path / "floats", small, 255).predict(tmp_path / "digit.png", images[1:] / 255)
    assert [one.probability for one in found] == pytest.approx([one.probability for one in expected])
    assert len({one.probability for one in found}) == 9


def test_pictures_may_be_files_arrays_or_of_pil(tmp_path, small):
    loaded = make_run(tmp_path / "run", small, 1)
    page = np.pad(255 - np.kron(small["test_images"][0], np.ones((8, 8), np.uint8)), 40, constant_values=255)
    colored = np.stack([page] * 3, axis=-1)
    Image.fromarray(page).save(tmp_path / "digit.webp", lossless=True)
    pictures = page, page[..., None], colored, Image.fromarray(page), Image.fromarray(colored), tmp_path / "digit.webp"
    predictions = loaded.predict(*pictures)
    assert [one.name for one in predictions] == ["[0]", "[1]", "[2]", "[3]", "[4]", str(tmp_path / "digit.webp")]
    for one in predictions:
        np.testing.assert_array_equal(one.digit.image, predictions[0].digit.image)
    with pytest.raises(DataError, match=r"\[1\]: no digit found"):
        loaded.predict(page, np.full((90, 90), 200, np.uint8))
    two = np.concatenate([page, page], axis=1)
    assert len(loaded.predict(two)) == 2 and len(loaded.predict(two, single=True)) == 1


def test_what_is_no_digit_faint_or_undecided_is_unsure(tmp_path, small):
    loaded = make_run(tmp_path / "run", small, 1)  # untrained: it decides nothing
    sideways = np.rot90(small["test_images"], axes=(1, 2))[small["test_labels"] == 4]
    reasons = [one.unsure for one in loaded.predict(np.concatenate([sideways, small["test_images"][:9]]))]
    assert reasons[: len(sideways)].count("like no digit") > 0.8 * len(sideways)
    assert reasons[len(sideways) :].count("low probability") > 4


@pytest.mark.slow
def test_an_ensemble_is_the_mean_of_its_members_probabilities(tmp_path, small):
    dataset = make_dataset(**small, class_names=DIGITS)
    experiment = Experiment(dataset=dataset, model="deep_cnn", filters=(4, 8), hidden_sizes=(), norm="batch", epochs=1)
    for name, seed, count in (("first", 3, 2), ("second", 9, 1)):
        run(experiment, tmp_path / name, quiet=True, plots=False, seed=seed, num_seeds=count)
    ensemble = load_ensemble([tmp_path / "first", tmp_path / "second"], experiment)
    members = [
        load_run(tmp_path / name, experiment, seed) for name, seed in (("first", 3), ("first", 4), ("second", 9))
    ]
    images = dataset.test_images
    expected = np.mean([jax.nn.softmax(one.logits(images)) for one in members], axis=0)
    np.testing.assert_allclose(np.exp(ensemble.logits(images)), expected, atol=1e-5)
    assert ensemble.seeds == (3, 4, 9)
    labels = [one.label for one in ensemble.predict(images[..., 0])]
    assert labels == [str(label) for label in expected.argmax(axis=-1)]

    run(experiment, tmp_path / "other", quiet=True, plots=False, learning_rate=0.5)
    with pytest.raises(DataError, match=r"other: differs from .*first in more than its seeds"):
        load_ensemble([tmp_path / "first", tmp_path / "other"], experiment)
