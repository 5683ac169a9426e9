"""Data sets as they lie on people's disks: every spelling and format gives the arrays that were written."""

import gzip
import io
import json
import logging
import shutil
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from conftest import command, write_folder
from PIL import Image

from mnist_jax.batches import split_dataset
from mnist_jax.datasets import load_dataset
from mnist_jax.errors import ConfigError, DataError
from mnist_jax.idx import DTYPES, IDX_FILES, read_idx

PARTS = (*IDX_FILES,)
CODES = {np.dtype(dtype).newbyteorder("="): code for code, dtype in DTYPES.items()}


@pytest.fixture(scope="module")
def arrays(small):
    """60 training and 30 test images."""
    return {part: small[part][: 60 if "train" in part else 30] for part in PARTS}


def write_idx(path, array):
    array = np.asarray(array)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, CODES[array.dtype], array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = header + array.astype(array.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


def assert_holds(dataset, arrays):
    for part in PARTS:
        expected = arrays[part]
        np.testing.assert_array_equal(getattr(dataset, part), expected[..., None] if expected.ndim == 3 else expected)
    assert dataset.class_names == tuple(map(str, range(10)))


SPELLINGS = {
    "canonical": "train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte",
    "dots": "train-images.idx3-ubyte train-labels.idx1-ubyte t10k-images.idx3-ubyte t10k-labels.idx1-ubyte",
    "test for t10k": "train-images-idx3-ubyte.gz train-labels-idx1-ubyte.gz "
    "test-images-idx3-ubyte test-labels-idx1-ubyte",
    "upper case": "TRAIN-IMAGES-IDX3-UBYTE TRAIN-LABELS-IDX1-UBYTE T10K-IMAGES-IDX3-UBYTE T10K-LABELS-IDX1-UBYTE",
    "copies": "train-images-idx3-ubyte(1) train-labels-idx1-ubyte(1) t10k-images-idx3-ubyte t10k-labels-idx1-ubyte(2)",
    "folders": "train-images-idx3-ubyte/train-images.idx3-ubyte train-labels-idx1-ubyte/train-labels.idx1-ubyte "
    "t10k-images-idx3-ubyte/t10k-images.idx3-ubyte t10k-labels-idx1-ubyte/t10k-labels.idx1-ubyte",
    "torchvision": "MNIST/raw/train-images-idx3-ubyte MNIST/raw/train-labels-idx1-ubyte "
    "MNIST/raw/t10k-images-idx3-ubyte MNIST/raw/t10k-labels-idx1-ubyte",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_idx_files_are_found_by_what_they_are(tmp_path, arrays, spelling):
    for name, part in zip(SPELLINGS[spelling].split(), PARTS, strict=True):
        write_idx(tmp_path / name, arrays[part].astype(np.uint8))
    (tmp_path / "notes.txt").write_text("train images and labels, test images and labels")
    assert_holds(load_dataset(f"idx:{tmp_path}"), arrays)
    if spelling == "torchvision":  # which keeps both
        for path in list((tmp_path / "MNIST/raw").iterdir()):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        assert_holds(load_dataset(f"idx:{tmp_path}"), arrays)


def test_two_candidates_are_asked_about_and_told_apart_by_their_beginning(tmp_path, arrays):
    for prefix, change in (("emnist-digits", 0), ("emnist-mnist", 1)):
        for part in PARTS:
            array = arrays[part].swapaxes(1, 2) if arrays[part].ndim == 3 else (arrays[part] + change) % 10
            split, kind = part.split("_")
            write_idx(tmp_path / f"{prefix}-{split}-{kind}-idx-ubyte.gz", array.astype(np.uint8))
    with pytest.raises(DataError, match=rf"two files of train images, .* as in dataset=idx:{tmp_path}/emnist-digits-"):
        load_dataset(f"idx:{tmp_path}")
    assert_holds(load_dataset(f"idx:{tmp_path}/emnist-digits"), arrays)
    (tmp_path / "emnist-digits-train-labels-idx-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte .* is missing; .*, it holds emnist-digits-"):
        load_dataset(f"idx:{tmp_path}/emnist-digits")


def test_emnists_letters_and_qmnists_matrix(tmp_path, arrays, caplog):
    with caplog.at_level(logging.INFO, "mnist_jax"):
        for part in PARTS:
            array = arrays[part].swapaxes(1, 2) if arrays[part].ndim == 3 else arrays[part] + 1
            split, kind = part.split("_")
            write_idx(tmp_path / "e" / f"emnist-letters-{split}-{kind}-idx3-ubyte", array.astype(np.uint8))
        letters = load_dataset(f"idx:{tmp_path}/e")
    np.testing.assert_array_equal(letters.train_images[..., 0], arrays["train_images"])
    np.testing.assert_array_equal(letters.train_labels, arrays["train_labels"])
    assert letters.class_names[0] == "A" and len(letters.class_names) == 26
    assert (
        "turned upright" in caplog.text and "labeled from 1" in caplog.text and "no training image is of" in caplog.text
    )
    for part in PARTS:
        split, kind = part.split("_")
        array = arrays[part].astype(np.uint8)
        if kind == "labels":  # of which the others describe the writer
            array = np.repeat(arrays[part][:, None].astype(np.int32), 8, axis=1) + np.arange(8, dtype=np.int32)
        write_idx(tmp_path / "q" / f"qmnist-{split}-{kind}-idx{array.ndim}-ubyte", array)
    assert_holds(load_dataset(f"idx:{tmp_path}/q"), arrays)


@pytest.mark.parametrize("dtype", CODES, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_every_type_and_rank_of_idx(tmp_path, dtype, rank):
    array = np.arange(3**rank).reshape((3,) * rank).astype(dtype)
    write_idx(tmp_path / "file", array)
    got = read_idx(tmp_path / "file")
    np.testing.assert_array_equal(got, array)
    assert got.dtype == dtype


def test_rgb_floats_and_integers_of_idx_and_labels_with_gaps(tmp_path, arrays):
    colored = {part: np.stack([array] * 3, axis=-1) if array.ndim == 3 else array for part, array in arrays.items()}
    for folder, kind in (("rgb", np.uint8), ("int", np.int32), ("float", np.float32)):
        for part in PARTS:
            array = colored[part].astype(kind) if part.endswith("images") else 3 * arrays[part].astype(np.int32)
            write_idx(tmp_path / folder / IDX_FILES[part], array)
        got = load_dataset(f"idx:{tmp_path}/{folder}")
        np.testing.assert_array_equal(got.train_images, colored["train_images"])
        assert got.train_images.dtype == (np.float32 if kind == np.float32 else np.uint8)
        np.testing.assert_array_equal(got.test_labels, arrays["test_labels"])
        assert got.class_names == tuple(str(3 * label) for label in range(10))
    write_idx(tmp_path / "int" / IDX_FILES["test_images"], 1000 * colored["test_images"].astype(np.int32))
    with pytest.raises(DataError, match="integers from 0 to 255000; they must be from 0 to 255, or floats"):
        load_dataset(f"idx:{tmp_path}/int")


def write_keras(path, arrays):
    np.savez(path / "mnist.npz", x_train=arrays["train_images"], y_train=arrays["train_labels"].astype(np.uint8),
             x_test=arrays["test_images"], y_test=arrays["test_labels"].astype(np.uint8))  # fmt: skip
    return f"npz:{path}/mnist.npz"


def write_medmnist(path, arrays):
    named = {"train_images": arrays["train_images"][:-20], "val_images": arrays["train_images"][-20:]}
    named |= {"train_labels": arrays["train_labels"][:-20, None], "val_labels": arrays["train_labels"][-20:, None]}
    named |= {"test_images": arrays["test_images"], "test_labels": arrays["test_labels"][:, None]}
    np.savez_compressed(path / "medmnist.npz", **named)
    return f"npz:{path}/medmnist.npz"


def csv_text(images, labels, header=True):
    names = "label," + ",".join(f"pixel{i}" for i in range(images[0].size)) + "\n"
    rows = [",".join(map(str, [label, *image.ravel()])) for image, label in zip(images, labels, strict=True)]
    return names * header + "\n".join(rows) + "\n"


def write_csv(path, arrays):
    for split, name, header in (("train", "mnist_train.csv", True), ("test", "mnist_test.csv", False)):
        text = csv_text(arrays[f"{split}_images"], arrays[f"{split}_labels"], header)
        (path / name).write_text(text, encoding="utf-8-sig")
    return f"csv:{path}"


def write_images(path, arrays, size=None):
    for split, kind in (("train", "png"), ("test", "bmp")):
        for i, (image, label) in enumerate(zip(arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True)):
            folder = path / split / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(image)
            picture = picture.resize((size, size + i % 2)) if size else picture
            picture.convert("RGB").save(folder / f"{i}.{kind}")
    (path / "train" / ".hidden").mkdir()
    return f"images:{path}"


def write_parquet_file(path, images, labels, names=None):
    cells = []
    for image in images:
        content = io.BytesIO()
        Image.fromarray(image).save(content, "PNG")
        cells.append({"bytes": content.getvalue(), "path": None})
    table = pyarrow.table({"image": cells, "label": labels.astype(np.int64)})
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}})} if names else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path)


