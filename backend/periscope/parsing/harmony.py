"""The output of gpt-oss: messages in channels, for the user, for a tool, or for neither.

`<|channel|>analysis<|message|>...<|end|>` is reasoning, `final` the answer, `commentary` a preamble to it, and a
message `to=functions.NAME` a tool call whose arguments are its body. The opening `<|start|>assistant` is part of the
prompt, and what ends the turn (`<|return|>`, `<|call|>`) never arrives: it is an end-of-sequence token.

Pure apart from the ids it draws. Source: the Harmony response format, https://cookbook.openai.com/articles/openai-harmony
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from enum import StrEnum

from periscope.core import OutputFormat, ReasoningDelta, TextDelta, Tool
from periscope.parsing.call_reader import CallReader
from periscope.parsing.contracts import (
    CallCounter,
    Delta,
    call_arguments,
    call_name,
    is_broken_marker,
    new_call_id,
)
from periscope.parsing.json_scan import JSONScanner
from periscope.parsing.markers import MarkerSet

_START, _CHANNEL, _CONSTRAIN, _MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
_MARKERS = MarkerSet((_START, _CHANNEL, _CONSTRAIN, _MESSAGE, "<|end|>", "<|return|>", "<|call|>"))

#: The rest of a header whose `<|start|>` stands in the prompt; its beginnings match too, up to the word "assistant".
_OPENING = re.compile(r"\s*(assistant)?\s*(t?|to?|to=\S*\s*)")
_MAX_OPENING_LENGTH = 256
_BODY_OPENING = re.compile(r"\s*(?=\{)")


class _Place(StrEnum):
    OPENING = "opening"  # the first text: the rest of a header, or an answer without any
    HEADER = "header"
    BETWEEN = "between"  # after a message
    REASONING = "reasoning"
    ANSWER = "answer"
    CALL = "call"


class HarmonyParser:
    """Owns the parse of one completion: its state and the header or call that is open. A `Parser`.

    Text outside of messages is answer (constrained output is nothing else). Control tokens and headers
    are dropped everywhere except inside a JSON string of a call. Without tools a call is answer, too.

    Args:
        has_plain_answer: the answer is JSON or calls: once it has begun, nothing in it is a control token.
    """

    def __init__(
        self,
        format: OutputFormat,  # noqa: A002 - as `OutputParser`
        tools: tuple[Tool, ...],
        new_call_id: Callable[[], str] = new_call_id,
        *,
        has_plain_answer: bool = False,
    ) -> None:
        self._has_plain_answer = has_plain_answer
        self._has_tools = bool(tools)
        self._place = _Place.ANSWER if format.continues_text else _Place.OPENING
        if format.starts_in_reasoning:
            self._place = _Place.REASONING
        self._tail = ""  # may still become a marker
        self._header: list[str] = []
        self._name = ""  # of the open call
        self._body: list[str] = []  # of the open call
        self._scanner = JSONScanner()
        self._spoken: set[_Place] = set()  # the kinds of message that have had text
        self._is_new_message = False
        self._events: list[Delta] = []
        self._counter = CallCounter(new_call_id)
        self._reader = self._new_reader()

    @property
    def num_tool_calls(self) -> int:
        return self._counter.num_calls

    @property
    def is_reasoning(self) -> bool:
        return self._place is _Place.REASONING

    def feed(self, text: str) -> list[Delta]:
        text = self._tail + text
        position = 0
        while True:
            start, end = _MARKERS.find(text, position)
            self._take(text[position:start])
            if start == end:
                break
            self._cross(text[start:end])
            position = end
        self._tail = text[start:]
        return self._drain()

    def finish(self, *, is_cut_off: bool = False) -> list[Delta]:
        """Ends the output. An open call with complete arguments is a call: its end marker never arrives."""
        is_in_string = self._place is _Place.CALL and self._scanner.is_in_string
        if is_in_string or not is_broken_marker(self._tail, is_cut_off=is_cut_off):
            self._take(self._tail)
        self._tail = ""
        if self._place is _Place.CALL and not is_cut_off and any(part.strip() for part in self._body):
            self._close_call()
        elif self._place is _Place.OPENING and not (is_cut_off and _is_broken_header("".join(self._header))):
            self._give_up_opening()
        self._place = _Place.BETWEEN
        return self._drain()

    def _drain(self) -> list[Delta]:
        events = list(self._events)
        self._events.clear()  # in place: the reader appends to this list
        return events

    def _new_reader(self) -> CallReader:
        return CallReader(self._read_body_opening, self._counter, self._events)

    def _read_body_opening(self, text: str) -> tuple[str, int] | None:
        found = _BODY_OPENING.match(text)
        try:
            return None if found is None or not self._has_tools else (call_name(self._name), found.end())
        except ValueError:
            return None

    def _take(self, text: str) -> None:
        """Takes text without markers that count."""
        if not text:
            return
        if self._place is _Place.OPENING:
            self._header.append(text)
            opening = "".join(self._header)
            if len(opening) > _MAX_OPENING_LENGTH or not _may_be_header(opening):
                self._give_up_opening()
        elif self._place is _Place.HEADER:
            self._header.append(text)
        elif self._place is _Place.CALL:
            self._take_body(text)
        elif self._place is _Place.BETWEEN:
            text = text.lstrip()
            if text:
                self._place = _Place.ANSWER
                self._emit(text)
        else:
            self._emit(text)

    def _take_body(self, text: str) -> None:
        """Takes text of a call. Text after its arguments is dropped."""
        self._scanner.feed_all(text)
        if self._reader.is_reading:
            self._reader.feed(text, 0, len(text))
        if not self._reader.has_begun:
            self._body.append(text)

    def _emit(self, text: str) -> None:
        """Emits text of a message, after a blank line if an earlier message was of the same kind."""
        if self._is_new_message and self._place in self._spoken:
            text = "\n\n" + text
        self._is_new_message = False
        self._spoken.add(self._place)
        self._events.append(ReasoningDelta(text) if self._place is _Place.REASONING else TextDelta(text))

    def _give_up_opening(self) -> None:
        text = "".join(self._header)
        self._header.clear()
        self._place = _Place.ANSWER
        if text:
            self._emit(text)

    def _cross(self, marker: str) -> None:
        is_plain = self._place is _Place.ANSWER and self._has_plain_answer
        if is_plain or (self._place is _Place.CALL and self._scanner.is_in_string):
            self._take(marker)
            return
        in_header = self._place in (_Place.OPENING, _Place.HEADER)
        if marker == _MESSAGE and in_header:
            self._open_message()
        elif marker in (_MESSAGE, _CONSTRAIN):
            if in_header:
                self._header.append(" ")
        else:
            self._leave(marker, in_header=in_header)

    def _leave(self, marker: str, *, in_header: bool) -> None:
        """Takes a marker, which ends a message or begins a header."""
        if self._place is _Place.CALL:
            self._close_call()
        elif self._place is _Place.OPENING and marker not in (_START, _CHANNEL):
            self._give_up_opening()
        if marker != _CHANNEL or not in_header:
            self._header.clear()
        if marker == _CHANNEL:
            self._header.append(f" {_CHANNEL} ")
        self._place = _Place.HEADER if marker in (_START, _CHANNEL) else _Place.BETWEEN

    def _open_message(self) -> None:
        words = "".join(self._header).split()
        self._header.clear()
        self._is_new_message = True
        recipients = [word.removeprefix("to=") for word in words if word.startswith("to=")]
        if recipients:
            self._place = _Place.CALL
            self._name = recipients[0].removeprefix("functions.")
            self._scanner = JSONScanner()
            self._reader = self._new_reader()
        elif (_CHANNEL, "analysis") in itertools.pairwise(words):
            self._place = _Place.REASONING
        else:
            self._place = _Place.ANSWER

    def _close_call(self) -> None:
        body = "".join(self._body).strip()
        self._body.clear()
        self._place = _Place.ANSWER
        if self._reader.has_begun:
            return
        try:
            if not self._has_tools:
                raise ValueError("no tools")  # noqa: TRY301 - one way out for all that is no call
            self._events += self._counter.whole(call_name(self._name), call_arguments(body))
        except (ValueError, TypeError, RecursionError):
            if body:
                self._emit(body)


def _may_be_header(opening: str) -> bool:
    return "assistant".startswith(opening.strip()) or _OPENING.fullmatch(opening) is not None


def _is_broken_header(opening: str) -> bool:
    """Whether this is more likely the beginning of a header than of an answer."""
    return opening[:1].isspace() or "to=" in opening
