"""Pictures of digits, as people bring them: every format, paper, pen and light becomes an image like MNIST's."""

import gzip
import io
import sys
import zlib

import numpy as np
import pytest
from conftest import idx_bytes
from PIL import Image

from benchmarks.pictures import KINDS, NO_DIGITS, draw_ink, paint
from mnist_jax.errors import DataError
from mnist_jax.likeness import is_digit
from mnist_jax.pictures.digits import find_digits, preprocess_digit
from mnist_jax.pictures.lines import Place, find_lines, remove_lines
from mnist_jax.pictures.normalize import is_prepared
from mnist_jax.pictures.paper import estimate_paper
from mnist_jax.pictures.reading import expand_paths, read_pictures

SHAPE = (28, 28)


@pytest.fixture(scope="module")
def digit(small):
    return small["test_images"][0]


def enlarge(digit):
    """The digit dark on light, 11 times as large, off center."""
    page = np.full((500, 640), 240, np.uint8)
    page[100:408, 50:358] = 240 - (np.kron(digit, np.ones((11, 11))) * 0.8).astype(np.uint8)
    return page


def read(path, **options):
    (found,) = read_pictures(path, SHAPE, **options)
    return found


def correlation(one, other):
    return np.corrcoef(one.ravel().astype(float), other.ravel().astype(float))[0, 1]


def test_an_mnist_image_is_unchanged(tmp_path, digit):
    Image.fromarray(digit).save(tmp_path / "digit.png")
    found = read(tmp_path / "digit.png")
    np.testing.assert_array_equal(found.image, digit)
    assert found.steps == () and found.box == (0, 0, 28, 28)


def test_nearly_all_of_mnists_images_are_known_as_prepared(small):
    assert np.mean([is_prepared(image, SHAPE) for image in small["train_images"]]) > 0.995
    moved = [np.roll(image, 4, axis=0) for image in small["train_images"][:50]]
    assert not any(is_prepared(image, SHAPE) for image in moved)


def save(page, path, mode):
    """Writes a page in one of the modes that a file may have."""
    options = {}
    if mode == "I;16":
        picture = Image.fromarray(page.astype(np.uint16) * 257)
    elif mode == "inverted":
        picture = Image.fromarray(255 - page)
    elif mode == "RGBA":
        picture = Image.fromarray(np.stack([0 * page] * 3 + [240 - page], axis=-1), "RGBA")
    elif mode == "rotated by EXIF":
        picture, options["exif"] = Image.fromarray(np.rot90(page)), Image.Exif()
        options["exif"][0x0112] = 6  # to be rotated by 90 degrees clockwise
    else:
        picture = Image.fromarray(page).convert(mode)
    picture.save(path, **options)


MODES = ["L", "RGB", "P", "LA", "RGBA", "I;16", "inverted"]
FORMATS = {  # suffixes -> modes
    "png": MODES,
    "jpg": ["L", "RGB", "CMYK", "rotated by EXIF"],
    "webp": ["RGB", "RGBA", "rotated by EXIF"],
    "bmp": ["L", "RGB", "P"],
    "tif": ["L", "RGB", "P", "CMYK", "I;16"],
    "gif": ["L", "P"],
}


@pytest.mark.parametrize(("suffix", "mode"), [(suffix, mode) for suffix in FORMATS for mode in FORMATS[suffix]])
def test_every_format_and_mode_becomes_the_mnist_image(tmp_path, digit, suffix, mode):
    path = tmp_path / f"digit.{suffix}"
    save(enlarge(digit), path, mode)
    found = read(path)
    assert found.image.shape == SHAPE and found.image.dtype == np.uint8 and found.image.max() == 255
    assert found.steps[-1] == "centered by mass in 28x28" and not found.doubt
    assert ("inverted" in found.steps) == (mode != "inverted")
    assert correlation(found.image, digit) > 0.93, "its size or position differs from MNIST's"


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_as_people_take_them_become_the_mnist_image(small, kind):
    images, alike = small["test_images"], 0
    for number in range(4):
        rng = np.random.default_rng([number, zlib.crc32(kind.encode())])
        row = int(rng.integers(len(images)))
        found = find_digits(KINDS[kind](rng, [images[row], images[row - 1]]), SHAPE)
        alike += len(found) == 1 and correlation(found[0].image, images[row]) > 0.7
    assert alike >= 3


