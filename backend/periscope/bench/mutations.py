"""Ways to break a file: flipped bits, cuts, swapped headers, moved spans, wrong numbers. Pure, given a generator."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Final, TypeAlias

Mutation: TypeAlias = Callable[[bytearray, random.Random], None]

_MAX_MUTATIONS: Final = 3
_MAX_FLIPPED_BITS: Final = 16
#: No file becomes longer than this by spans that are repeated.
_MAX_BYTES: Final = 64 * 1024
#: As many bytes of another file as most headers have, at most.
_MAX_HEAD_BYTES: Final = 64
_NUMBER: Final = re.compile(rb"\d+")
#: Values at which sizes, counts and offsets overflow, in one, two, four and eight bytes.
_EXTREMES: Final = tuple(
    value.to_bytes(size, order, signed=value < 0)
    for size in (1, 2, 4, 8)
    for value in (0, 1, -1, 2 ** (8 * size - 1) - 1, -(2 ** (8 * size - 1)))
    for order in ("big", "little")
)
_NUMBERS_IN_TEXT: Final = (b"0", b"-1", b"65536", b"2147483648", b"99999999999999999999", b"1e400")


def mutated(data: bytes, others: tuple[bytes, ...], drawn: random.Random) -> bytes:
    """One to three mutations of a file that is not empty.

    Args:
        others: files of other formats, whose headers it may get.
    """
    file = bytearray(data)
    for _ in range(drawn.randint(1, _MAX_MUTATIONS)):
        if drawn.random() < 1 / (len(_MUTATIONS) + 1):
            _take_head(file, drawn.choice(others), drawn)
        else:
            drawn.choice(_MUTATIONS)(file, drawn)
        if not file:
            break
    return bytes(file[:_MAX_BYTES])


def _take_head(file: bytearray, other: bytes, drawn: random.Random) -> None:
    size = drawn.randint(1, min(_MAX_HEAD_BYTES, len(other)))
    file[: drawn.choice((0, size))] = other[:size]


def _flip_bits(file: bytearray, drawn: random.Random) -> None:
    for _ in range(drawn.randint(1, _MAX_FLIPPED_BITS)):
        file[drawn.randrange(len(file))] ^= 1 << drawn.randrange(8)


def _set_extreme(file: bytearray, drawn: random.Random) -> None:
    """Half of the time near the beginning, where sizes stand."""
    value = drawn.choice(_EXTREMES)
    at = drawn.randrange(min(len(file), drawn.choice((_MAX_HEAD_BYTES, _MAX_BYTES))))
    file[at : at + len(value)] = value


def _change_number(file: bytearray, drawn: random.Random) -> None:
    """A number written in digits, as in PDF; other files hold some by chance."""
    numbers = list(_NUMBER.finditer(file))
    if numbers:
        start, end = drawn.choice(numbers).span()
        file[start:end] = drawn.choice(_NUMBERS_IN_TEXT)


def _cut_off(file: bytearray, drawn: random.Random) -> None:
    del file[drawn.randrange(len(file)) :]


def _remove_span(file: bytearray, drawn: random.Random) -> None:
    start, end = _span(file, drawn)
    del file[start:end]


def _repeat_span(file: bytearray, drawn: random.Random) -> None:
    start, end = _span(file, drawn)
    file[end:end] = bytes(file[start:end]) * drawn.choice((1, 2, 50))
    del file[_MAX_BYTES:]


def _move_span(file: bytearray, drawn: random.Random) -> None:
    start, end = _span(file, drawn)
    moved = file[start:end]
    del file[start:end]
    at = drawn.randint(0, len(file))
    file[at:at] = moved


def _fill_span(file: bytearray, drawn: random.Random) -> None:
    start, end = _span(file, drawn)
    file[start:end] = bytes([drawn.choice((0, 0xFF, drawn.randrange(256)))]) * (end - start)


def _span(file: bytearray, drawn: random.Random) -> tuple[int, int]:
    start = drawn.randrange(len(file))
    return start, min(len(file), start + drawn.choice((1, 4, 16, 256)))


_MUTATIONS: Final[tuple[Mutation, ...]] = (
    _flip_bits,
    _set_extreme,
    _change_number,
    _cut_off,
    _remove_span,
    _repeat_span,
    _move_span,
    _fill_span,
)
