"""Follows JSON through text that arrives in pieces: where an object ends, and what stands inside a string.

Pure; knows brackets, quotes and escapes, and leaves the rest of JSON's grammar to `json`.
"""

from __future__ import annotations

import re

_OUTSIDE = re.compile(r'["{}\[\]]')
_INSIDE = re.compile(r'["\\\n]')


class JSONScanner:
    """Owns the depth of brackets at the end of the text so far, and whether it ends in a string. Linear in the text."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_escaped = False
        self.is_in_string = False

    def feed(self, text: str, begin: int = 0, end: int | None = None) -> int:
        """Reads `text[begin:end]` and returns the index after the bracket that closes the outermost one, or -1.

        To read on, call again with the returned index.
        """
        end = len(text) if end is None else end
        position = begin
        while position < end:
            if self._is_escaped:
                self._is_escaped = False
                position += 1
                continue
            found = (_INSIDE if self.is_in_string else _OUTSIDE).search(text, position, end)
            if found is None:
                break
            position = found.end()
            if self._take(found[0]):
                return position
        return -1

    def feed_all(self, text: str) -> None:
        """Reads all of `text`, past any closed brackets."""
        position = 0
        while position >= 0:
            position = self.feed(text, position)

    def _take(self, character: str) -> bool:
        """Whether this character closes the outermost bracket."""
        if self.is_in_string:
            self._is_escaped = character == "\\"
            # A raw newline cannot be in a JSON string, so a quote is missing, and the string ends here.
            self.is_in_string = self._is_escaped
        elif character == '"':
            self.is_in_string = True
        elif character in "{[":
            self._depth += 1
        elif self._depth:
            self._depth -= 1
            return self._depth == 0
        return False
