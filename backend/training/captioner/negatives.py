"""Pictures the demo captioner must not name: textures, landscapes, words, crowds of shapes."""

import random
import string
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from training.captioner.shapes import outline_points

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_KINDS = ("circle", "square", "rectangle", "triangle", "star", "diamond", "heart", "cross")


def draw_complex(rng: random.Random, width: int, height: int, fonts: tuple[str, ...]) -> Image.Image:
    """One picture without a simple description; fonts are paths for words (may be empty)."""
    drawer = rng.choice(_DRAWERS)
    return drawer(rng, width, height, fonts)


def _any_colour(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def _texture(rng: random.Random, width: int, height: int, _fonts: tuple[str, ...]) -> Image.Image:
    """Smooth coloured clouds with some grain, like an unsharp photo."""
    noise = np.random.default_rng(rng.getrandbits(32))
    cells = rng.randint(3, 14)
    small = noise.integers(0, 256, (cells, cells, 3)).astype(np.uint8)
    image = Image.fromarray(small).resize(
        (width, height), rng.choice((Image.Resampling.BICUBIC, Image.Resampling.NEAREST))
    )
    grain = noise.normal(0, rng.uniform(0, 30), (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def _landscape(rng: random.Random, width: int, height: int, _fonts: tuple[str, ...]) -> Image.Image:
    """A sky gradient, hills, blobs: the layout of an outdoor photo."""
    top, bottom = np.array(_any_colour(rng)), np.array(_any_colour(rng))
    ramp = np.linspace(0, 1, height)[:, None, None]
    sky = np.broadcast_to(top * (1 - ramp) + bottom * ramp, (height, width, 3))
    image = Image.fromarray(sky.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for layer in range(rng.randint(2, 5)):
        base = height * (0.35 + 0.15 * layer)
        edge = [(width * i / 8, base + rng.uniform(-0.15, 0.15) * height) for i in range(9)]
        draw.polygon([(0, height), *edge, (width, height)], fill=_any_colour(rng))
    for _ in range(rng.randint(2, 14)):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.02, 0.12) * height
        draw.ellipse((x - r, y - r * rng.uniform(0.5, 2), x + r, y + r), fill=_any_colour(rng))
    grain = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(0, 15), (height, width, 3))
    noisy = Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))
    return noisy.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2)))


def _crowd(rng: random.Random, width: int, height: int, _fonts: tuple[str, ...]) -> Image.Image:
    """Five and more shapes, often one over the other."""
    image = Image.new("RGB", (width, height), rng.choice(((255, 255, 255), _any_colour(rng))))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(5, 16)):
        points = outline_points(rng, rng.choice(_KINDS), rng.uniform(0.12, 0.4) * min(width, height))
        x, y = rng.uniform(0, 0.85) * width, rng.uniform(0, 0.85) * height
        draw.polygon([(px + x, py + y) for px, py in points], fill=_any_colour(rng))
    return image


def _scribble(rng: random.Random, width: int, height: int, _fonts: tuple[str, ...]) -> Image.Image:
    """Lines and curves: a chart or a sketch."""
    image = Image.new("RGB", (width, height), rng.choice(((255, 255, 255), _any_colour(rng))))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(4, 25)):
        points = [(rng.uniform(0, width), rng.uniform(0, height)) for _ in range(rng.randint(2, 5))]
        draw.line(points, fill=_any_colour(rng), width=rng.randint(1, max(2, width // 40)))
    return image


def _words(rng: random.Random, width: int, height: int, fonts: tuple[str, ...]) -> Image.Image:
    """Lines of letters: a page, a sign."""
    dark = rng.random() < 0.8
    image = Image.new("RGB", (width, height), (255, 255, 255) if dark else _any_colour(rng))
    draw = ImageDraw.Draw(image)
    lines = rng.randint(1, 7)
    size = max(8, round(min(height / (lines + 1), width / 4) * rng.uniform(0.5, 1)))
    font = _any_font(rng, size, fonts)
    ink = (0, 0, 0) if dark else _any_colour(rng)
    y = rng.uniform(0, 0.3) * height if lines == 1 else size * 0.2
    for _ in range(lines):
        words = [_any_word(rng) for _ in range(rng.randint(1, 4))]
        draw.text((rng.uniform(0.02, 0.2) * width, y), " ".join(words), fill=ink, font=font)
        y += size * 1.15
    return image


def _any_font(rng: random.Random, size_px: int, fonts: tuple[str, ...]) -> Font:
    if not fonts or rng.random() < 0.3:
        return ImageFont.load_default(size_px)
    return ImageFont.truetype(rng.choice(fonts), size_px)


def _any_word(rng: random.Random) -> str:
    word = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 8)))
    return rng.choice((word, word.upper(), word.capitalize()))


def _one_word(rng: random.Random, width: int, height: int, fonts: tuple[str, ...]) -> Image.Image:
    """One word, written as a number would be."""
    image = Image.new("RGB", (width, height), (255, 255, 255) if rng.random() < 0.7 else _any_colour(rng))
    ink = (0, 0, 0) if rng.random() < 0.6 else _any_colour(rng)
    word = _any_word(rng)
    size = max(8, round(min(height, width / (0.6 * len(word))) * rng.uniform(0.3, 0.95)))
    x, y = (0.5, 0.5) if rng.random() < 0.5 else (rng.uniform(0.3, 0.7), rng.uniform(0.2, 0.8))
    font = _any_font(rng, size, fonts)
    ImageDraw.Draw(image).text((x * width, y * height), word, fill=ink, font=font, anchor="mm")
    return image


def _gradient(rng: random.Random, width: int, height: int, _fonts: tuple[str, ...]) -> Image.Image:
    """Each channel a slope or a glow."""
    channels = []
    for _ in range(3):
        make = rng.choice((Image.linear_gradient, Image.radial_gradient))
        channel = make("L").rotate(rng.choice((0, 90, 180, 270))).resize((width, height))
        low, span = rng.randint(0, 128), rng.uniform(0.2, 0.5)
        channels.append(channel.point([min(255, round(low + v * span)) for v in range(256)]))
    return Image.merge("RGB", channels)


def _stripes(rng: random.Random, width: int, height: int, _fonts: tuple[str, ...]) -> Image.Image:
    """Stripes or a chessboard."""
    pair = ((0, 0, 0), (255, 255, 255)) if rng.random() < 0.3 else (_any_colour(rng), _any_colour(rng))
    first, second = (np.array(colour, np.uint8) for colour in pair)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    step = max(3, min(width, height) // rng.randint(4, 14))
    pattern = rng.choice(("rows", "columns", "board", "slanted"))
    field = {
        "rows": rows // step + 0 * columns,
        "columns": columns // step + 0 * rows,
        "board": rows // step + columns // step,
        "slanted": (rows + columns) // step,
    }[pattern]
    return Image.fromarray(np.where((field % 2)[..., None] == 0, first, second))


_Drawer = Callable[[random.Random, int, int, tuple[str, ...]], Image.Image]
_DRAWERS: tuple[_Drawer, ...] = (
    _texture,
    _landscape,
    _landscape,
    _crowd,
    _crowd,
    _scribble,
    _words,
    _one_word,
    _one_word,
    _stripes,
    _gradient,
)
