"""Draws the demo captioner's pictures: deterministic by seed, with the caption and per-patch labels.

Pillow and numpy only. A picture is drawn on a canvas of its own size; nothing here knows the model's
input size except `Picture.labels`, which takes the patch grid from the caller.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from training.captioner import grammar
from training.captioner.fonts import Font, font_paths, load_font, pick_font_name
from training.captioner.negatives import draw_complex
from training.captioner.shapes import Points, outline_points
from training.captioner.weather import weathered

Labels = npt.NDArray[np.uint8]

NUM_KIND_LABELS = 1 + len(grammar.KINDS) + 10  # nothing, the kinds, the digits
UNKNOWN_LABEL = 255
NUM_ORDER_LABELS = 5  # nothing, first to fourth thing or digit

_ASPECTS = (1.0,) * 14 + (4 / 3, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 9 / 16, 2.0, 1 / 2, 3.0)
_LABEL_DOTS = 6  # label resolution inside a patch


@dataclass(frozen=True)
class Mark:
    """One thing on the canvas: its outline in canvas pixels and what the labels say about it."""

    points: Points
    kind_label: int
    colour: str
    order: int


@dataclass(frozen=True)
class Picture:
    """A drawn picture, its sentence, and what is where."""

    image: Image.Image
    caption: str
    background: str
    marks: tuple[Mark, ...]

    def labels(self, rows: int, columns: int) -> Labels:
        """Per-patch labels, uint8 (3, rows, columns): kind, colour, order of the thing that is there."""
        dots = Image.new("L", (columns * _LABEL_DOTS, rows * _LABEL_DOTS))
        draw = ImageDraw.Draw(dots)
        scale_x, scale_y = dots.width / self.image.width, dots.height / self.image.height
        for index, mark in enumerate(self.marks, start=1):
            draw.polygon([(x * scale_x, y * scale_y) for x, y in mark.points], fill=index)
        cells = np.asarray(dots).reshape(rows, _LABEL_DOTS, columns, _LABEL_DOTS)
        indices = range(1, max(1, len(self.marks)) + 1)
        counts = np.stack([(cells == index).sum(axis=(1, 3)) for index in indices])
        here = np.where(counts.max(axis=0) >= 4, counts.argmax(axis=0) + 1, 0)
        table = [(0, grammar.COLOURS.index(self.background), 0)]
        table += [(m.kind_label, _colour_label(m.colour), m.order) for m in self.marks]
        return np.array(table, np.uint8)[here].transpose(2, 0, 1)


def _colour_label(colour: str) -> int:
    return grammar.COLOURS.index(colour) if colour else UNKNOWN_LABEL


@dataclass(frozen=True)
class Wish:
    """What to draw.

    `held_out` None draws training material only, else only what training never had: ``pair`` colour-kind
    pairs, ``place`` places on backgrounds, ``number`` numbers, ``font`` fonts.
    """

    category: str
    """One of: nothing, one, two, three, number, complex, unnamed.

    ``unnamed`` shows shapes in colours that have no word, without a caption: for the auxiliary losses only,
    so that the kinds are learned apart from the colours.
    """
    held_out: str | None = None
    num_digits: int | None = None


def draw_picture(seed: int, wish: Wish) -> Picture:
    """The picture of this seed (pure: same seed and wish, same picture, given the same fonts)."""
    rng = random.Random(f"{seed} {wish}")
    while True:
        picture = _DRAWERS[wish.category](rng, wish)
        if picture is not None:
            return picture


def _pick_shade(rng: random.Random, colour: str) -> grammar.Rgb:
    """A shade of the colour, often exactly Pillow's own, else jittered a little."""
    shades = grammar.SHADES[colour]
    base = shades[0] if rng.random() < 0.4 else rng.choice(shades)
    if rng.random() < 0.45:
        return base
    if colour in {"black", "white", "gray"}:
        steps = [rng.randint(-10, 10)] * 3
    else:
        steps = [rng.randint(-12, 12) for _ in range(3)]
    red, green, blue = (min(255, max(0, c + step)) for c, step in zip(base, steps, strict=True))
    return red, green, blue


