import gzip
import shutil
import urllib.request

import jax
import numpy as np
import pytest
from conftest import REAL, idx_bytes, write_folder

from mnist_jax import Experiment, batches, datasets
from mnist_jax.errors import ConfigError, DataError
from mnist_jax.idx import IDX_FILES

IMAGES, LABELS = IDX_FILES["train_images"] + ".gz", IDX_FILES["train_labels"] + ".gz"


def slant_in_class(images, labels):
    """[N]: how far each digit leans to the left, in units of the standard deviation of its class."""
    weights = images[..., 0] / images.sum((1, 2, 3), dtype=float)[:, None, None]
    rows, columns = np.mgrid[: images.shape[1], : images.shape[2]]
    down = rows - (weights * rows).sum((1, 2))[:, None, None]
    right = columns - (weights * columns).sum((1, 2))[:, None, None]
    slants = (weights * down * right).sum((1, 2)) / (weights * down**2).sum((1, 2))
    means, deviations = np.transpose([(slants[labels == c].mean(), slants[labels == c].std()) for c in range(10)])
    return (slants - means[labels]) / deviations[labels]


def test_mnist5k_is_stratified_and_fixed():
    sample = datasets.load_dataset("mnist5k")
    assert sample.train_images.shape == (4000, 28, 28, 1) and sample.train_images.dtype == np.uint8
    assert sample.train_labels.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(sample.train_labels), [400] * 10)
    np.testing.assert_array_equal(np.bincount(sample.test_labels), [100] * 10)
    assert sample.sha256 == "e6b23b59c9854d770e4d87607f42b5a9a66cac241aa4418ec5e72cf719557cb3"
    assert not {image.tobytes() for image in sample.train_images} & {image.tobytes() for image in sample.test_images}


@pytest.mark.skipif(not REAL, reason="MNIST_JAX_TEST_DATA is not set")
def test_real_mnist_is_the_mnist_that_everybody_has(dataset):
    assert dataset.train_images.shape == (60000, 28, 28, 1) and dataset.test_images.shape == (10000, 28, 28, 1)
    np.testing.assert_array_equal(dataset.train_labels[:10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4])
    assert dataset.train_images.mean() == pytest.approx(33.318421, abs=1e-6)


def test_the_last_images_of_a_sorted_data_set_are_refused_for_validation():
    with pytest.raises(ConfigError, match="the last 400 images are of 1 of the 10 classes, since mnist5k is sorted"):
        batches.split_dataset(datasets.load_dataset("mnist5k"), 0.1, "last")


@pytest.mark.skipif(not REAL, reason="MNIST_JAX_TEST_DATA is not set")
def test_real_mnist_lies_in_the_order_of_its_writers_so_that_its_last_images_are_by_others(dataset):
    slants = slant_in_class(dataset.train_images, dataset.train_labels)

    def correlation(distance):  # a writer's digits lean alike
        return np.mean(slants[:-distance] * slants[distance:])

    assert min(correlation(distance) for distance in (2, 4, 20)) > 0.4 and correlation(200) < 0.25
    assert max(correlation(distance) for distance in (1, 3, 21)) < 0  # of the other source


@pytest.mark.skipif(not REAL, reason="MNIST_JAX_TEST_DATA is not set")
def test_files_placed_manual_are_verified_and_used_without_network(tmp_path, dataset):
    for name in IDX_FILES.values():
        shutil.copyfile(f"{REAL}/{name}.gz", tmp_path / f"{name}.gz")
    assert datasets.load_dataset("mnist", str(tmp_path)).sha256 == dataset.sha256
    (tmp_path / LABELS).write_bytes(gzip.compress(idx_bytes(np.zeros(60000))))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: its SHA-256 is not"):
        datasets.load_dataset("mnist", str(tmp_path))


@pytest.mark.parametrize("rows", ["random", "last"])
def test_a_run_holds_out_the_images_that_validation_rows_names(folder, rows):
    experiment = Experiment("run", dataset=f"idx:{folder}", validation_fraction=0.15, validation_rows=rows)
    train, validation = (experiment.split_rows[name].rows for name in ("train", "validation"))
    assert len(validation) == 105
    assert np.array_equal(validation, np.arange(595, 700)) == (rows == "last")
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(700))


