import gzip

import numpy as np
import pytest
from conftest import idx_bytes
from PIL import Image

from mnist_jax import images
from mnist_jax.errors import DataError

SHAPE = (28, 28)


@pytest.fixture(scope="module")
def digit(small):
    return small["test_images"][0]


def enlarge(digit):
    """The digit dark on light, 11 times as large, off center."""
    page = np.full((500, 640), 240, np.uint8)
    page[100:408, 50:358] = 240 - (np.kron(digit, np.ones((11, 11))) * 0.8).astype(np.uint8)
    return page


def read(path):
    (picture,) = images.read_pictures(path, SHAPE)
    return picture


def test_an_mnist_image_is_unchanged(tmp_path, digit):
    Image.fromarray(digit).save(tmp_path / "digit.png")
    picture = read(tmp_path / "digit.png")
    np.testing.assert_array_equal(picture.image, digit)
    assert picture.preprocessing_steps == ()


@pytest.mark.parametrize("kind", ["L", "RGB", "P", "RGBA", "CMYK", "I;16", "inverted", "rotated by EXIF"])
def test_every_kind_of_picture_becomes_the_mnist_image(tmp_path, digit, kind):
    page, path, options = enlarge(digit), tmp_path / "digit.png", {}
    if kind == "I;16":
        picture = Image.fromarray(page.astype(np.uint16) * 257)
    elif kind == "inverted":
        picture = Image.fromarray(255 - page)
    elif kind == "RGBA":
        picture = Image.fromarray(np.stack([0 * page] * 3 + [240 - page], axis=-1), "RGBA")
    elif kind == "rotated by EXIF":
        picture, path = Image.fromarray(np.rot90(page)), tmp_path / "digit.jpg"
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6  # to be rotated by 90 degrees clockwise
    else:
        picture = Image.fromarray(page).convert(kind)
        path = tmp_path / ("digit.jpg" if kind == "CMYK" else "digit.png")
    picture.save(path, **options)
    got = read(path)
    assert got.image.shape == SHAPE and got.image.dtype == np.uint8 and got.image.max() == 255
    assert got.preprocessing_steps[-1] == "centered by mass in 28x28"
    assert ("inverted" in got.preprocessing_steps) == (kind != "inverted")
    distance = np.abs(got.image.astype(float) - digit).mean()
    assert distance < 8, "its size or position differs from MNIST's"


def test_the_digit_is_20_pixels_long_and_centered_by_mass(digit):
    image = images.preprocess_digit(enlarge(digit), SHAPE).image.astype(float)
    rows, columns = np.flatnonzero(image.sum(axis=1) > 64), np.flatnonzero(image.sum(axis=0) > 64)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20)
    for axis in (0, 1):
        assert abs((image.sum(axis=1 - axis) * np.arange(28)).sum() / image.sum() - 14) <= 0.51


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_gives_each_image(tmp_path, small, suffix):
    content = idx_bytes(small["test_images"][:3])
    path = tmp_path / f"images{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    got = images.read_pictures(path, SHAPE)
    assert [picture.name for picture in got] == [f"{path}[{i}]" for i in range(3)]
    np.testing.assert_array_equal([picture.image for picture in got], small["test_images"][:3])


def animated(path):
    frames = [Image.new("L", (30, 30), shade) for shade in (0, 255)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def truncated(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:900])


def bomb(path):
    Image.new("1", (20000, 20000)).save(path)


def specks(path):
    image = np.zeros((2000, 2000), np.uint8)
    image[[0, 0, -1, -1], [0, -1, 0, -1]] = 255
    Image.fromarray(image).save(path)


BAD = {
    "missing": (lambda path: None, "can't be read"),
    "empty": (lambda path: path.write_bytes(b""), "an empty file"),
    "text": (lambda path: path.write_text("hello"), "neither PNG, JPEG nor IDX"),
    "gif": (lambda path: Image.new("L", (9, 9)).save(path, format="GIF"), "neither PNG, JPEG nor IDX"),
    "1x1": (lambda path: Image.new("L", (1, 1)).save(path), "blank"),
    "blank": (lambda path: Image.new("L", (300, 200), 255).save(path), "blank"),
    "transparent": (lambda path: Image.new("RGBA", (30, 20)).save(path), "blank"),
    "animated": (animated, "animated, with 2 frames"),
    "truncated": (truncated, "can't be read as PNG or JPEG"),
    "only a signature": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "can't be read as PNG or JPEG"),
    "bomb": (bomb, "more than 50000000 pixels"),
    "labels": (lambda path: path.write_bytes(idx_bytes(np.zeros(9))), "holds labels, not images"),
    "specks": (specks, "too faint"),
    "no image": (lambda path: path.write_bytes(idx_bytes(np.zeros((0, 28, 28)))), "holds no image"),
    "no image, but large": (
        lambda path: path.write_bytes(idx_bytes(np.zeros((0, 1, 1)), (0, 2**31, 2**31))),
        "the limit is 50000000",
    ),
    "no pixel": (lambda path: path.write_bytes(idx_bytes(np.zeros((1, 0, 28)))), "holds no image"),
    "folder": (lambda path: path.mkdir(), r"a folder; name the files in it, as in .*bad.png/\*.png"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_one_line(tmp_path, name):
    make, message = BAD[name]
    make(tmp_path / "bad.png")
    with pytest.raises(DataError, match=message) as caught:
        images.read_pictures(tmp_path / "bad.png", SHAPE)
    assert "\n" not in str(caught.value) and "bad.png" in str(caught.value)


def test_an_empty_name_is_not_the_current_folder():
    with pytest.raises(DataError, match="the name of a file is empty"):
        images.read_pictures("", SHAPE)
