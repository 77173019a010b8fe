"""Tool calls that models write as bare JSON objects in the answer, without a marker that identifies them.

Pure apart from the ids it draws. Reasoning is split off by another parser, which reads the text first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from periscope.core import TextDelta
from periscope.parsing.call_reader import CallReader, json_opening
from periscope.parsing.contracts import (
    CallCounter,
    Delta,
    Parser,
    call_arguments,
    call_name,
    is_broken_marker,
    new_call_id,
)
from periscope.parsing.json_scan import JSONScanner
from periscope.parsing.markers import marker_set


@dataclass(frozen=True, slots=True)
class BareCallDialect:
    """What differs between models that write bare calls.

    Attributes:
        tag: announces calls, to any tool; it is dropped.
        dropped: control tokens, which are not text.
        separators: characters that may come before, between and after calls without being part of an answer.
        is_exact: the output fits a grammar: a call of an offered tool begins exactly
            `{"name": <name>, "parameters": `.
        is_forced: the grammar allows calls only: any object that looks like a call is one, unless the output begins
            with text. Otherwise a call without `tag` must be of an offered tool.
    """

    tag: str | None = None
    dropped: tuple[str, ...] = ()
    separators: re.Pattern[str] = re.compile(r"[\s,;\[\]]*")
    is_exact: bool = False
    is_forced: bool = False


#: Llama 3: alone or, in its mode for code, after a tag; several are separated by semicolons or in a list.
LLAMA = BareCallDialect(tag="<|python_tag|>", dropped=("<|eom_id|>", "<|eot_id|>"))
#: The same with a grammar: anything else that looks like a call is part of the answer.
LLAMA_CONSTRAINED = replace(LLAMA, separators=re.compile(r"[\s;]*"), is_exact=True)
#: `[{"name": ..., "arguments": {...}}, ...]`, with a grammar.
FORCED = BareCallDialect(is_forced=True)

#: An object is known not to be a call by its first characters, so that an answer in JSON is streamed.
_OPENING_LENGTH = 64
_KEYS = ("name", "type", "id", "function", "parameters", "arguments")
_CALL_OPENING = re.compile(rf'\{{\s*"({"|".join(_KEYS)})"')
_BROKEN_OPENING = re.compile(r'\{\s*("\w*)?')


class _Place(StrEnum):
    BETWEEN = "between"  # where a call may begin
    OBJECT = "object"
    REST = "rest"  # after the arguments of a call
    EXTRA = "extra"  # in further members of its object
    TEXT = "text"


class BareCallParser:
    """Owns the parse of one completion whose calls are bare JSON: reasoning first, then the answer. A `Parser`.

    Args:
        split: a parser without tools, which splits the completion into answer and reasoning.
        names: of the tools offered; with none, nothing is a call.
        has_plain_answer: an answer is JSON: once it has begun, nothing in it is a marker.
        continues_answer: the answer has begun in the prompt, so what comes is no call at its beginning.
    """

    def __init__(
        self,
        split: Parser,
        dialect: BareCallDialect,
        names: frozenset[str],
        new_call_id: Callable[[], str] = new_call_id,
        *,
        has_plain_answer: bool = False,
        continues_answer: bool = False,
    ) -> None:
        self._split = split
        self._counter = CallCounter(new_call_id)
        self._calls = BareCalls(
            dialect, names, self._counter, has_plain_answer=has_plain_answer, continues_answer=continues_answer
        )

    @property
    def num_tool_calls(self) -> int:
        return self._counter.num_calls

    @property
    def is_reasoning(self) -> bool:
        return self._split.is_reasoning

    def feed(self, text: str) -> list[Delta]:
        return self._read(self._split.feed(text))

    def finish(self, *, is_cut_off: bool = False) -> list[Delta]:
        return self._read(self._split.finish(is_cut_off=is_cut_off)) + self._calls.finish(is_cut_off=is_cut_off)

    def _read(self, events: list[Delta]) -> list[Delta]:
        read: list[Delta] = []
        for event in events:
            read += self._calls.feed(event.text) if isinstance(event, TextDelta) else [event]
        return read


class BareCalls:
    """Owns the parse of one answer: its state and the object that is open.

    A call at the beginning of the answer is a call, and text after it is text. If the answer begins with text, the
    rest is text, too, up to the dialect's tag.
    """

    def __init__(
        self,
        dialect: BareCallDialect,
        names: frozenset[str],
        counter: CallCounter,
        *,
        has_plain_answer: bool = False,
        continues_answer: bool = False,
    ) -> None:
        self._dialect = dialect
        self._names = names
        self._counter = counter
        self._openings = {f'{{"name": {json.dumps(name)}, "parameters": ': name for name in names}
        self._takes_any_name = dialect.is_forced
        self._has_plain_answer = has_plain_answer
        self._markers = marker_set((*([dialect.tag] if dialect.tag else []), *dialect.dropped))
        self._place = _Place.TEXT if continues_answer else _Place.BETWEEN
        self._tail = ""  # may still become a marker
        self._gap: list[str] = []  # separators
        self._object: list[str] = []
        self._object_length = 0
        self._scanner = JSONScanner()
        self._events: list[Delta] = []
        self._reader = self._new_reader()

    def feed(self, text: str) -> list[Delta]:
        """Takes the next piece of the answer and returns the events that are certain."""
        self._take(text)
        return self._drain()

    def finish(self, *, is_cut_off: bool) -> list[Delta]:
        """Takes the end of the answer. Idempotent."""
        rest = [] if is_cut_off and self._is_broken_call() else self._object
        tail = "" if is_broken_marker(self._tail, is_cut_off=is_cut_off) else self._tail
        if is_cut_off and not rest and not tail:
            self._gap.clear()
        if rest or tail or not self._counter.num_calls:
            self._emit("".join([*rest, tail]))
        self._object.clear()
        self._gap.clear()
        self._tail = ""
        return self._drain()

    def _is_broken_call(self) -> bool:
        """Whether the open object may be the beginning of a call."""
        if not self._names:
            return False
        if self._takes_any_name or self._object_length > _OPENING_LENGTH:
            return True
        opening = "".join(self._object)
        broken = None if self._dialect.is_exact else _BROKEN_OPENING.fullmatch(opening)
        if broken is not None:
            return any(f'"{key}"'.startswith(broken[1] or "") for key in _KEYS)
        return self._may_be_call(opening)

    def _new_reader(self) -> CallReader:
        return CallReader(self._read_opening, self._counter, self._events)

    def _read_opening(self, text: str) -> tuple[str, int] | None:
        if not self._names:
            return None
        if self._dialect.is_exact:
            exact = (opening for opening in self._openings if text.startswith(f"{opening}{{"))
            opening = next(exact, None)
            return None if opening is None else (self._openings[opening], len(opening))
        found = json_opening(text)
        return found if found is not None and (self._takes_any_name or found[0] in self._names) else None

    def _drain(self) -> list[Delta]:
        events = list(self._events)
        self._events.clear()  # in place: the reader appends to this list
        return events

    def _take(self, text: str) -> None:
        text, self._tail = self._tail + text, ""
        position = 0
        while position < len(text):
            if self._place is _Place.BETWEEN:
                position = self._take_separators(text, position)
            if self._place in (_Place.OBJECT, _Place.REST, _Place.EXTRA):
                position = self._take_call(text, position)
                continue
            start, end = self._markers.find(text, position)
            if start > position:
                self._emit(text[position:start])
            if start == end:
                self._tail = text[start:]
                return
            self._cross(text[start:end])
            position = end

    def _take_call(self, text: str, position: int) -> int:
        """Reads on in a call, or in text that may be one, and returns where it stopped."""
        if self._place is _Place.OBJECT:
            return self._take_object(text, position)
        if self._place is _Place.REST:
            return self._take_rest(text, position)
        closed = self._scanner.feed(text, position)
        if closed >= 0:
            self._end_object()
        return len(text) if closed < 0 else closed

    def _take_separators(self, text: str, position: int) -> int:
        """Skips separators and returns where they end."""
        separators = self._dialect.separators.match(text, position)
        assert separators is not None  # noqa: S101 - it matches nothing too
        self._gap.append(separators[0])
        if text.startswith("{", separators.end()):
            self._place = _Place.OBJECT
        return separators.end()

    def _emit(self, text: str) -> None:
        """Emits text of the answer, preceded by the separators before it."""
        text = "".join([*self._gap, text])
        self._gap.clear()
        if text:
            self._place = _Place.TEXT
            self._events.append(TextDelta(text))

    def _cross(self, marker: str) -> None:
        if self._place is _Place.TEXT and self._has_plain_answer:
            self._emit(marker)
        elif marker == self._dialect.tag:
            self._place = _Place.BETWEEN
            self._takes_any_name = True
            self._gap.clear()

    def _take_object(self, text: str, position: int) -> int:
        """Reads on in the open object and returns where it stopped."""
        if self._reader.has_begun:
            return self._take_arguments(text, position)
        room = _OPENING_LENGTH - self._object_length
        stop = len(text) if self._takes_any_name or room <= 0 else min(len(text), position + room)
        if self._reader.is_reading:
            stop = self._reader.feed(text, position, stop)
            if self._reader.has_begun:
                self._object.clear()
                self._gap.clear()
                return self._take_arguments(text, stop)
        closed = self._scanner.feed(text, position, stop)
        end = stop if closed < 0 else closed
        self._object.append(text[position:end])
        self._object_length += end - position
        if closed >= 0:
            self._close_object()
        elif self._object_length == _OPENING_LENGTH and not self._takes_any_name:
            opening = "".join(self._object)
            if not self._may_be_call(opening):
                self._end_object()
                self._emit(opening)
        return end

    def _take_arguments(self, text: str, position: int) -> int:
        end = self._reader.feed(text, position, len(text))
        if self._reader.is_whole:
            self._place = _Place.REST
        return end

    def _take_rest(self, text: str, position: int) -> int:
        """Reads on after a call's arguments, where its object ends or has further members; returns where it stopped."""
        while position < len(text) and text[position].isspace():
            position += 1
        if position < len(text):
            character = text[position]
            self._end_object()
            if character == ",":
                self._place = _Place.EXTRA
                self._scanner.feed_all("{")
            position += character in "},"
        return position

    def _may_be_call(self, opening: str) -> bool:
        if self._dialect.is_exact:
            return any(opening.startswith(call) or call.startswith(opening) for call in self._openings)
        return _CALL_OPENING.match(opening) is not None

    def _close_object(self) -> None:
        raw = "".join(self._object)
        self._end_object()
        try:
            name, arguments = _read_call(raw)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            self._emit(raw)
            return
        is_known = raw.startswith(tuple(self._openings)) if self._dialect.is_exact else name in self._names
        if not self._names or not (self._takes_any_name or is_known):
            self._emit(raw)
            return
        self._gap.clear()
        self._events += self._counter.whole(name, arguments)

    def _end_object(self) -> None:
        self._object.clear()
        self._object_length = 0
        self._scanner = JSONScanner()
        self._reader = self._new_reader()
        self._place = _Place.BETWEEN


def _read_call(raw: str) -> tuple[str, str]:
    """The call in `raw` as (name, arguments). Raises if it is not a call."""
    call = json.loads(raw)
    name = call["name"] if "name" in call else call["function"]
    return call_name(name), call_arguments(call["parameters"] if "parameters" in call else call["arguments"])
