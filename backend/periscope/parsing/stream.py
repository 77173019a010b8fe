"""Splits one completion's raw text into answer, reasoning and tool calls while it is being generated.

Pure apart from the ids it draws: no clock, no I/O. Knows nothing of MLX; how a model writes its tool calls
comes in as data (`OutputFormat`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from enum import StrEnum

from periscope.core import JSONObject, OutputFormat, ReasoningDelta, TextDelta, Tool, ToolCallStyle
from periscope.parsing.bare_calls import FORCED, BareCalls
from periscope.parsing.contracts import (
    CallCounter,
    Delta,
    call_arguments,
    call_name,
    is_broken_marker,
    new_call_id,
)
from periscope.parsing.markers import marker_set
from periscope.parsing.open_call import OpenCall

logger = logging.getLogger(__name__)

_NO_SPACE = re.compile(r"\S")


class _State(StrEnum):
    NORMAL = "normal"
    REASONING = "reasoning"
    TOOL = "tool"
    OPENED = "opened"  # after a tool marker that has no end marker: a list of calls, or one
    LISTED = "listed"  # a list of calls, to the end
    PLAIN = "plain"  # an answer without markers, to its end


class _Space(StrEnum):
    """What happens to whitespace that comes next."""

    KEPT = "kept"  # inside an answer or a train of thought
    PENDING = "pending"  # where an answer may begin: kept if it does, dropped before a marker
    DROPPED = "dropped"  # directly after a think marker, where models write newlines


class OutputParser:
    """Owns the parse of one completion: its state, its pending text and the count of its tool calls.

    A `Parser`. Time is linear apart from what `parse_tool_call` takes. Nothing but markers, the whitespace around
    them and what stands between the arguments of a call and its end marker is dropped: a tool call that cannot be read
    comes out as the text it was. Where calls are JSON (`ToolCallStyle.HERMES`), an end marker inside one of its
    strings ends nothing.

    A call to a tool that was not offered is a call: the client knows its tools and answers the model with an
    error, as it would with vLLM. Ids a model writes are not used, for they repeat between turns.

    Args:
        tools: offered to the model; with none, tool markers are plain text.
        new_call_id: draws the id of a tool call.
        has_plain_answer: the answer is JSON or calls: once it has begun with text, nothing in it is a marker.
    """

    def __init__(
        self,
        format: OutputFormat,  # noqa: A002 - the contract's name; the builtin is not needed here
        tools: tuple[Tool, ...],
        new_call_id: Callable[[], str] = new_call_id,
        *,
        has_plain_answer: bool = False,
    ) -> None:
        self._has_plain_answer = has_plain_answer
        self._parse_tool_call = format.parse_tool_call if format.tool_start and tools else None
        self._tools = [_function_schema(tool) for tool in tools]
        self._style = format.tool_call_style
        self._edges = _edges(format, has_tools=self._parse_tool_call is not None)
        self._markers = {state: marker_set(tuple(edges)) for state, edges in self._edges.items()}
        starts_in_reasoning = format.starts_in_reasoning and bool(format.think_end)
        self._state = _State.REASONING if starts_in_reasoning else _State.NORMAL
        self._space = _Space.DROPPED if starts_in_reasoning else _Space.PENDING
        if format.continues_text:
            self._space = _Space.KEPT
        self._tail = ""  # may still become a marker
        self._gap: list[str] = []  # whitespace that waits for what follows it
        self._events: list[Delta] = []
        self._counter = CallCounter(new_call_id)
        self._call = self._open_call("")
        self._list = BareCalls(FORCED, frozenset(tool.name for tool in tools), self._counter)

    @property
    def num_tool_calls(self) -> int:
        return self._counter.num_calls

    @property
    def is_reasoning(self) -> bool:
        return self._state is _State.REASONING

    def feed(self, text: str) -> list[Delta]:
        if self._flows and not self._tail and text and not self._markers[self._state].may_begin_in(text):
            return [ReasoningDelta(text) if self.is_reasoning else TextDelta(text)]
        text = self._tail + text
        position = 0
        while True:
            start, end = self._markers[self._state].find(text, position)
            position = self._take(text[position:start], position)
            if position < start:  # a call has ended without a marker
                continue
            if start == end:
                break
            self._cross(text[start:end])
            position = end
        self._tail = text[start:]
        return self._drain()

    @property
    def _flows(self) -> bool:
        """Whether text without markers goes out as it is: in the middle of an answer, or of a train of thought."""
        is_text = self._state in (_State.REASONING, _State.PLAIN)
        is_text = is_text or (self._state is _State.NORMAL and not self._has_plain_answer)
        return is_text and self._space is _Space.KEPT

    def finish(self, *, is_cut_off: bool = False) -> list[Delta]:
        """End the output and return its last events.

        A call whose start has not been emitted is read only if the format has no end marker. Otherwise it was cut off,
        and an incomplete call must not look like a complete one.
        """
        tail, self._tail = self._tail, ""
        if self._state is _State.TOOL and self._call.has_begun:
            is_text = self._call.is_in_string
        else:
            # Text that was held back before the answer turned out to be plain, where nothing is a marker, is text.
            is_text = self._state is _State.PLAIN or not is_broken_marker(tail, is_cut_off=is_cut_off)
        if is_text:
            self._take(tail, 0)
        self._end(is_cut_off=is_cut_off)
        if self.num_tool_calls == 0:
            self._emit_text("")  # the answer is only whitespace
        self._gap.clear()
        return self._drain()

    def _end(self, *, is_cut_off: bool) -> None:
        state, self._state = self._state, _State.NORMAL
        if state is _State.LISTED:
            self._events += self._list.finish(is_cut_off=is_cut_off)
        elif state is _State.OPENED and not is_cut_off:
            self._emit_text(self._call.raw)
        elif state is _State.TOOL and not self._call.has_begun:
            if not self._edges[_State.TOOL]:
                self._close_call("", is_cut_off=is_cut_off)
            elif not is_cut_off:
                self._emit_text(self._call.raw)
            if is_cut_off:
                self._gap.clear()

    def _drain(self) -> list[Delta]:
        events = list(self._events)
        self._events.clear()  # in place: the open call appends to this list
        return events

    def _open_call(self, marker: str) -> OpenCall:
        has_end = bool(self._edges[_State.TOOL])
        return OpenCall(marker, self._style, self._counter, self._events, has_end=has_end)

    def _take(self, text: str, begin: int) -> int:
        """Takes text without markers from `begin` on, and returns where it stopped."""
        if not text:
            return begin
        if self._state is _State.OPENED and self._opens_list(text):
            self._events += self._list.feed(text.lstrip())  # the space before it may have come in an earlier piece
        elif self._state in (_State.OPENED, _State.TOOL):
            return begin + self._take_call(text)
        elif self._state is _State.LISTED:
            self._events += self._list.feed(text)
        else:
            self._take_text(text)
        return begin + len(text)

    def _opens_list(self, text: str) -> bool:
        """Decide by the first character whether the tool marker has opened a list, or one call."""
        first = _NO_SPACE.search(text)
        if first is not None and first[0] in "[{":
            self._state = _State.LISTED
            self._gap.clear()
            return True
        if first is not None:
            self._state = _State.TOOL
        return False

    def _take_call(self, text: str) -> int:
        length = self._call.take(text)
        if self._call.has_begun:
            self._gap.clear()
        if self._call.is_over:
            self._state, self._space = _State.NORMAL, _Space.PENDING
        return length

    def _take_text(self, text: str) -> None:
        if self._space is not _Space.KEPT:
            content = text.lstrip()
            if self._space is _Space.PENDING:
                self._gap.append(text[: len(text) - len(content)])
            text = content
        if not text:
            return
        if self._state is _State.REASONING:
            self._space = _Space.KEPT
            self._events.append(ReasoningDelta(text))
        else:
            self._emit_text(text)

    def _emit_text(self, text: str) -> None:
        text = "".join(self._gap) + text
        self._gap.clear()
        self._space = _Space.KEPT
        if text:
            self._events.append(TextDelta(text))
            if self._has_plain_answer:
                self._state = _State.PLAIN

    def _cross(self, marker: str) -> None:
        """Takes a marker of the current state, or of the state before the answer began."""
        if self._state is _State.PLAIN or (self._state is _State.TOOL and not self._ends_call(marker)):
            self._take(marker, 0)
            return
        source, self._state = self._state, self._edges[self._state][marker]
        if source is _State.TOOL:
            self._close_call(marker)
        if self._state in (_State.TOOL, _State.OPENED):
            self._call = self._open_call(marker)
        elif source is not _State.TOOL:
            self._gap.clear()
            self._space = _Space.DROPPED

    def _ends_call(self, marker: str) -> bool:
        """Whether the marker ends the open call: an end marker does, others if the call's arguments are complete."""
        is_end = self._edges[_State.TOOL][marker] is _State.NORMAL
        return not self._call.is_in_string and (is_end or self._call.is_whole)

    def _close_call(self, end: str, *, is_cut_off: bool = False) -> None:
        if self._call.has_begun:
            self._space = _Space.PENDING
            return
        try:
            calls = self._parse(self._call.body)
        except Exception:  # mlx-lm's parsers fail on odd text in any way: AttributeError, SyntaxError, ...
            logger.debug("A tool call could not be parsed and goes out as text.", exc_info=True)
            if not is_cut_off:
                self._emit_text(self._call.raw + end)
            return
        self._gap.clear()
        self._space = _Space.PENDING
        for name, arguments in calls:
            self._events += self._counter.whole(name, arguments)

    def _parse(self, text: str) -> list[tuple[str, str]]:
        """The calls in `text` as (name, arguments). Raises if they cannot be read."""
        if self._parse_tool_call is None:
            raise ValueError("no tool call parser")
        parsed = self._parse_tool_call(text, self._tools)
        calls = parsed if isinstance(parsed, list) else [parsed]
        if not calls:
            raise ValueError("no tool call in the text")
        # A bare name is a call without arguments; arguments under another key must not get lost.
        return [(call_name(call["name"]), call_arguments(call["arguments"] if len(call) > 1 else {})) for call in calls]


def _edges(output: OutputFormat, *, has_tools: bool) -> dict[_State, dict[str, _State]]:
    """The transition table: which marker leads where. A marker that is not in a state's row is text there."""
    edges: dict[_State, dict[str, _State]] = {state: {} for state in _State}
    if output.think_end:
        edges[_State.REASONING][output.think_end] = _State.NORMAL
        if output.think_start:
            edges[_State.NORMAL][output.think_start] = _State.REASONING
    if has_tools and output.tool_start:
        is_marked = output.tool_call_style is ToolCallStyle.MARKED
        edges[_State.NORMAL][output.tool_start] = _State.TOOL if output.tool_end or is_marked else _State.OPENED
        if output.tool_end:
            edges[_State.TOOL][output.tool_end] = _State.NORMAL
            if not is_marked:
                edges[_State.TOOL].setdefault(output.tool_start, _State.TOOL)
    return edges


def _function_schema(tool: Tool) -> JSONObject:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}
