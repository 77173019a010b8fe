"""Pictures as a person draws them with plain Pillow: the second, independent test of the demo captioner.

Written without the training renderer (`pictures.py`) and importing nothing of it: hard edges, Pillow's
own colour names, canvases of 64 to 4000 px, files that went through PNG, JPEG or WebP, transparency.
"""

import io
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class PersonPicture:
    """A picture and what a person would say is on it."""

    group: str
    image: Image.Image
    shapes: tuple[tuple[str, str], ...] = ()
    """(colour, kind), the left or upper one first."""
    relation: str = ""
    digits: str = ""
    is_plain: bool = False
    """Nothing on a white ground."""


# Pillow's name -> the word a person uses.
COLOUR_NAMES = {
    "red": "red", "crimson": "red", "orange": "orange", "darkorange": "orange", "yellow": "yellow",
    "gold": "yellow", "green": "green", "lime": "green", "forestgreen": "green", "cyan": "cyan",
    "turquoise": "cyan", "blue": "blue", "navy": "blue", "royalblue": "blue", "purple": "purple",
    "indigo": "purple", "pink": "pink", "hotpink": "pink", "brown": "brown", "saddlebrown": "brown",
    "black": "black", "gray": "gray",
}  # fmt: skip
KINDS = ("circle", "square", "rectangle", "triangle", "star", "diamond", "heart", "cross")
OUTLINED = "one shape, black outline"
CANVASES = (64, 100, 128, 200, 256, 300, 400, 512, 640, 800, 1024, 2000, 4000)
FONTS = (
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf",
    "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
    "/usr/share/fonts/truetype/liberation/LiberationSerif-Regular.ttf",
    "/usr/share/fonts/truetype/open-sans/OpenSans-Regular.ttf",
)


def person_pictures(count: int) -> Iterator[PersonPicture]:
    """About `count` pictures of each group, always the same ones."""
    for group, draw in _GROUPS.items():
        rng = random.Random(f"person {group}")
        for _ in range(count):
            yield draw(rng)


def _circle(draw: ImageDraw.ImageDraw, box: Box, **ink: object) -> None:
    draw.ellipse(box, **ink)  # type: ignore[arg-type]


def _box(draw: ImageDraw.ImageDraw, box: Box, **ink: object) -> None:
    draw.rectangle(box, **ink)  # type: ignore[arg-type]


def _triangle(draw: ImageDraw.ImageDraw, box: Box, **ink: object) -> None:
    left, top, right, bottom = box
    draw.polygon([((left + right) / 2, top), (right, bottom), (left, bottom)], **ink)  # type: ignore[arg-type]


def _star(draw: ImageDraw.ImageDraw, box: Box, **ink: object) -> None:
    left, top, right, bottom = box
    x, y, radius = (left + right) / 2, (top + bottom) / 2, (right - left) / 2
    points = []
    for i in range(10):
        length = radius if i % 2 == 0 else radius * 0.4
        angle = math.radians(36 * i - 90)
        points.append((x + length * math.cos(angle), y + length * math.sin(angle)))
    draw.polygon(points, **ink)  # type: ignore[arg-type]


def _diamond(draw: ImageDraw.ImageDraw, box: Box, **ink: object) -> None:
    left, top, right, bottom = box
    x, y = (left + right) / 2, (top + bottom) / 2
    draw.polygon([(x, top), (right, y), (x, bottom), (left, y)], **ink)  # type: ignore[arg-type]


def _heart(draw: ImageDraw.ImageDraw, box: Box, **ink: object) -> None:
    left, top, right, bottom = box
    x, half = (left + right) / 2, (right - left) / 2
    colour = ink["fill"]
    assert isinstance(colour, str)
    draw.ellipse((left, top, x, top + half), fill=colour)
    draw.ellipse((x, top, right, top + half), fill=colour)
    y = top + half * 0.6
    draw.polygon([(left + half * 0.03, y), (right - half * 0.03, y), (x, bottom)], fill=colour)


def _cross(draw: ImageDraw.ImageDraw, box: Box, **ink: object) -> None:
    left, top, right, bottom = box
    third = (right - left) / 3
    colour = ink["fill"]
    assert isinstance(colour, str)
    draw.rectangle((left + third, top, right - third, bottom), fill=colour)
    draw.rectangle((left, top + third, right, bottom - third), fill=colour)


_DRAW: dict[str, Callable[..., None]] = {
    "circle": _circle,
    "square": _box,
    "rectangle": _box,
    "triangle": _triangle,
    "star": _star,
    "diamond": _diamond,
    "heart": _heart,
    "cross": _cross,
}