def write_parquet(path, arrays):
    names = [*map(str, range(10))]
    for split in ("train", "test"):
        file = path / "mnist" / f"{split}-00000-of-00001.parquet"
        write_parquet_file(file, arrays[f"{split}_images"], arrays[f"{split}_labels"], names)
    return f"parquet:{path}"


FORMATS = {
    "Keras's npz": write_keras,
    "MedMNIST's npz": write_medmnist,
    "CSV": write_csv,
    "images": write_images,
    "Parquet": write_parquet,
}


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_the_arrays_that_were_written(tmp_path, arrays, format):
    name = FORMATS[format](tmp_path, arrays)
    dataset = load_dataset(name)
    if format == "images":  # sorted by class
        for split in ("train", "test"):
            order = np.argsort(arrays[f"{split}_labels"], kind="stable")
            arrays = arrays | {f"{split}_{kind}": arrays[f"{split}_{kind}"][order] for kind in ("images", "labels")}
    assert_holds(dataset, arrays)
    _, validation = split_dataset(dataset, 0.1)
    assert len(validation) == (20 if format == "MedMNIST's npz" else 6)
    if format == "MedMNIST's npz":
        np.testing.assert_array_equal(validation, np.arange(40, 60))


@pytest.mark.parametrize("format", ["Keras's npz", "images"])
def test_a_run_trains_on_it_and_evaluate_finds_it_from_another_folder(tmp_path, arrays, format):
    (tmp_path / "data").mkdir()
    name = FORMATS[format](tmp_path / "data", arrays).replace(str(tmp_path / "data"), "data")
    cwd = tmp_path
    trained = command(f"--dataset={name}", "--epochs=1", "--workdir=run", experiment="softmax", cwd=cwd)
    assert trained.returncode == 0, trained.stderr
    assert "--batch_size=200: cut to the 54 training images" in trained.stderr
    asked = command(f"--dataset={name}", "--batch_size=200", "--workdir=asked", experiment="softmax", cwd=cwd)
    assert asked.returncode == 2 and "must be between 1 and the number of images, 54" in asked.stderr
    (tmp_path / "other").mkdir()
    words = ("--workdir=../run", "--output=out")
    scored = command(*words, experiment="evaluate", cwd=tmp_path / "other")
    assert scored.returncode == 0 and "30 images" in scored.stdout, scored.stderr
    again = command("--workdir=../run", f"--dataset={name.replace('data', str(tmp_path / 'data'))}", "--output=again",
                    experiment="evaluate", cwd=tmp_path / "other")  # fmt: skip
    assert again.stdout.splitlines()[1:-1] == scored.stdout.splitlines()[1:-1]


