"""Trains the network that tells digits from other marks, mnist_jax/likeness.npz, on digits and on what are none.

python -m benchmarks.likeness FOLDER, of the four IDX files of MNIST. Letters in the fonts of STIX are never shown.
"""

import dataclasses
import sys

import numpy as np
from flax.traverse_util import flatten_dict
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

import mnist_jax as mj
from benchmarks.pictures import font_path
from mnist_jax.likeness import CONFIG, WEIGHTS, digit_logits
from mnist_jax.pictures.normalize import disk, find_box, normalize

Rng = np.random.Generator
FONTS = ["DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSansMono"]
FONTS += ["cmr10", "cmmi10", "cmss10", "cmtt10"]
HELD_OUT_FONTS = ["STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"]
LETTERS = "ACDEFHKLMNPQRTUVWXYadefhkmnprtuvwx"  # those that look like no digit
ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
SIZE = 72  # of drawings
FRACTION_DOUBTED = 0.01  # of the held-out training digits that lie below the threshold
RECIPE = dataclasses.replace(
    CONFIG,
    dropout=0.1,
    rotation=8.0,
    zoom=0.1,
    translation=1.0,
    loss="categorical_crossentropy",
    label_smoothing=0.1,
    optimizer="adam",
    learning_rate=1e-2,
    schedule="one_cycle",
    batch_size=100,
    epochs=4,
)
TRAIN, HELD_OUT, THRESHOLD_ROWS = slice(36_000), slice(54_000, 56_000), slice(56_000, 60_000)


def _text(text: str, font: str, size: int, width: int = SIZE) -> np.ndarray:
    image = Image.new("L", (width, SIZE))
    position = width / 2, SIZE / 2
    ImageDraw.Draw(image).text(position, text, 255, font=ImageFont.truetype(font_path(font), size), anchor="mm")
    return np.asarray(image) / 255


def _warp(rng: Rng, ink: np.ndarray, elastic: float, turn: float) -> np.ndarray:
    """Bends, turns, shears and stretches."""
    size = len(ink)
    bend = [ndimage.zoom(rng.normal(0, elastic * size, (4, 4)), size / 4, order=3) for _ in range(2)]
    y, x = np.mgrid[:size, :size] - size / 2
    angle, shear, stretch = rng.normal(0, turn), rng.normal(0, turn), np.exp(rng.normal(0, turn * 0.8))
    x = x * stretch + shear * y
    y, x = np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x
    return ndimage.map_coordinates(ink, [y + size / 2 + bend[0], x + size / 2 + bend[1]], order=1)


def _thicken(rng: Rng, ink: np.ndarray, thinnest: int, thickest: int) -> np.ndarray:
    radius = int(rng.integers(thinnest, thickest + 1))
    if radius < 0:
        return ndimage.grey_erosion(ink, footprint=disk(-radius))
    return ndimage.grey_dilation(ink, footprint=disk(radius)) if radius else ink


def _prepare(ink: np.ndarray) -> np.ndarray | None:
    """As find_digits would: [28, 28] uint8, or None where there is next to nothing."""
    mask = ink > 0.3 * ink.max()
    if ink.max() <= 0 or mask.sum() < 4:
        return None
    return normalize(ink[find_box(mask)] * 255 / ink.max(), (28, 28))


def draw_letter(rng: Rng, digits: mj.Dataset, fonts: list[str] = FONTS) -> np.ndarray:
    ink = _text(LETTERS[rng.integers(len(LETTERS))], fonts[rng.integers(len(fonts))], 44)
    return _thicken(rng, _warp(rng, ink, 0.02, 0.19), -1, 3)


def draw_word(rng: Rng, digits: mj.Dataset) -> np.ndarray:
    text = "".join(ALPHABET[i] for i in rng.integers(0, 52, int(rng.integers(2, 5))))
    return _text(text, FONTS[rng.integers(len(FONTS))], 30, 2 * SIZE)


def turn_digit(rng: Rng, digits: mj.Dataset) -> np.ndarray:
    """On its side, or as in a mirror, where that is no other digit."""
    images, labels = digits.train_images[TRAIN, ..., 0], digits.train_labels[TRAIN]
    rows = np.flatnonzero(np.isin(labels, (2, 3, 4, 5, 7)))
    row = rows[rng.integers(len(rows))]
    turns = [lambda a: np.rot90(a), lambda a: np.rot90(a, 3), lambda a: a[:, ::-1], lambda a: a[::-1]]
    return turns[rng.integers(2 if labels[row] in (2, 5) else 4)](images[row]) / 255


def join_digits(rng: Rng, digits: mj.Dataset) -> np.ndarray:
    """Two side by side, above each other, or on each other."""
    one, other = digits.train_images[rng.integers(0, TRAIN.stop, 2), ..., 0] / 255
    kind = rng.random()
    if kind < 0.25:
        return np.maximum(one, np.roll(other, rng.integers(-6, 7, 2), (0, 1)))
    if kind < 0.8:
        return np.concatenate([one[:, 4:24], other[:, 4:24]], axis=1)
    return np.concatenate([one[4:24], other[4:24]], axis=0)