def _size_of(kind: str, side: float, rng: random.Random) -> tuple[float, float]:
    if kind != "rectangle":
        return side, side
    return (side, side / 2) if rng.random() < 0.6 else (side / 2, side)


def _saved(image: Image.Image, rng: random.Random) -> Image.Image:
    """The image after a trip through a file."""
    name = rng.choice(("PNG", "PNG", "JPEG", "WEBP"))
    buffer = io.BytesIO()
    image.save(buffer, name)
    loaded = Image.open(buffer)
    loaded.load()
    return loaded


def _one(
    rng: random.Random, group: str, what: tuple[str, str], size: tuple[int, int], ground: str = "white"
) -> PersonPicture:
    """One shape anywhere, 15 to 95 % of the shorter side; `what` is Pillow's colour name and the kind."""
    name, kind = what
    image = Image.new("RGB", size, ground)
    width, height = _size_of(kind, rng.uniform(0.15, 0.95) * min(size), rng)
    left, top = rng.uniform(0, size[0] - width - 1), rng.uniform(0, size[1] - height - 1)
    ink: dict[str, object] = {"fill": name}
    if group == OUTLINED:
        ink |= {"outline": "black", "width": max(1, min(size) // 100)}
    _DRAW[kind](ImageDraw.Draw(image), (left, top, left + width, top + height), **ink)
    return PersonPicture(group, _saved(image, rng), ((COLOUR_NAMES.get(name, name), kind),))


def _any_thing(rng: random.Random) -> tuple[str, str]:
    return rng.choice(list(COLOUR_NAMES)), rng.choice(KINDS)


def _first_try(rng: random.Random) -> PersonPicture:
    """What everybody draws first: a red circle, a blue square, a green triangle on white."""
    name, kind = rng.choice((("red", "circle"), ("red", "circle"), ("blue", "square"), ("green", "triangle")))
    side = rng.choice((200, 224, 256, 300, 400, 500, 512, 640, 800, 1024))
    return _one(rng, "first try: red circle, blue square, green triangle", (name, kind), (side, side))


def _any_square_canvas(rng: random.Random) -> PersonPicture:
    side = rng.choice(CANVASES)
    return _one(rng, "one shape, square canvas", _any_thing(rng), (side, side))


def _any_long_canvas(rng: random.Random) -> PersonPicture:
    side = rng.choice((100, 200, 320, 480, 600, 1000))
    wide, high = rng.choice(((4, 3), (16, 9), (2, 1), (3, 4), (9, 16)))
    size = (side, side * high // wide) if wide > high else (side * wide // high, side)
    return _one(rng, "one shape, wide or tall canvas", _any_thing(rng), size)


def _other_ground(rng: random.Random) -> PersonPicture:
    ground, names = rng.choice(
        (
            ("black", ("red", "yellow", "white", "cyan", "lime", "pink", "orange")),
            ("lightgray", ("red", "blue", "green", "black", "purple")),
            ("yellow", ("red", "blue", "black", "green", "purple")),
            ("blue", ("yellow", "white", "red", "orange")),
            ("green", ("white", "yellow", "red", "black")),
        )
    )
    side = rng.choice((128, 200, 256, 400, 512))
    what = rng.choice(names), rng.choice(KINDS)
    return _one(rng, "one shape, coloured background", what, (side, side), ground)


def _outlined(rng: random.Random) -> PersonPicture:
    kind = rng.choice(("circle", "square", "rectangle", "triangle", "star", "diamond"))
    name = rng.choice([n for n, word in COLOUR_NAMES.items() if word != "black"])
    side = rng.choice((200, 256, 400, 512, 1000))
    return _one(rng, OUTLINED, (name, kind), (side, side))


def _transparent(rng: random.Random) -> PersonPicture:
    side = rng.choice((128, 256, 512))
    name, kind = rng.choice(list(COLOUR_NAMES)), rng.choice(KINDS)
    image = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    width, height = _size_of(kind, rng.uniform(0.2, 0.9) * side, rng)
    left, top = rng.uniform(0, side - width - 1), rng.uniform(0, side - height - 1)
    _DRAW[kind](ImageDraw.Draw(image), (left, top, left + width, top + height), fill=name)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return PersonPicture("one shape, transparent PNG", Image.open(buffer), ((COLOUR_NAMES[name], kind),))


def _two(rng: random.Random) -> PersonPicture:
    """Two shapes side by side or one over the other, each in its half."""
    side = rng.choice((200, 256, 400, 512, 800))
    across = rng.random() < 0.65
    long = rng.choice((1, 1, 1.5, 2))
    size = (round(side * long), side) if across else (side, round(side * long))
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    half = (size[0] / 2, size[1]) if across else (size[0], size[1] / 2)
    shapes = []
    for index in range(2):
        name, kind = rng.choice(list(COLOUR_NAMES)), rng.choice(KINDS)
        width, height = _size_of(kind, rng.uniform(0.35, 0.8) * min(half), rng)
        left = index * half[0] * across + (half[0] - width) / 2
        top = index * half[1] * (not across) + (half[1] - height) / 2
        _DRAW[kind](draw, (left, top, left + width, top + height), fill=name)
        shapes.append((COLOUR_NAMES[name], kind))
    relation = "left of" if across else "above"
    return PersonPicture("two shapes", _saved(image, rng), tuple(shapes), relation)


def _three(rng: random.Random) -> PersonPicture:
    height = rng.choice((150, 200, 300, 400))
    width = round(height * rng.choice((1.5, 2, 2.5)))
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    cell = width / 3
    shapes = []
    for index in range(3):
        name, kind = rng.choice(list(COLOUR_NAMES)), rng.choice(KINDS)
        w, h = _size_of(kind, rng.uniform(0.4, 0.8) * min(cell, height), rng)
        left, top = index * cell + (cell - w) / 2, rng.uniform(0.1, 0.9) * (height - h)
        _DRAW[kind](draw, (left, top, left + w, top + h), fill=name)
        shapes.append((COLOUR_NAMES[name], kind))
    return PersonPicture("three shapes in a row", _saved(image, rng), tuple(shapes))


def _number(rng: random.Random, group: str, paths: tuple[str, ...]) -> PersonPicture:
    digits = "".join(rng.choices("0123456789", k=rng.randint(1, 4)))
    side = rng.choice((200, 256, 300, 400, 512, 800))
    size = rng.choice(((side, side), (side, side), (side, side * 3 // 4), (side, side // 2)))
    limit = min(size[1] * 0.9, size[0] * 0.9 / (0.62 * len(digits)))
    font_px = round(rng.uniform(0.35, 1) * limit)
    path = rng.choice(paths)
    font = ImageFont.truetype(path, font_px) if path else ImageFont.load_default(font_px)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    colour = "black" if rng.random() < 0.7 else rng.choice(("red", "blue", "green", "navy", "purple"))
    if rng.random() < 0.6:
        draw.text((size[0] / 2, size[1] / 2), digits, fill=colour, font=font, anchor="mm")
    else:
        _, _, right, bottom = draw.textbbox((0, 0), digits, font=font)
        x, y = rng.uniform(0, max(0, size[0] - right)), rng.uniform(0, max(0, size[1] - bottom))
        draw.text((x, y), digits, fill=colour, font=font)
    return PersonPicture(group, _saved(image, rng), digits=digits)


def _default_font(rng: random.Random) -> PersonPicture:
    return _number(rng, "number, Pillow's default font", ("",))


def _truetype(rng: random.Random) -> PersonPicture:
    return _number(rng, "number, TrueType fonts", tuple(p for p in FONTS if Path(p).exists()))


def _nothing(rng: random.Random) -> PersonPicture:
    side = rng.choice(CANVASES)
    return PersonPicture("nothing, white", _saved(Image.new("RGB", (side, side), "white"), rng), is_plain=True)


def _neither(rng: random.Random) -> PersonPicture:
    """Neither a shape nor a number: a word, a gradient, a chessboard, many dots."""
    side = rng.choice((200, 256, 400, 512))
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    what = rng.randrange(4)
    if what == 0:
        word = rng.choice(("HELLO", "Periscope", "stop", "OPEN", "Menu", "Exit"))
        font = ImageFont.load_default(round(side / 5))
        draw.text((side / 2, side / 2), word, fill="black", font=font, anchor="mm")
    elif what == 1:
        ramp = Image.radial_gradient("L").resize((side, side))
        image = Image.merge("RGB", (ramp, Image.linear_gradient("L").resize((side, side)), ramp.rotate(90)))
    elif what == 2:
        step = side // 8
        for row in range(8):
            for column in range(row % 2, 8, 2):
                draw.rectangle((column * step, row * step, (column + 1) * step, (row + 1) * step), fill="black")
    else:
        for _ in range(30):
            x, y, radius = rng.uniform(0, side), rng.uniform(0, side), side * rng.uniform(0.02, 0.1)
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=rng.choice(list(COLOUR_NAMES)))
    return PersonPicture("neither shape nor number", _saved(image, rng))


_GROUPS: dict[str, Callable[[random.Random], PersonPicture]] = {
    "first": _first_try,
    "square": _any_square_canvas,
    "long": _any_long_canvas,
    "ground": _other_ground,
    "outlined": _outlined,
    "transparent": _transparent,
    "two": _two,
    "three": _three,
    "default font": _default_font,
    "truetype": _truetype,
    "nothing": _nothing,
    "neither": _neither,
}