def test_one_file_gets_a_stratified_test_split_that_is_always_the_same(tmp_path, small):
    images, labels = small["train_images"][:200], small["train_labels"][:200]
    (tmp_path / "train.csv").write_text(csv_text(images, labels))
    write_parquet_file(tmp_path / "all.parquet", images, labels)
    np.savez(tmp_path / "all.npz", images=images, labels=labels)
    loaded = [load_dataset(f"{kind}:{tmp_path / name}") for kind, name in
              (("csv", "train.csv"), ("parquet", "all.parquet"), ("npz", "all.npz"))]  # fmt: skip
    assert len({dataset.sha256 for dataset in loaded}) == 1
    for label in range(10):
        count = (labels == label).sum()
        assert abs((loaded[0].test_labels == label).sum() - count / 5) <= 0.5
    assert len(loaded[0].train_labels) + len(loaded[0].test_labels) == 200


def test_kaggles_test_file_has_no_labels(tmp_path, arrays, caplog):
    (tmp_path / "train.csv").write_text(csv_text(arrays["train_images"], arrays["train_labels"]))
    text = csv_text(arrays["test_images"], arrays["test_labels"])
    without = "\n".join(line.partition(",")[2] for line in text.split("\n"))
    (tmp_path / "test.csv").write_text(without)
    with pytest.raises(DataError, match="has no labels; a file to train on needs a column named label"):
        load_dataset(f"csv:{tmp_path}/test.csv")
    with caplog.at_level(logging.INFO, "mnist_jax"):
        assert len(load_dataset(f"csv:{tmp_path}").train_labels) < 60
    assert "test.csv has no labels and is left out" in caplog.text


