"""Limits the number of digits in JSON numbers.

JSON allows endless digits, a model that repeats itself writes them, and llguidance has no limit for them. So tokens
that start with more digits than are left are masked, as long as the grammar allows any other token: the output still
fits the schema.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from periscope.engine.structured.token_bits import packed, unpacked

#: Digits after the point: as many as it takes to write any float.
MAX_FRACTION_DIGITS = 17
MAX_EXPONENT_DIGITS = 3

#: The number at the end of a text, if JSON may contain one there, as (whole, point, fraction, exponent sign, exponent).
_LAST_NUMBER = re.compile(rb"(?:^|[\s:,\[>])-?([0-9]+)(?:(\.)([0-9]*))?(?:([eE][+-]?)([0-9]*))?$")


@dataclass(frozen=True, slots=True)
class Room:
    """How many digits a number may still get.

    Attributes:
        is_fraction: whether they are after the point.
    """

    num_digits: int
    is_fraction: bool = False


def room_for_digits(text: bytes, max_whole_digits: int) -> Room | None:
    """Pure: the room for digits at the end of this text; None if it does not end in a number."""
    found = _LAST_NUMBER.search(text)
    if found is None:
        return None
    whole, point, fraction, exponent, exponent_digits = found.groups()
    if exponent is not None:
        return Room(MAX_EXPONENT_DIGITS - len(exponent_digits))
    if point is not None:
        return Room(MAX_FRACTION_DIGITS - len(fraction), is_fraction=True)
    return Room(max_whole_digits - len(whole))


class DigitTokens:
    """How many digits each token of a vocabulary starts with. Immutable, made once per vocabulary and shared.

    Args:
        token_bytes: the bytes of each token id.
        num_bits: number of bits in a mask, a multiple of 32.
    """

    def __init__(self, token_bytes: Sequence[bytes], num_bits: int) -> None:
        self._num_digits = np.zeros(num_bits, dtype=np.int16)
        self._is_zero = np.zeros(num_bits, dtype=bool)
        self._is_text = np.zeros(num_bits, dtype=bool)
        for token_id, start in enumerate(token_bytes):
            if start[:1].isdigit():
                self._num_digits[token_id] = len(start) - len(start.lstrip(b"0123456789"))
                self._is_zero[token_id] = start.startswith(b"0")
            self._is_text[token_id] = start[:1] in (b'"', b"x")
        self.longest = int(self._num_digits.max())

    def without_long_numbers(self, words: NDArray[np.uint32], room: Room) -> NDArray[np.uint32]:
        """Pure: mask the tokens that start with more digits than there is room for.

        If quotes or letters are allowed, no number is being written. If only digits are allowed, the number must go on:
        after the point with a digit other than zero, because zeros may never satisfy an exclusive minimum.
        """
        allowed = unpacked(words)
        if (allowed & self._is_text).any():
            return words
        rest = allowed & (self._num_digits <= max(room.num_digits, 0))
        if not rest.any() and room.is_fraction:
            rest = allowed & ~self._is_zero
        return packed(rest) if rest.any() else words


class NumberWatch:
    """Owns the tail of one row's text, which may end in an unfinished number."""

    def __init__(self, digits: DigitTokens, max_whole_digits: int) -> None:
        self._digits = digits
        self._max_whole_digits = max_whole_digits
        self._length = max_whole_digits + MAX_FRACTION_DIGITS + MAX_EXPONENT_DIGITS + 8
        self._end = b""

    def see(self, text: bytes) -> None:
        """Append to the text."""
        self._end = (self._end + text)[-self._length :]

    def bounded(self, words: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Mask the tokens that would make the number at the end of the text too long."""
        if self._end[-1:] not in _NUMBER_ENDS:
            return words
        room = room_for_digits(self._end, self._max_whole_digits)
        if room is None or room.num_digits >= self._digits.longest:
            return words
        return self._digits.without_long_numbers(words, room)


_NUMBER_ENDS = frozenset(bytes([byte]) for byte in b"0123456789.eE+-")
