"""Outlines of the eight kinds of shape, as polygons whose box starts at (0, 0)."""

import math
import random
from collections.abc import Callable

Points = list[tuple[float, float]]


def outline_points(rng: random.Random, kind: str, size_px: float) -> Points:
    """The polygon of one shape; its longer side is size_px, its box starts at (0, 0)."""
    return _fitted(_OUTLINES[kind](rng), size_px)


def _fitted(points: Points, size_px: float) -> Points:
    left, top = min(x for x, _ in points), min(y for _, y in points)
    span = max(max(x for x, _ in points) - left, max(y for _, y in points) - top)
    scale = size_px / span
    return [((x - left) * scale, (y - top) * scale) for x, y in points]


def _turned(points: Points, degrees: float) -> Points:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in points]


def _small_turn(rng: random.Random, limit_degrees: float) -> float:
    return rng.uniform(-limit_degrees, limit_degrees) if rng.random() < 0.2 else 0.0


def _ring(count: int, radius_x: float = 1.0, radius_y: float = 1.0) -> Points:
    step = 2 * math.pi / count
    return [(radius_x * math.cos(i * step), radius_y * math.sin(i * step)) for i in range(count)]


def _circle(rng: random.Random) -> Points:
    squeeze = rng.uniform(0.93, 1.07) if rng.random() < 0.1 else 1.0
    return _ring(64, squeeze)


def _box(width: float, height: float) -> Points:
    return [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]


def _square(rng: random.Random) -> Points:
    side = rng.uniform(0.95, 1.05) if rng.random() < 0.1 else 1.0
    return _turned(_box(1.0, side), _small_turn(rng, 12))


def _rectangle(rng: random.Random) -> Points:
    aspect = rng.uniform(1.5, 3.2)
    box = _box(aspect, 1.0) if rng.random() < 0.6 else _box(1.0, aspect)
    return _turned(box, _small_turn(rng, 8))


def _triangle(rng: random.Random) -> Points:
    draw = rng.random()
    if draw < 0.65:
        points = [(0.5, 0.0), (1.0, rng.uniform(0.7, 1.15)), (0.0, 0.0)]
        points[2] = (0.0, points[1][1])
        if draw < 0.07:
            points = [(x, -y) for x, y in points]
        return points
    if draw < 0.8:
        sides = rng.uniform(0.7, 1.3)
        corner = [(0.0, 0.0), (1.0, sides), (0.0, sides)]
        return _turned(corner, rng.choice((0, 0, 90, 180, 270)))
    if draw < 0.9:
        return _turned([(0.5, 0.0), (1.0, 0.87), (0.0, 0.87)], rng.choice((90, 270)))
    return _turned([(0.5, 0.0), (1.0, 0.87), (0.0, 0.87)], rng.uniform(0, 360))


def _star(rng: random.Random) -> Points:
    tips = 5 if rng.random() < 0.88 else 6
    inner = rng.uniform(0.36, 0.5)
    points = []
    for i in range(tips * 2):
        angle = math.pi * i / tips - math.pi / 2
        radius = 1.0 if i % 2 == 0 else inner
        points.append((radius * math.cos(angle), radius * math.sin(angle)))
    turn = rng.uniform(0, 72) if rng.random() < 0.1 else _small_turn(rng, 20)
    return _turned(points, turn)


def _diamond(rng: random.Random) -> Points:
    width = 1.0 if rng.random() < 0.4 else rng.uniform(0.55, 1.15)
    return _turned([(width / 2, 0.0), (width, 0.5), (width / 2, 1.0), (0.0, 0.5)], _small_turn(rng, 5))


def _heart(rng: random.Random) -> Points:
    if rng.random() < 0.7:
        steps = [2 * math.pi * i / 60 for i in range(60)]
        stretch = rng.uniform(0.85, 1.1)
        points = [
            (
                16 * math.sin(t) ** 3,
                -stretch * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)),
            )
            for t in steps
        ]
    else:
        points = _plain_heart(rng.uniform(0.75, 1.05))
    return _turned(points, _small_turn(rng, 12))


def _plain_heart(depth: float) -> Points:
    """Two half discs over a triangle, the way a person composes one from primitives."""
    right = [(0.25 + 0.25 * math.cos(a), -0.25 * math.sin(a)) for a in _angles()]
    left = [(-0.25 + 0.25 * math.cos(a), -0.25 * math.sin(a)) for a in _angles()]
    return [*right, *left, (0.0, depth * 0.7)]


def _angles() -> list[float]:
    return [math.pi * i / 14 for i in range(15)]


def _cross(rng: random.Random) -> Points:
    arm = rng.uniform(0.12, 0.24)
    near, far = 0.5 - arm, 0.5 + arm
    points = [
        (near, 0.0), (far, 0.0), (far, near), (1.0, near), (1.0, far), (far, far),
        (far, 1.0), (near, 1.0), (near, far), (0.0, far), (0.0, near), (near, near),
    ]  # fmt: skip
    return _turned(points, 45.0 if rng.random() < 0.15 else _small_turn(rng, 8))


_OUTLINES: dict[str, Callable[[random.Random], Points]] = {
    "circle": _circle,
    "square": _square,
    "rectangle": _rectangle,
    "triangle": _triangle,
    "star": _star,
    "diamond": _diamond,
    "heart": _heart,
    "cross": _cross,
}