def test_pictures_of_other_sizes_are_resized_and_broken_ones_are_named(tmp_path, arrays, caplog):
    name = write_images(tmp_path, arrays, size=40)
    with pytest.raises(DataError, match=r"40x4[01] pixels, .* has 40x4[01]; resize them all with image_size=28"):
        load_dataset(name)
    (tmp_path / "train" / "3" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with caplog.at_level(logging.INFO, "mnist_jax"):
        dataset = load_dataset(name, image_size=28)
    assert dataset.train_images.shape == (60, 28, 28, 1)
    assert "broken.png: can't be read as a picture" in caplog.text and "it is left out" in caplog.text
    with pytest.raises(ConfigError, match="image_size=28: has no effect on dataset=mnist5k"):
        load_dataset("mnist5k", image_size=28)


def test_remarks(tmp_path, arrays, caplog):
    same = arrays | {"train_labels": 0 * arrays["train_labels"], "test_images": arrays["train_images"][:30]}
    with caplog.at_level(logging.INFO, "mnist_jax"):
        load_dataset(f"idx:{write_folder(tmp_path / 'one', same)}")
        blank = {part: 0 * array if part.endswith("images") else array for part, array in arrays.items()}
        load_dataset(f"idx:{write_folder(tmp_path / 'blank', blank)}")
    shared = "30 of the 30 different test images are training images too"
    for remark in ("of one class, 0", shared, "all pixels of the training images are alike"):
        assert remark in caplog.text


def test_a_bare_path_says_which_prefix_fits(tmp_path, arrays):
    for number, (format, prefix) in enumerate(zip(FORMATS, ("npz", "npz", "csv", "images", "parquet"), strict=True)):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = FORMATS[format](folder, arrays).partition(":")[2]
        with pytest.raises(ConfigError, match=f"did you mean {prefix}:{path}"):
            load_dataset(path)
    with pytest.raises(ConfigError, match="is a folder; did you mean idx:"):
        load_dataset(str(write_folder(tmp_path / "idx", arrays)))


def bomb(path):
    with zipfile.ZipFile(path / "data.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for key in ("x_train", "y_train"):
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**12,)})
            archive.writestr(f"{key}.npy", header.getvalue() + bytes(10**6))


def objects(path):
    np.savez(path / "data.npz", x_train=np.array([{}, []], dtype=object), y_train=np.zeros(2, int))


def holds(name, text):
    """Writes a file of text into the folder that it is called with."""
    return lambda path: (path / name).write_text(text)


BAD = {
    "npz missing": ("npz:PATH/gone.npz", lambda path: None, "no such file"),
    "npz of other keys": (
        "npz:PATH/data.npz",
        lambda path: np.savez(path / "data.npz", a=1),
        "holds a; it must hold x_train",
    ),
    "npz of objects": ("npz:PATH/data.npz", objects, "x_train holds Python objects"),
    "npz bomb": ("npz:PATH/data.npz", bomb, "x_train does not hold the .* that its header states"),
    "npz of text": (
        "npz:PATH/data.npz",
        holds("data.npz", "hello"),
        "not a .npz file of arrays",
    ),
    "csv row of another length": (
        "csv:PATH/data.csv",
        holds("data.csv", "label,a,b,c,d\n1,2,3,4,5\n1,2,3,4\n"),
        "the number of columns changed from 5 to 4 at row 2",
    ),
    "csv of words": (
        "csv:PATH/data.csv",
        holds("data.csv", "label,a,b,c,d\n1,2,3,4,5\n1,2,x,4,5\n"),
        "could not convert string 'x' to float32 at row 1, column 3",
    ),
    "csv that is not square": (
        "csv:PATH/data.csv",
        holds("data.csv", "label,a,b\n1,2,3\n"),
        "2 pixels in a row; an image must be square",
    ),
    "csv of other columns": (
        "csv:PATH/data.csv",
        holds("data.csv", "1,2,3\n"),
        "has 3 columns",
    ),
    "csv of bytes": ("csv:PATH/data.csv", lambda path: (path / "data.csv").write_bytes(bytes(range(256))), "not text"),
    "csv folder": ("csv:PATH", holds("some.csv", "1\n"), "it holds some.csv"),
    "no pictures": ("images:PATH", lambda path: (path / "3").mkdir(), "holds no pictures in class sub-folders"),
    "no picture folder": ("images:PATH/gone", lambda path: None, "no such folder"),
    "parquet of other columns": (
        "parquet:PATH/data.parquet",
        lambda path: pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), path / "data.parquet"),
        r"columns are text \(string\); there must be an image",
    ),
    "parquet of text": (
        "parquet:PATH/data.parquet",
        holds("data.parquet", "hello"),
        "can't be read as Parquet",
    ),
    "no parquet": ("parquet:PATH", lambda path: None, "holds no .parquet file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_are_one_line(tmp_path, name):
    dataset, make, message = BAD[name]
    make(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(dataset.replace("PATH", str(tmp_path)))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_truncated_file_of_each_format_is_one_line(tmp_path, arrays):
    for format, make in FORMATS.items():
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        (tmp_path / "data").mkdir()
        name = make(tmp_path / "data", arrays)
        for path in (tmp_path / "data").rglob("*.*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        with pytest.raises(DataError) as caught:
            load_dataset(name)
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value), format