def test_an_empty_page_has_no_digit():
    for number in range(6):
        assert find_digits(NO_DIGITS["empty pages"](np.random.default_rng(number), []), SHAPE) == []
    assert find_digits(np.zeros((30, 30), np.uint8), SHAPE) == []


def test_letters_are_like_no_digit_and_digits_are(small):
    letters = [NO_DIGITS["letters"](np.random.default_rng(number), []) for number in range(20)]
    letters = np.stack([preprocess_digit(letter, SHAPE).image for letter in letters])
    assert is_digit(letters).mean() < 0.2
    assert is_digit(small["test_images"]).mean() > 0.95


def test_the_digit_is_20_pixels_long_and_centered_by_mass(digit):
    image = preprocess_digit(enlarge(digit), SHAPE).image.astype(float)
    rows, columns = np.flatnonzero(image.sum(axis=1) > 64), np.flatnonzero(image.sum(axis=0) > 64)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20)
    for axis in (0, 1):
        assert abs((image.sum(axis=1 - axis) * np.arange(28)).sum() / image.sum() - 14) <= 0.51


def test_a_postcode_is_read_from_left_to_right_and_row_by_row(small):
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(small["test_labels"] == label)[0] for label in (4, 2, 0, 7, 3)]
    inks = [draw_ink(rng, small["test_images"][row], 90) for row in rows]
    line = np.concatenate(inks, axis=1)
    page = np.pad(line, ((60, 150), (40, 40)))
    page[150:240, 140:230] = inks[3]
    found = find_digits(paint(page, (250, 250, 245), (30, 30, 60)).astype(np.uint8), SHAPE)
    assert len(found) == 6
    for one, row in zip(found, [*rows, rows[3]], strict=True):
        assert correlation(one.image, small["test_images"][row]) > 0.8
    lefts = [one.box[0] for one in found[:5]]
    assert lefts == sorted(lefts) and all(one.box[1] < 150 for one in found[:5]) and found[5].box[1] > 140


def test_a_small_or_faint_digit_is_in_doubt(digit):
    page = enlarge(digit)
    assert find_digits(page, SHAPE)[0].doubt == ""
    tiny = np.asarray(Image.fromarray(page[90:420, 40:370]).resize((10, 10), Image.Resampling.BOX))
    assert "pixels" in find_digits(np.pad(tiny, 20, constant_values=240), SHAPE)[0].doubt
    faint = (240 - (240 - page.astype(float)) / 15).astype(np.uint8)
    assert find_digits(faint, SHAPE)[0].doubt == "very faint"


def test_paper_keeps_what_is_wider_than_the_window():
    picture = np.full((60, 80), 200.0)
    picture[:, 40:] = 90  # a shadow
    paper = estimate_paper(picture, 15)
    np.testing.assert_array_equal(paper, picture)
    picture[20:40, 35:45] = 10  # a stroke across its edge
    np.testing.assert_array_equal(estimate_paper(picture, 25), paper)


def test_printed_lines_go_and_strokes_that_cross_them_stay():
    mask = np.zeros((100, 120), bool)
    mask[20:80, 50:58] = True
    drawn = mask.copy()
    drawn[30:32] = drawn[60:62] = True
    lines = find_lines(drawn)
    assert [(line.axis, line.slope, line.top, line.bottom) for line in lines] == [(0, 0, 30, 31), (0, 0, 60, 61)]
    np.testing.assert_array_equal(remove_lines(drawn, lines, Place()), mask)


def test_stages_are_light_on_dark(digit):
    for page in (enlarge(digit), 255 - enlarge(digit)):
        found = preprocess_digit(page, SHAPE)
        assert len(found.stages) == 3
        for stage in (*found.stages, found.image):
            assert stage.dtype == np.uint8 and np.median(stage) < 128 < stage.max()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_gives_each_image_as_it_is(tmp_path, small, suffix):
    images = np.concatenate(
        [small["test_images"][:3], np.roll(small["test_images"][:1], 5, axis=1), np.zeros((1, 28, 28))]
    )
    path = tmp_path / f"images{suffix}"
    path.write_bytes(gzip.compress(idx_bytes(images)) if suffix else idx_bytes(images))
    got = read_pictures(path, SHAPE)
    assert [found.name for found in got] == [f"{path}[{i}]" for i in range(5)]
    np.testing.assert_array_equal([found.image for found in got], images)
    assert [found.doubt for found in got] == ["", "", "", "", "blank"]