def _pick_background(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.5:
        return "white"
    return "black" if draw < 0.6 else rng.choice(grammar.COLOURS)


def _pick_canvas(rng: random.Random) -> tuple[int, int]:
    """Width and height in pixels."""
    aspect = rng.choice(_ASPECTS) * (1 if rng.random() < 0.6 else rng.uniform(0.95, 1.05))
    if rng.random() < 0.3:
        side = float(rng.choice((64, 100, 128, 150, 200, 200, 224, 256, 256, 300, 320, 400, 400, 512)))
    else:
        side = math.exp(rng.uniform(math.log(96), math.log(440)))
    return max(48, round(side * math.sqrt(aspect))), max(48, round(side / math.sqrt(aspect)))


def _pick_extent(rng: random.Random, low: float, high: float) -> float:
    """A size fraction in [low, high], mostly away from the borders between the size words."""
    while True:
        extent = rng.uniform(low, high)
        if rng.random() < 0.1 or not (0.28 < extent < 0.33 or 0.5 < extent < 0.56):
            return extent


class _Canvas:
    """Owns one picture while it is being drawn; supersamples by two for soft edges."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.background = _pick_background(rng)
        self.ground = _pick_shade(rng, self.background)
        self.width, self.height = _pick_canvas(rng)
        self.short = min(self.width, self.height)
        # On a long canvas the short side gets fewer of the model's pixels, so the least size grows.
        self.stretch = min(1.6, math.sqrt(max(self.width, self.height) / self.short))
        self.factor = 2 if rng.random() < 0.45 and self.width * self.height < 120_000 else 1
        size = (self.width * self.factor, self.height * self.factor)
        self.image = Image.new("RGB", size, self.ground)
        self.draw = ImageDraw.Draw(self.image)

    def pick_shade(self, colour: str) -> grammar.Rgb | None:
        """A shade that stands out from the ground, or None after some tries."""
        for _ in range(6):
            shade = _pick_shade(self.rng, colour)
            if colour != self.background and math.dist(shade, self.ground) > 85:
                return shade
        return None

    def pick_place(self, width: float, height: float) -> tuple[float, float, int, int] | None:
        """A corner for a box of this size with the row and column of its centre, or None if unclear."""
        rng = self.rng
        room_x, room_y = self.width - width, self.height - height
        if room_x < 0 or room_y < 0:
            return None
        margin = rng.uniform(0, 0.04) * self.short
        left, top = _corner(rng, room_x, margin), _corner(rng, room_y, margin)
        x, y = (left + width / 2) / self.width, (top + height / 2) / self.height
        unclear = any(0.35 < f < 0.41 or 0.59 < f < 0.65 for f in (x, y))
        if unclear and rng.random() < 0.9:
            return None
        return left, top, grammar.place_index(y), grammar.place_index(x)

    def fill(self, points: Points, shade: grammar.Rgb, size_px: float) -> None:
        """Fills the polygon; sometimes with an outline, seldom only an outline."""
        style = self.rng.random()
        width = max(1, round(size_px * self.rng.uniform(0.015, 0.05))) * self.factor
        dots = [(x * self.factor, y * self.factor) for x, y in points]
        loop = [*dots, dots[0], dots[1]]
        if style < 0.03 and size_px > 60:
            self.draw.line(loop, fill=shade, width=width * 2, joint="curve")
            return
        self.draw.polygon(dots, fill=shade)
        if style < 0.14:
            other = _pick_shade(self.rng, self.rng.choice(grammar.COLOURS))
            self.draw.line(loop, fill=(0, 0, 0) if style < 0.12 else other, width=width, joint="curve")

    def write(self, left: float, top: float, text: str, shade: grammar.Rgb, font: Font) -> None:
        """Writes the text with its ink at this corner; the font is of the supersampled size."""
        x, y = left * self.factor, top * self.factor
        self.draw.text((x, y), text, fill=shade, font=font, anchor="lt")

    def finished(self) -> Image.Image:
        image = self.image if self.factor == 1 else self.image.reduce(self.factor)
        return weathered(self.rng, image)


def _corner(rng: random.Random, room: float, margin: float) -> float:
    """Where a box starts on an axis with this room: centred, at an end, or anywhere."""
    draw = rng.random()
    if draw < 0.3:
        return room / 2
    margin = min(margin, room / 2)
    if draw < 0.45:
        return rng.choice((margin, room - margin))
    return rng.uniform(0, room)


@dataclass(frozen=True)
class _Placed:
    """A shape with its place: centre and box in canvas pixels."""

    shape: grammar.Shape
    points: Points
    shade: grammar.Rgb
    x: float
    y: float
    reach_x: float
    reach_y: float
    row: int
    column: int

    def mark(self, order: int) -> Mark:
        return Mark(self.points, 1 + grammar.KINDS.index(self.shape.kind), self.shape.colour, order)

    def is_clear_of(self, other: "_Placed", gap: float) -> bool:
        """Whether the two boxes are at least a gap apart."""
        apart_x = abs(self.x - other.x) - self.reach_x - other.reach_x
        apart_y = abs(self.y - other.y) - self.reach_y - other.reach_y
        return max(apart_x, apart_y) > gap


def _place_shape(canvas: _Canvas, wish: Wish, high: float) -> _Placed | None:
    rng = canvas.rng
    pair = rng.choice(_HELD_OUT_PAIRS if wish.held_out == "pair" else _TRAINING_PAIRS)
    shade = canvas.pick_shade(pair[0])
    extent = _pick_extent(rng, 0.13 * canvas.stretch, high)
    points = outline_points(rng, pair[1], extent * canvas.short)
    width, height = max(x for x, _ in points), max(y for _, y in points)
    place = canvas.pick_place(width, height)
    if shade is None or place is None:
        return None
    left, top, row, column = place
    shape = grammar.Shape(grammar.size_word(max(width, height) / canvas.short), *pair)
    moved = [(x + left, y + top) for x, y in points]
    x, y = left + width / 2, top + height / 2
    return _Placed(shape, moved, shade, x, y, width / 2, height / 2, row, column)


def _draw_nothing(rng: random.Random, _wish: Wish) -> Picture:
    canvas = _Canvas(rng)
    return Picture(canvas.finished(), grammar.empty_caption(canvas.background), canvas.background, ())


def _draw_complex(rng: random.Random, _wish: Wish) -> Picture:
    width, height = _pick_canvas(rng)
    image = weathered(rng, draw_complex(rng, width, height, font_paths()))
    return Picture(image, grammar.COMPLEX_CAPTION, "", ())


def _draw_one(rng: random.Random, wish: Wish) -> Picture | None:
    canvas = _Canvas(rng)
    thing = _place_shape(canvas, wish, 0.97)
    if thing is None:
        return None
    is_kept = grammar.is_held_out_place(thing.row, thing.column, canvas.background)
    if wish.held_out != "pair" and is_kept != (wish.held_out == "place"):
        return None
    canvas.fill(thing.points, thing.shade, 2 * max(thing.reach_x, thing.reach_y))
    place = grammar.PLACES[thing.row][thing.column]
    caption = grammar.one_caption(thing.shape, place, canvas.background)
    return Picture(canvas.finished(), caption, canvas.background, (thing.mark(1),))


def _place_many(canvas: _Canvas, wish: Wish, count: int, high: float) -> list[_Placed] | None:
    """Several shapes clear of each other, or None."""
    things: list[_Placed] = []
    for _ in range(60):
        thing = _place_shape(canvas, wish, high)
        if thing and all(thing.is_clear_of(other, canvas.short * 0.02) for other in things):
            things.append(thing)
        if len(things) == count:
            return things
    return None


def _draw_two(rng: random.Random, wish: Wish) -> Picture | None:
    canvas = _Canvas(rng)
    things = _place_many(canvas, wish, 2, rng.choice((0.45, 0.6, 0.75)))
    if things is None:
        return None
    across, down = abs(things[0].x - things[1].x), abs(things[0].y - things[1].y)
    if max(across, down) < 1.2 * min(across, down):
        return None
    relation = "left of" if across > down else "above"
    things.sort(key=lambda t: t.x if across > down else t.y)
    caption = grammar.two_caption(things[0].shape, relation, things[1].shape, canvas.background)
    return _several(canvas, things, caption)


def _draw_three(rng: random.Random, wish: Wish) -> Picture | None:
    canvas = _Canvas(rng)
    things = _place_many(canvas, wish, 3, rng.choice((0.33, 0.45, 0.55)))
    if things is None:
        return None
    things.sort(key=lambda t: t.x)
    if min(things[1].x - things[0].x, things[2].x - things[1].x) < 0.07 * canvas.width:
        return None
    shapes = (things[0].shape, things[1].shape, things[2].shape)
    return _several(canvas, things, grammar.three_caption(shapes, canvas.background))


def _draw_unnamed(rng: random.Random, wish: Wish) -> Picture | None:
    canvas = _Canvas(rng)
    things = _place_many(canvas, wish, rng.randint(1, 3), rng.choice((0.45, 0.6, 0.9)))
    if things is None:
        return None
    marks = []
    for order, thing in enumerate(things, start=1):
        shade = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        if math.dist(shade, canvas.ground) < 85 or _is_near_held_out(shade, thing.shape.kind):
            return None
        canvas.fill(thing.points, shade, 2 * max(thing.reach_x, thing.reach_y))
        marks.append(replace(thing.mark(order), colour=""))
    return Picture(canvas.finished(), "", canvas.background, tuple(marks))


def _is_near_held_out(shade: grammar.Rgb, kind: str) -> bool:
    """Whether the shade could pass for a colour with which this kind is never trained."""
    kept = [shades for colour, shades in grammar.SHADES.items() if (colour, kind) in grammar.HELD_OUT_PAIRS]
    return any(math.dist(shade, other) < 60 for shades in kept for other in shades)


def _several(canvas: _Canvas, things: list[_Placed], caption: str) -> Picture:
    for thing in things:
        canvas.fill(thing.points, thing.shade, 2 * max(thing.reach_x, thing.reach_y))
    marks = tuple(thing.mark(order) for order, thing in enumerate(things, start=1))
    return Picture(canvas.finished(), caption, canvas.background, marks)


def _pick_number(rng: random.Random, wish: Wish) -> str:
    count = wish.num_digits or rng.choices((1, 2, 3, 4), (14, 26, 30, 30))[0]
    while True:
        digits = "".join(rng.choices("0123456789", k=count))
        if count == 1 or grammar.is_held_out_number(digits) == (wish.held_out == "number"):
            return digits


def _draw_number(rng: random.Random, wish: Wish) -> Picture | None:
    canvas = _Canvas(rng)
    digits = _pick_number(rng, wish)
    colour = "black" if rng.random() < 0.3 else rng.choice(grammar.COLOURS)
    shade = canvas.pick_shade(colour)
    size_px = rng.uniform(0.14, 1.25) ** 1.2 * canvas.short
    font = load_font(pick_font_name(rng, held_out=wish.held_out == "font"), max(6, round(size_px * canvas.factor)))
    box = font.getbbox(digits, anchor="lt")
    width, height = box[2] / canvas.factor, box[3] / canvas.factor
    is_legible = height >= 0.09 * canvas.short * canvas.stretch
    if shade is None or not is_legible or max(width / canvas.width, height / canvas.height) > 0.97:
        return None
    place = canvas.pick_place(width, height)
    if place is None:
        return None
    left, top, row, column = place
    if grammar.is_held_out_place(row, column, canvas.background) != (wish.held_out == "place"):
        return None
    canvas.write(left, top, digits, shade, font)
    marks = _digit_marks(digits, colour, (left, top), (width, height))
    caption = grammar.number_caption(digits, colour, grammar.PLACES[row][column], canvas.background)
    return Picture(canvas.finished(), caption, canvas.background, marks)


def _digit_marks(digits: str, colour: str, corner: tuple[float, float], size: tuple[float, float]) -> tuple[Mark, ...]:
    """One box per digit; digits of nearly all fonts are equally wide."""
    (left, top), (width, height) = corner, size
    step = width / len(digits)
    marks = []
    for index, digit in enumerate(digits):
        near, far = left + index * step, left + (index + 1) * step
        points = [(near, top), (far, top), (far, top + height), (near, top + height)]
        marks.append(Mark(points, 1 + len(grammar.KINDS) + int(digit), colour, index + 1))
    return tuple(marks)


_HELD_OUT_PAIRS = sorted(grammar.HELD_OUT_PAIRS)
_TRAINING_PAIRS = [(c, k) for c in grammar.COLOURS for k in grammar.KINDS if (c, k) not in grammar.HELD_OUT_PAIRS]
_DRAWERS: dict[str, Callable[[random.Random, Wish], Picture | None]] = {
    "nothing": _draw_nothing,
    "one": _draw_one,
    "two": _draw_two,
    "three": _draw_three,
    "number": _draw_number,
    "complex": _draw_complex,
    "unnamed": _draw_unnamed,
}
