"""Incremental search for literal markers in text that arrives in pieces.

Pure, no state: the caller keeps the text that may be part of a marker (always shorter than the longest marker).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@lru_cache(maxsize=256)
def marker_set(markers: tuple[str, ...]) -> MarkerSet:
    """Pure: the set of these markers. Those of a model are the same for each of its completions."""
    return MarkerSet(markers)


class MarkerSet:
    """A fixed set of literal strings to look for; immutable, shared freely.

    A marker is recognised at the leftmost place it starts; of two that start there, the shorter one. Both are
    decided by the text from that place on, so the way the text was cut cannot change what is found.

    Args:
        markers: non-empty strings. In an empty set nothing is ever found.
    """

    def __init__(self, markers: Iterable[str]) -> None:
        self._markers = sorted(markers, key=len)
        self._longest = len(self._markers[-1]) if self._markers else 0
        first_characters = "".join({marker[0] for marker in self._markers})
        self._beginning = re.compile(f"[{re.escape(first_characters)}]") if self._markers else None
        # One pattern, not one `find` per marker: the search for a marker that never comes would rescan the text
        # after each one that does.
        self._pattern = re.compile("|".join(map(re.escape, self._markers))) if self._markers else None

    def may_begin_in(self, text: str) -> bool:
        """Pure: whether the text has a character with which a marker begins; most text has none."""
        return self._beginning is not None and self._beginning.search(text) is not None

    def find(self, text: str, begin: int) -> tuple[int, int]:
        """Pure: the span `(start, end)` of the first marker in `text[begin:]`.

        Without a marker the span is empty (`start == end`): `text[begin:start]` holds no part of a marker, whatever
        follows, and `text[start:]` may be the beginning of one.
        """
        if self._beginning is None or (first := self._beginning.search(text, begin)) is None:
            return len(text), len(text)
        hold = self._hold_from(text, first.start())
        match = self._pattern.search(text, first.start()) if self._pattern else None
        # An earlier start that may still become a longer marker comes first.
        if match is None or match.start() > hold:
            return hold, hold
        return match.span()

    def _hold_from(self, text: str, begin: int) -> int:
        """Index of the longest suffix of the text that is a proper prefix of a marker."""
        for start in range(max(begin, len(text) - self._longest + 1), len(text)):
            tail = text[start:]
            if any(len(marker) > len(tail) and marker.startswith(tail) for marker in self._markers):
                return start
        return len(text)