def test_an_idx_file_of_dark_digits_on_light_is_prepared(tmp_path, small):
    (tmp_path / "images").write_bytes(idx_bytes(255 - small["test_images"][:3]))
    for found, image in zip(read_pictures(tmp_path / "images", SHAPE), small["test_images"], strict=False):
        assert correlation(found.image, image) > 0.9 and found.steps


def test_an_idx_file_of_colored_pictures_is_prepared(tmp_path, digit):
    page = np.stack([enlarge(digit)] * 3, axis=-1)[None]
    header = b"\0\0\x08\x04" + np.array(page.shape, ">u4").tobytes()
    (tmp_path / "pages").write_bytes(header + page.tobytes())
    assert correlation(read(tmp_path / "pages").image, digit) > 0.93


def test_standard_input_folders_and_patterns(tmp_path, digit, monkeypatch):
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    Image.fromarray(enlarge(digit)).save(tmp_path / "a.JPG", "JPEG")
    inside = [str(tmp_path / "a.JPG"), str(tmp_path / "b.png")]
    assert expand_paths([str(tmp_path), "-", str(tmp_path / "*.png"), "gone.png"]) == [
        *inside,
        "-",
        inside[1],
        "gone.png",
    ]
    content = (tmp_path / "a.JPG").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert correlation(read("-").image, digit) > 0.9


def test_the_first_frame_of_a_moving_picture_is_read_and_said(tmp_path, digit):
    first, second = Image.fromarray(enlarge(digit)), Image.new("L", (640, 500), 255)
    for name in ("digit.gif", "digit.png", "digit.tif"):
        first.save(tmp_path / name, save_all=True, append_images=[second])
        found = read(tmp_path / name)
        assert found.steps[0] == "first of 2 frames" and correlation(found.image, digit) > 0.9


def truncated(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:900])


def specks(path):
    image = np.zeros((2000, 2000), np.uint8)
    image[[0, 0, -1, -1], [0, -1, 0, -1]] = 255
    Image.fromarray(image).save(path)


BAD = {
    "missing": (lambda path: None, "can't be read"),
    "empty": (lambda path: path.write_bytes(b""), "an empty file"),
    "text": (lambda path: path.write_text("hello"), "neither PNG, JPEG, WebP, BMP, TIFF, GIF nor IDX"),
    "HEIC": (lambda path: path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(90)), "HEIC .* save it as JPEG or PNG"),
    "1x1": (lambda path: Image.new("L", (1, 1)).save(path), "no digit found"),
    "blank": (lambda path: Image.new("L", (300, 200), 255).save(path), "no digit found"),
    "transparent": (lambda path: Image.new("RGBA", (30, 20)).save(path), "no digit found"),
    "truncated": (truncated, "can't be read as a picture"),
    "only a signature": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "can't be read as a picture"),
    "bomb": (lambda path: Image.new("1", (20000, 20000)).save(path), "more than 50000000 pixels"),
    "labels": (lambda path: path.write_bytes(idx_bytes(np.zeros(9))), "holds labels, not images"),
    "specks": (specks, "no digit found"),
    "floats": (lambda path: path.write_bytes(b"\0\0\x0d\x03" + b"\0\0\0\1" * 3 + bytes(4)), "images of float32"),
    "no image": (lambda path: path.write_bytes(idx_bytes(np.zeros((0, 28, 28)))), "holds no image"),
    "no image, but large": (
        lambda path: path.write_bytes(idx_bytes(np.zeros((0, 1, 1)), (0, 2**31, 2**31))),
        "the limit is 50000000",
    ),
    "no pixel": (lambda path: path.write_bytes(idx_bytes(np.zeros((1, 0, 28)))), "holds no image"),
    "folder": (lambda path: path.mkdir(), "holds no picture"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_one_line(tmp_path, name):
    make, message = BAD[name]
    make(tmp_path / "bad.png")
    with pytest.raises(DataError, match=message) as caught:
        read_pictures(tmp_path / "bad.png", SHAPE)
    assert "\n" not in str(caught.value) and "bad.png" in str(caught.value)


def test_an_empty_name_is_not_the_current_folder():
    with pytest.raises(DataError, match="the name of a file is empty"):
        read_pictures("", SHAPE)