@pytest.mark.parametrize(("count", "fraction"), [(60000, 0.1), (4000, 0.1), (37, 0.25), (10, 0.0)])
def test_validation_split_is_a_partition(count, fraction):
    train, validation = batches.split_validation(count, fraction)
    assert len(validation) == -(-count * fraction // 1)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(count))


def test_a_resplit_draws_other_test_images_from_all(folder):
    own, first, again, second = (datasets.load_dataset(f"idx:{folder}", resplit=seed) for seed in (0, 1, 1, 2))
    assert first.sha256 == again.sha256 and len({own.sha256, first.sha256, second.sha256}) == 3
    pictures = []
    for data in (own, first, second):
        assert (len(data.train_labels), len(data.test_labels)) == (700, 130)
        images, labels = np.concatenate([data[0], data[2]]), np.concatenate([data[1], data[3]])
        pictures.append(sorted((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True)))
    assert pictures[0] == pictures[1] == pictures[2]
    moved = {image.tobytes() for image in first.test_images} - {image.tobytes() for image in own.test_images}
    assert 70 < len(moved) < 130


def test_scikit_learns_digits_keep_their_16_levels_or_are_resized():
    small, large = datasets.load_dataset("digits"), datasets.load_dataset("digits", image_size=28)
    assert small.train_images.shape[1:] == (8, 8, 1) and large.test_images.shape[1:] == (28, 28, 1)
    assert len(small.train_labels) + len(small.test_labels) == 1797 and len(np.unique(small.train_images)) == 17
    assert small.train_images.max() == 255 and set(np.bincount(small.test_labels)) <= {35, 36, 37}
    np.testing.assert_array_equal(small.test_labels, large.test_labels)
    corners = large.test_images[:, [[0], [27]], [0, 27], 0].astype(int) - small.test_images[:, [[0], [7]], [0, 7], 0]
    assert np.abs(corners).max() <= 1


def test_validation_split_is_scikit_learns():
    train_test_split = pytest.importorskip("sklearn.model_selection").train_test_split
    for ours, theirs in zip(
        batches.split_validation(60000, 0.1),
        train_test_split(range(60000), test_size=0.1, random_state=42),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_idx_folder_of_any_size_and_classes(tmp_path, suffix):
    rng = np.random.default_rng(0)
    arrays = {
        "train_images": rng.integers(0, 256, (7, 5, 9)),
        "train_labels": np.array([0, 1, 2, 0, 1, 2, 12]),
        "test_images": rng.integers(0, 256, (3, 5, 9)),
        "test_labels": np.array([2, 1, 0]),
    }
    got = datasets.load_dataset(f"idx:{write_folder(tmp_path, arrays, suffix)}")
    np.testing.assert_array_equal(got.train_images[..., 0], arrays["train_images"])
    np.testing.assert_array_equal(got.train_labels, [0, 1, 2, 0, 1, 2, 3])
    np.testing.assert_array_equal(got.test_labels, arrays["test_labels"])
    assert got.class_names == ("0", "1", "2", "12")


def test_sha256_is_of_the_content_not_of_the_compression(tmp_path, small):
    first, second = (datasets.load_dataset(f"idx:{write_folder(tmp_path / f'x{s}', small, s)}") for s in (".gz", ""))
    assert first.sha256 == second.sha256
    changed = {**small, "test_labels": small["test_labels"][::-1]}
    assert datasets.load_dataset(f"idx:{write_folder(tmp_path / 'changed', changed)}").sha256 != first.sha256


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def not_gzip(path):
    path.write_bytes(b"hello, I am not compressed")


def rewrite(content):
    return lambda path: path.write_bytes(gzip.compress(content))


IMAGE = np.zeros((700, 28, 28))
BROKEN = {
    "missing": (IMAGES, lambda path: path.unlink(), "train-images-idx3-ubyte.* is missing"),
    "truncated gzip": (IMAGES, truncate, "truncated or broken gzip"),
    "not gzip": (IMAGES, not_gzip, "not a gzip file"),
    "empty file": (IMAGES, lambda path: path.write_bytes(b""), "not a gzip file"),
    "wrong magic": (IMAGES, rewrite(b"\x00\x00\x07\x03" + b"\0" * 40), "wrong magic number 00000703"),
    "short header": (IMAGES, rewrite(idx_bytes(IMAGE)[:9]), "ends inside its header"),
    "states more": (IMAGES, rewrite(idx_bytes(IMAGE, (701, 28, 28))), "the file holds fewer"),
    "states terabytes": (IMAGES, rewrite(idx_bytes(IMAGE, (2**32 - 1,) * 3)), "the limit is 4294967296"),
    "holds more": (IMAGES, rewrite(idx_bytes(IMAGE, (699, 28, 28))), "the file holds more"),
    "counts differ": (LABELS, rewrite(idx_bytes(np.zeros(699))), "699 labels for 700 images"),
    "swapped": (IMAGES, rewrite(idx_bytes(np.zeros(700))), "are the files swapped"),
    "no image": (IMAGES, rewrite(idx_bytes(np.zeros((0, 28, 28)))), "for 0 images"),
    "sizes differ": (IMAGES, rewrite(idx_bytes(np.zeros((700, 28, 27)))), "differ in size"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named_in_one_line(tmp_path, folder, name):
    file, damage, message = BROKEN[name]
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy / file)
    with pytest.raises(DataError, match=message) as caught:
        datasets.load_dataset(f"idx:{copy}")
    assert "\n" not in str(caught.value) and str(copy) in str(caught.value)


def test_an_empty_data_set_is_refused(tmp_path, small):
    empty = {**small, "train_images": small["train_images"][:0], "train_labels": small["train_labels"][:0]}
    with pytest.raises(DataError, match="holds no image"):
        datasets.load_dataset(f"idx:{write_folder(tmp_path, empty)}")


def test_no_network_says_how_to_place_the_files(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(DataError, match="without a network, place train-images-idx3-ubyte") as caught:
        datasets.load_dataset("kmnist", str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("mnsit", "did you mean 'mnist'"), ("idx:", "must follow the colon"), ("mnist:", "must follow"), ("", "Known:")],
)
def test_unknown_data_set_names_the_nearest(name, hint):
    with pytest.raises(ConfigError, match=hint):
        datasets.load_dataset(name)


def test_an_epoch_sees_each_image_once_in_a_new_order():
    keys = [jax.random.key(0), jax.random.key(1)]
    orders = [batches.shuffled_batch_indices(key, 23, 5) for key in keys]
    for rows, mask in orders:
        assert rows.shape == mask.shape == (5, 5)
        np.testing.assert_array_equal(np.sort(rows[mask]), np.arange(23))
    assert (orders[0][0] != orders[1][0]).any()
