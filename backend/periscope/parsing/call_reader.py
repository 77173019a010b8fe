"""Reads one tool call whose arguments are a JSON object, while it is being written.

Pure; knows nothing of markers between calls, or of how a call ends after its arguments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TypeAlias

from periscope.parsing.contracts import CallCounter, Delta, call_name
from periscope.parsing.json_scan import JSONScanner

#: From the text of a call to its name and the length of what precedes its arguments, which begin with `{`; None while
#: the text does not hold all of that. Further text must not change the result.
ReadOpening: TypeAlias = Callable[[str], tuple[str, int] | None]

#: A call whose arguments do not begin within so many characters is read when it is complete.
MAX_OPENING_LENGTH = 512

#: `{"name": ..., "arguments": `, in the order models write it.
_JSON_OPENING = re.compile(
    r'\s*\{\s*(?:"(?:type|id)"\s*:\s*"[^"\\\n]*"\s*,\s*)*"name"\s*:\s*("(?:[^"\\\n]|\\.)*")\s*,'
    r'\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
#: Mistral's `name[ARGS]`; some of its models write an id between the two, which is not used.
_MISTRAL_OPENING = re.compile(r"\s*([\w-]+)\s*(?:\[CALL_ID\][\w-]*\s*)?\[ARGS\]\s*(?=\{)")


def json_opening(text: str) -> tuple[str, int] | None:
    """Pure: read the opening of a call in this syntax; a `ReadOpening`."""
    found = _JSON_OPENING.match(text)
    if found is None:
        return None
    try:
        return call_name(json.loads(found[1])), found.end()
    except ValueError:
        return None


def mistral_opening(text: str) -> tuple[str, int] | None:
    """Pure: read the opening of a call in this syntax; a `ReadOpening`."""
    found = _MISTRAL_OPENING.match(text)
    return None if found is None else (found[1], found.end())


class CallReader:
    """Owns the state of reading one call. Appends its events to its owner's list.

    Attributes:
        has_begun: the start of the call has been emitted; all text from there to the end of its arguments is theirs.
        is_whole: its arguments are complete.
        is_hopeless: the text is not the beginning of a call, and cannot become it.
    """

    def __init__(self, read_opening: ReadOpening, counter: CallCounter, events: list[Delta]) -> None:
        self._read_opening = read_opening
        self._counter = counter
        self._events = events
        self._opening = ""
        self._scanner = JSONScanner()
        self.has_begun = False
        self.is_whole = False
        self.is_hopeless = False

    @property
    def is_reading(self) -> bool:
        """Whether it takes more text."""
        return not self.is_whole and not self.is_hopeless

    def feed(self, text: str, begin: int, end: int) -> int:
        """Reads `text[begin:end]`; returns where it stopped, which is `end` unless `is_reading` has changed."""
        while begin < end and self.is_reading:
            begin = self._take_arguments(text, begin, end) if self.has_begun else self._take_opening(text, begin, end)
        return begin

    def _take_opening(self, text: str, begin: int, end: int) -> int:
        num_before = len(self._opening)
        end = min(end, begin + MAX_OPENING_LENGTH - num_before)
        self._opening += text[begin:end]
        found = self._read_opening(self._opening)
        if found is None:
            self.is_hopeless = len(self._opening) >= MAX_OPENING_LENGTH
            return end
        name, length = found
        self.has_begun = True
        self._opening = ""
        self._events.append(self._counter.start(name))
        return begin + length - num_before

    def _take_arguments(self, text: str, begin: int, end: int) -> int:
        closed = self._scanner.feed(text, begin, end)
        self.is_whole = closed >= 0
        stop = closed if self.is_whole else end
        self._events.append(self._counter.arguments(text[begin:stop]))
        return stop
