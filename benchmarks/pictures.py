"""Pictures such as people take of their digits, drawn from MNIST's: KINDS, and NO_DIGITS, which show none.

Each function draws from a random number generator and test images; benchmarks/predict.py reads them.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

Rng = np.random.Generator
Drawing = Callable[[Rng, Sequence[np.ndarray]], np.ndarray]  # digits as [28, 28] uint8 -> [h, w, 3 or 4] uint8
LIGHT, DARK = (245, 243, 238), (35, 35, 45)


def draw_ink(rng: Rng, digit: np.ndarray, size: int, weight: float = 0.5) -> np.ndarray:
    """A digit drawn large with smooth edges, as with a pen.

    Args:
      rng: draws nothing here but the wobble of the pen.
      digit: [28, 28] uint8.
      size: height and width in pixels that MNIST's 28 become.
      weight: the level of the digit's gray at which ink begins: higher is thinner.

    Returns:
      [size, size] float, from 0 (paper) to 1 (ink).
    """
    large = np.asarray(Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC), np.float64) / 255
    wobble = ndimage.gaussian_filter(rng.normal(size=large.shape), size / 20) * size / 20
    large = ndimage.gaussian_filter(large, size / 60)
    return 1 / (1 + np.exp(-(large + 0.1 * wobble - weight) * 25))


def place(rng: Rng, shape: tuple[int, int], inks: Sequence[np.ndarray], margin: int = 0) -> np.ndarray:
    """Inks side by side somewhere on a page, [h, w]."""
    page = np.zeros(shape)
    height, width = max(len(ink) for ink in inks), sum(ink.shape[1] for ink in inks)
    top = int(rng.integers(margin, shape[0] - height - margin + 1))
    left = int(rng.integers(margin, shape[1] - width - margin + 1))
    for ink in inks:
        page[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
        left += ink.shape[1]
    return page


def paint(ink: np.ndarray, paper: np.ndarray | tuple[int, ...], pen: tuple[int, ...]) -> np.ndarray:
    """Lays a pen's color on paper, [h, w, 3] float."""
    paper = np.broadcast_to(np.asarray(paper, np.float64), (*ink.shape, 3))
    return paper * (1 - ink[..., None]) + np.asarray(pen, np.float64) * ink[..., None]


def finish(rng: Rng, picture: np.ndarray, noise: float = 2.0) -> np.ndarray:
    """A camera's noise, and 8 bits."""
    return np.clip(picture + rng.normal(0, noise, picture.shape), 0, 255).round().astype(np.uint8)


def light(rng: Rng, shape: tuple[int, int], darkest: float) -> np.ndarray:
    """Light that falls off towards one corner down to a share of it, [h, w, 1]."""
    y, x = np.meshgrid(np.linspace(0, 1, shape[0]), np.linspace(0, 1, shape[1]), indexing="ij")
    y, x = (one if rng.random() < 0.5 else 1 - one for one in (y, x))
    return (1 - (1 - darkest) * (x + y) / 2)[..., None]


def _page(rng: Rng, digits: Sequence[np.ndarray], weight: float = 0.5, scale: float = 1.0) -> np.ndarray:
    """One digit on a page of 300x400 or so: its ink."""
    shape = int(rng.integers(260, 420)), int(rng.integers(260, 420))
    size = int(rng.uniform(0.55, 0.9) * min(shape) * scale)
    return place(rng, shape, [draw_ink(rng, digits[0], size, weight)])