def draw_scribble(rng: Rng, digits: mj.Dataset) -> np.ndarray:
    image = Image.new("L", (SIZE, SIZE))
    points = rng.uniform(-10, SIZE + 10, (4 * int(rng.integers(4, 16)), 2))
    points = ndimage.gaussian_filter1d(points, rng.uniform(0.8, 2), axis=0)
    ImageDraw.Draw(image).line([tuple(point) for point in points], 255, int(rng.integers(2, 8)), joint="curve")
    return np.asarray(image) / 255


def draw_blobs(rng: Rng, digits: mj.Dataset) -> np.ndarray:
    clouds = ndimage.gaussian_filter(rng.normal(size=(56, 56)), rng.uniform(1.5, 7))
    ink = 1 / (1 + np.exp(-(clouds / clouds.std() - rng.uniform(-0.3, 1.2)) * rng.uniform(3, 20)))
    return ink * (np.hypot(*(np.mgrid[:56, :56] - 28)) < rng.integers(10, 40))


def draw_shapes(rng: Rng, digits: mj.Dataset) -> np.ndarray:
    image = Image.new("L", (SIZE, SIZE))
    draw, width = ImageDraw.Draw(image), int(rng.integers(2, 9))
    for _ in range(int(rng.integers(1, 5))):
        a, b, c, d = (int(n) for n in rng.integers(5, 67, 4))
        kind, fill = rng.integers(4), 255 if rng.random() < 0.45 else None
        if kind == 0:
            draw.rectangle((min(a, c), min(b, d), max(a, c) + 3, max(b, d) + 3), fill=fill, outline=255, width=width)
        elif kind == 1:
            draw.line([tuple(p) for p in rng.integers(5, 67, (int(rng.integers(3, 6)), 2))], 255, width)
        elif kind == 2:
            sides, turn = int(rng.integers(3, 7)), int(rng.integers(0, 90))
            draw.regular_polygon((36, 36, int(rng.integers(12, 30))), sides, turn, fill=fill, outline=255)
        else:
            draw.line([(5, b), (67, d)], 255, width)
            draw.line([(a, 5), (c, 67)], 255, width)
    return np.asarray(image) / 255


OTHERS = {  # what draws something that is no digit -> its share
    draw_letter: 0.46,
    turn_digit: 0.14,
    join_digits: 0.12,
    draw_scribble: 0.09,
    draw_shapes: 0.07,
    draw_blobs: 0.06,
    draw_word: 0.06,
}


def vary_digit(rng: Rng, image: np.ndarray) -> np.ndarray:
    """A digit as it is, or thicker, thinner, or bent a little."""
    kind = rng.random()
    if kind < 0.4:
        return image
    ink = np.clip(np.asarray(Image.fromarray(image).resize((56, 56), Image.Resampling.BICUBIC)) / 255, 0, 1)
    ink = _thicken(rng, ink, -1, 1) if kind < 0.7 else _warp(rng, ink, 0, 0.12)
    if kind > 0.9:
        ink = 1 / (1 + np.exp(-(ink - 0.5) * 12))
    prepared = _prepare(ink)
    return image if prepared is None else prepared


def make_examples(rng: Rng, digits: mj.Dataset, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """For each digit one of it and one that is none: [2 N, 28, 28] uint8 and [2 N] int32."""
    images = []
    for image in digits.train_images[rows, ..., 0]:
        other = None
        while other is None:
            draw = rng.choice(np.array(list(OTHERS)), p=list(OTHERS.values()))
            other = _prepare(draw(rng, digits))
        images += [other, vary_digit(rng, image)]
    return np.stack(images), np.arange(len(images), dtype=np.int32) % 2


def main(folder: str) -> None:
    digits = mj.load_dataset(f"idx:{folder}")
    rng = np.random.default_rng(0)
    arrays = *make_examples(rng, digits, TRAIN), *make_examples(rng, digits, HELD_OUT)
    dataset = mj.make_dataset(*arrays, class_names=("other", "digit"), name="likeness")
    experiment = mj.Experiment("likeness", dataset=dataset, config=RECIPE)
    mj.run(experiment, "runs/likeness")
    state = mj.load_run("runs/likeness", experiment).state
    variables = {"params": state.params, **state.model_state}
    held_out = digit_logits(digits.train_images[THRESHOLD_ROWS, ..., 0], variables)
    threshold = np.quantile(held_out, FRACTION_DOUBTED)
    weights = {"/".join(path): np.asarray(value) for path, value in flatten_dict(variables).items()}
    with open(WEIGHTS, "wb") as file:
        np.savez_compressed(file, threshold=threshold, **weights)
    letters = [_prepare(draw_letter(rng, digits, HELD_OUT_FONTS)) for _ in range(2000)]
    doubted = digit_logits(np.stack([one for one in letters if one is not None]), variables) < threshold
    tested = digit_logits(digits.test_images[..., 0], variables) < threshold
    print(f"doubted: {doubted.mean():.1%} of letters in other fonts, {tested.mean():.2%} of the test digits")


if __name__ == "__main__":
    main(sys.argv[1])
