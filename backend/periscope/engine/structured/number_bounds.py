"""How long the numbers are that a model writes in JSON.

JSON's grammar lets digits go on for ever, and so does a model that repeats itself. The compiler of JSON schemas has no
bounds for digits. Here tokens that begin with more digits than are left are taken out of those that a grammar allows,
as long as it allows any other: so what is left always fits the schema.
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

#: The number that a text ends with, where JSON may hold one, as (whole, point, fraction, exponent sign, exponent).
_LAST_NUMBER = re.compile(rb"(?:^|[\s:,\[>])-?([0-9]+)(?:(\.)([0-9]*))?(?:([eE][+-]?)([0-9]*))?$")


@dataclass(frozen=True, slots=True)
class Room:
    """Digits that a number may still have.

    Attributes:
        is_fraction: they stand after the point.
    """

    num_digits: int
    is_fraction: bool = False


def room_for_digits(text: bytes, max_whole_digits: int) -> Room | None:
    """Pure: at the end of this text; None where no number is being written."""
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
    """What a vocabulary's tokens begin with; immutable, made once for a vocabulary and shared.

    Args:
        token_bytes: of each token id.
        num_bits: in the words of a mask, a multiple of 32.
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
        """Pure: what is allowed, of tokens that begin with digits only those that there is room for.

        Where quotes or letters may come this is no number. Where only digits may come the number has to go on: after
        the point with one that ends it, which zeros do not where the least value is excluded.
        """
        allowed = unpacked(words)
        if (allowed & self._is_text).any():
            return words
        rest = allowed & (self._num_digits <= max(room.num_digits, 0))
        if not rest.any() and room.is_fraction:
            rest = allowed & ~self._is_zero
        return packed(rest) if rest.any() else words


class NumberWatch:
    """Owns the end of one row's text, in which a number may be growing."""

    def __init__(self, digits: DigitTokens, max_whole_digits: int) -> None:
        self._digits = digits
        self._max_whole_digits = max_whole_digits
        self._length = max_whole_digits + MAX_FRACTION_DIGITS + MAX_EXPONENT_DIGITS + 8
        self._end = b""

    def see(self, text: bytes) -> None:
        """The text goes on like this."""
        self._end = (self._end + text)[-self._length :]

    def bounded(self, words: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """What is allowed after the text so far."""
        if self._end[-1:] not in _NUMBER_ENDS:
            return words
        room = room_for_digits(self._end, self._max_whole_digits)
        if room is None or room.num_digits >= self._digits.longest:
            return words
        return self._digits.without_long_numbers(words, room)


_NUMBER_ENDS = frozenset(bytes([byte]) for byte in b"0123456789.eE+-")