def clean(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    return finish(rng, paint(_page(rng, digits), LIGHT, DARK))


def colored_ink(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    pens = ((30, 60, 190), (190, 30, 40), (20, 120, 60), (120, 40, 140))
    return finish(rng, paint(_page(rng, digits), LIGHT, pens[rng.integers(len(pens))]))


def light_on_dark(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    return finish(rng, paint(_page(rng, digits), (25, 30, 28), (235, 235, 225)))


def desk(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    """A light sheet on a darker desk."""
    sheet = paint(_page(rng, digits, scale=0.9), LIGHT, DARK)
    edges = [int(n) for n in rng.integers(20, 120, 4)]
    wood = np.array([[[110, 80, 55]]]) * rng.uniform(0.5, 1.3)
    height, width = sheet.shape[0] + edges[0] + edges[1], sheet.shape[1] + edges[2] + edges[3]
    picture = wood * np.ones((height, width, 1))
    picture += ndimage.gaussian_filter(rng.normal(0, 60, (height, width)), (1, 12))[..., None]
    picture[edges[0] : edges[0] + sheet.shape[0], edges[2] : edges[2] + sheet.shape[1]] = sheet
    picture = ndimage.rotate(picture, rng.uniform(-6, 6), reshape=False, mode="nearest", order=1)
    return finish(rng, ndimage.gaussian_filter(picture, (0.7, 0.7, 0)))


def uneven_light(rng: Rng, digits: Sequence[np.ndarray], darkest: float) -> np.ndarray:
    ink = _page(rng, digits)
    return finish(rng, paint(ink, LIGHT, DARK) * light(rng, ink.shape, darkest))


def shadow(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    """The shadow of a hand, with a hard edge."""
    ink = _page(rng, digits)
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
    angle, wave = rng.uniform(0, 2 * np.pi), rng.uniform(10, 30)
    along = (x - ink.shape[1] / 2) * np.cos(angle) + (y - ink.shape[0] / 2) * np.sin(angle)
    across = (y - ink.shape[0] / 2) * np.cos(angle) - (x - ink.shape[1] / 2) * np.sin(angle)
    edge = along + wave * np.sin(across / rng.uniform(15, 40)) > rng.uniform(-60, 60)
    shade = 1 - rng.uniform(0.3, 0.55) * ndimage.gaussian_filter(edge.astype(float), rng.uniform(0.7, 2))
    return finish(rng, paint(ink, LIGHT, DARK) * shade[..., None])


def pencil(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    """Thin and pale, under slightly uneven light."""
    ink = _page(rng, digits, weight=0.65)
    gray = rng.uniform(0.8, 0.88)
    return finish(rng, paint(ink, LIGHT, tuple(gray * c for c in LIGHT)) * light(rng, ink.shape, 0.85))


def specks(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    """A few specks on a large page."""
    shape = 900, 700
    ink = place(rng, shape, [draw_ink(rng, digits[0], int(rng.integers(150, 350)))])
    for _ in range(rng.integers(3, 9)):
        y, x, r = int(rng.integers(5, 895)), int(rng.integers(5, 695)), int(rng.integers(1, 5))
        ink[y - r : y + r, x - r : x + r] = 1
    return finish(rng, paint(ink, LIGHT, DARK))


def printed(rng: Rng, digits: Sequence[np.ndarray], squares: bool) -> np.ndarray:
    """Dark printed lines, or squares."""
    ink = _page(rng, digits)
    step, thickness = int(rng.integers(25, 60)), int(rng.integers(1, 4))
    for axis in range(1 + squares):
        for at in range(int(rng.integers(0, step)), ink.shape[axis], step):
            rows = [slice(None)] * 2
            rows[axis] = slice(at, at + thickness)
            ink[tuple(rows)] = np.maximum(ink[tuple(rows)], 0.9)
    return finish(rng, paint(ink, LIGHT, DARK))


def black_border(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    """A black border at the picture's edge, as of a scanner."""
    picture = paint(_page(rng, digits, scale=0.9), LIGHT, DARK)
    edges = [(int(a), int(b)) for a, b in rng.integers(0, 14, (2, 2))]
    return finish(rng, np.pad(picture, [*((a + 2, b + 2) for a, b in edges), (0, 0)], constant_values=8))


def frame(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    """A frame drawn round the digit."""
    size = int(rng.integers(120, 240))
    ink = np.pad(draw_ink(rng, digits[0], size), int(rng.integers(2, 30)))
    thickness = int(rng.integers(2, 6))
    for rows in (slice(0, thickness), slice(-thickness, None)):
        ink[rows] = ink[:, rows] = 1
    ink = np.pad(ink, int(rng.integers(10, 60)))
    ink = np.clip(ndimage.rotate(ink, rng.uniform(-4, 4), reshape=False, order=1), 0, 1)
    return finish(rng, paint(ink, LIGHT, DARK))


def noisy_blackboard(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    ink = _page(rng, digits)
    board = 70 + ndimage.gaussian_filter(rng.normal(size=ink.shape), 25) * 300
    return finish(rng, paint(ink * rng.uniform(0.6, 1, ink.shape), board[..., None], (215, 215, 210)), noise=22)


def small_in_a_corner(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    """28x28 and light on dark, but not as MNIST's are."""
    size = int(rng.integers(14, 19))
    small = np.asarray(Image.fromarray(digits[0]).resize((size, size), Image.Resampling.BICUBIC), np.float64)
    image = np.zeros((28, 28))
    y, x = (int(n) for n in rng.choice([0, 28 - size], 2))
    image[y : y + size, x : x + size] = small
    return np.clip(image, 0, 255).round().astype(np.uint8)[..., None].repeat(3, -1)


def transparent(rng: Rng, digits: Sequence[np.ndarray], margin: bool) -> np.ndarray:
    """A white card with transparent corners or margin, as a screenshot."""
    picture = finish(rng, paint(_page(rng, digits), LIGHT, DARK), 0.5)
    height, width = picture.shape[:2]
    mask = Image.new("L", (width, height))
    inset = int(rng.integers(8, 14)) if margin else 0
    corner = 0 if margin else int(rng.integers(15, 40))
    ImageDraw.Draw(mask).rounded_rectangle((inset, inset, width - 1 - inset, height - 1 - inset), corner, 255)
    alpha = np.asarray(mask)[..., None]
    return np.concatenate([np.where(alpha, picture, 0), alpha], axis=-1).astype(np.uint8)


def transparent_paper(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    """Ink on a transparent ground, as drawing programs export it."""
    ink = _page(rng, digits)
    pen = (np.ones((*ink.shape, 3)) * (DARK if rng.random() < 0.5 else LIGHT)).round()
    return np.concatenate([pen, 255 * ink[..., None]], axis=-1).round().astype(np.uint8)


def marker(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    """Pale ink: a yellow marker."""
    return finish(rng, paint(_page(rng, digits, weight=0.35), LIGHT, (246, 232, int(rng.integers(60, 150)))))


def textured(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    """Brown packing paper with fibers."""
    ink = _page(rng, digits)
    fibers = sum(ndimage.gaussian_filter(rng.normal(size=ink.shape), s) * 25 for s in ((0.5, 4), (4, 0.5), (3, 3)))
    return finish(rng, paint(ink, np.array([182, 148, 106]) + fibers[..., None], (40, 35, 40)))


def creased(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    """Paper that was folded: planes of different light."""
    ink = _page(rng, digits)
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
    shade = np.ones(ink.shape)
    for _ in range(3):
        a, r = rng.uniform(0, np.pi), rng.uniform(-80, 80)
        side = (x - ink.shape[1] / 2) * np.cos(a) + (y - ink.shape[0] / 2) * np.sin(a) - r
        shade *= 1 - 0.12 * (side > 0) - 0.15 * np.exp(-((side / 1.5) ** 2))
    return finish(rng, paint(ink, LIGHT, DARK) * shade[..., None])


def bleed_through(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    """The other side of the sheet shines through."""
    ink = _page(rng, digits)
    back = place(rng, ink.shape, [draw_ink(rng, digits[1], min(ink.shape) * 3 // 4)])[:, ::-1]
    return finish(rng, paint(ink, paint(0.12 * back, LIGHT, DARK), DARK))


def small_on_a_photo(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    """A small digit on a large photo with a vignette."""
    ink = place(rng, (1200, 1600), [draw_ink(rng, digits[0], int(rng.integers(110, 200)))], margin=150)
    y, x = np.mgrid[-1:1:1200j, -1:1:1600j]
    return finish(rng, paint(ink, LIGHT, DARK) * (1 - 0.25 * (x**2 + y**2))[..., None], 5)


def low_resolution(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    """Dark on light, 30 to 50 pixels in all."""
    picture = Image.fromarray(clean(rng, digits))
    scale = rng.uniform(30, 50) / min(picture.size)
    return np.asarray(picture.resize((round(picture.width * scale), round(picture.height * scale))))


FONTS = ("DejaVuSans", "DejaVuSerif-Italic", "DejaVuSansMono-Bold", "STIXGeneral", "STIXGeneralItalic", "cmr10")


def font_path(name: str) -> str:
    """Path of one of the fonts that matplotlib brings."""
    import matplotlib

    return f"{matplotlib.get_data_path()}/fonts/ttf/{name}.ttf"


def _written(rng: Rng, text: str, size: int) -> np.ndarray:
    """Text in one of the fonts, bent as by a hand: [h, w] ink."""
    font = ImageFont.truetype(font_path(FONTS[rng.integers(len(FONTS))]), size)
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (int(right - left) + size, int(bottom - top) + size))
    ImageDraw.Draw(image).text((size // 2 - left, size // 2 - top), text, 255, font=font)
    ink = np.asarray(image, np.float64) / 255
    bend = [ndimage.gaussian_filter(rng.normal(size=ink.shape), size / 6) * size / 6 * size / 12 for _ in range(2)]
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
    slant = rng.uniform(-0.2, 0.2) * (y - ink.shape[0] / 2)
    return np.clip(ndimage.map_coordinates(ink, [y + bend[0], x + bend[1] + slant], order=1), 0, 1)


def letter(rng: Rng, digits: Sequence[np.ndarray], letters: str = "ABCDEFHKMNPRTUVWXYadefhkmnprtuvwx") -> np.ndarray:
    """A letter that looks like no digit."""
    return finish(rng, paint(_written(rng, letters[rng.integers(len(letters))], 150), LIGHT, DARK))


def empty(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    """An empty page: noise, uneven light."""
    shape = 300, 380
    return finish(rng, paint(np.zeros(shape), LIGHT, DARK) * light(rng, shape, rng.uniform(0.6, 1)), rng.uniform(1, 15))


def garbage(rng: Rng, digits: Sequence[np.ndarray]) -> np.ndarray:
    """Scribbles, textures, clouds and text."""
    kind = rng.integers(4)
    if kind == 0:
        ink = Image.new("L", (360, 300))
        points = [tuple(p) for p in ndimage.gaussian_filter1d(rng.uniform(-400, 760, (60, 2)), 1.2, axis=0)]
        ImageDraw.Draw(ink).line(points, 255, int(rng.integers(4, 10)))
        return finish(rng, paint(np.asarray(ink) / 255, LIGHT, DARK))
    if kind == 1:
        clouds = ndimage.gaussian_filter(rng.normal(size=(300, 300)), rng.uniform(3, 20))
        return finish(rng, (128 + 60 * clouds / clouds.std())[..., None].repeat(3, -1))
    if kind == 2:
        y, x = np.mgrid[:300, :300] // int(rng.integers(8, 40))
        return finish(rng, paint((x + y) % 2 * 1.0, LIGHT, DARK))
    words = _written(rng, "the quick brown fox"[int(rng.integers(5)) :], 40)
    return finish(rng, paint(words, LIGHT, DARK))


# What stands in the table -> how it is drawn.
KINDS: dict[str, Drawing] = {
    "clean scan": clean,
    "colored ink": colored_ink,
    "light on dark": light_on_dark,
    "30 to 50 pixels": low_resolution,
    "a light sheet on a darker desk": desk,
    "uneven light, down to 70 %": functools.partial(uneven_light, darkest=0.7),
    "uneven light, down to 50 %": functools.partial(uneven_light, darkest=0.5),
    "the shadow of a hand": shadow,
    "thin, pale pencil": pencil,
    "specks on a large page": specks,
    "dark printed lines": functools.partial(printed, squares=False),
    "dark printed squares": functools.partial(printed, squares=True),
    "a black border": black_border,
    "a frame round the digit": frame,
    "a noisy gray blackboard": noisy_blackboard,
    "28x28, small and in a corner": small_in_a_corner,
    "a card with transparent corners": functools.partial(transparent, margin=False),
    "a card with a transparent margin": functools.partial(transparent, margin=True),
    "transparent paper": transparent_paper,
    "a yellow marker": marker,
    "packing paper": textured,
    "creased paper": creased,
    "the other side shines through": bleed_through,
    "small on a photo of 2 megapixels": small_on_a_photo,
}
NO_DIGITS: dict[str, Drawing] = {"letters": letter, "empty pages": empty, "scribbles, textures, text": garbage}
