"""Splits one completion's raw text into answer, reasoning and tool calls while it is being generated.

Pure apart from the ids it draws: no clock, no I/O. Knows nothing of MLX; how a model writes its tool calls
comes in as data (`OutputFormat`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum

from periscope.core import JSONObject, OutputFormat, ReasoningDelta, TextDelta, Tool, ToolCallStyle
from periscope.parsing.contracts import CallCounter, Delta, call_arguments, call_name, new_call_id
from periscope.parsing.json_scan import JSONScanner
from periscope.parsing.markers import MarkerSet

logger = logging.getLogger(__name__)


class _State(StrEnum):
    NORMAL = "normal"
    REASONING = "reasoning"
    TOOL = "tool"
    PLAIN = "plain"  # an answer without markers, to its end


class _Space(StrEnum):
    """What happens to whitespace that comes next."""

    KEPT = "kept"  # inside an answer or a train of thought
    HELD = "held"  # where an answer may begin: kept if it does, dropped before a marker
    DROPPED = "dropped"  # directly after a think marker, where models write newlines


class OutputParser:
    """Owns the parse of one completion: its state, the text that has to wait, the count of its tool calls.

    A `Parser`. Time is linear apart from what `parse_tool_call` takes. Nothing but markers and the whitespace
    around them is ever dropped: a tool call that cannot be read comes out as the text it was. Where calls are JSON
    (`ToolCallStyle.HERMES`), an end marker inside one of its strings ends nothing.

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
        self._is_json = format.tool_call_style is ToolCallStyle.HERMES
        self._edges = _edges(format, has_tools=self._parse_tool_call is not None)
        self._markers = {state: MarkerSet(edges) for state, edges in self._edges.items()}
        starts_in_reasoning = format.starts_in_reasoning and bool(format.think_end)
        self._state = _State.REASONING if starts_in_reasoning else _State.NORMAL
        self._space = _Space.DROPPED if starts_in_reasoning else _Space.HELD
        self._tail = ""  # may still become a marker
        self._gap: list[str] = []  # held whitespace
        self._call: list[str] = []  # the open tool call's text, its start marker first
        self._scanner = JSONScanner()  # of the open tool call
        self._events: list[Delta] = []
        self._counter = CallCounter(new_call_id)

    @property
    def num_tool_calls(self) -> int:
        return self._counter.num_calls

    def feed(self, text: str) -> list[Delta]:
        text = self._tail + text
        position = 0
        while True:
            start, end = self._markers[self._state].find(text, position)
            self._take(text[position:start])
            if start == end:
                break
            self._cross(text[start:end])
            position = end
        self._tail = text[start:]
        return self._drain()

    def finish(self) -> list[Delta]:
        """Takes the end of the output.

        A call still open is read only if the format has no end marker; else it was cut off, and half a call
        must not look like a whole one.
        """
        self._take(self._tail)
        self._tail = ""
        if self._state is _State.TOOL:
            if self._edges[_State.TOOL]:
                self._give_up_call()
            else:
                self._close_call("")
            self._state = _State.NORMAL
        if self.num_tool_calls == 0:
            self._emit_text("")  # an answer of nothing but whitespace
        self._gap.clear()
        return self._drain()

    def _drain(self) -> list[Delta]:
        events, self._events = self._events, []
        return events

    def _take(self, text: str) -> None:
        """Takes text that holds no marker."""
        if not text:
            return
        if self._state is _State.TOOL:
            self._call.append(text)
            if self._is_json:
                self._scanner.feed_all(text)
            return
        if self._space is not _Space.KEPT:
            content = text.lstrip()
            if self._space is _Space.HELD:
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
        """Takes a marker of the current state, or of the one before the answer began."""
        is_in_string = self._state is _State.TOOL and self._is_json and self._scanner.is_in_string
        if is_in_string or self._state is _State.PLAIN:
            self._take(marker)
            return
        source, self._state = self._state, self._edges[self._state][marker]
        if self._state is _State.TOOL:
            self._call.append(marker)
            self._scanner = JSONScanner()
        elif source is _State.TOOL:
            self._close_call(marker)
        else:
            self._gap.clear()
            self._space = _Space.DROPPED

    def _close_call(self, end: str) -> None:
        start, *body = self._call
        try:
            calls = self._parse("".join(body))
        except Exception:  # mlx-lm's parsers fail on odd text in any way: AttributeError, SyntaxError, ...
            logger.debug("A tool call could not be parsed and goes out as text.", exc_info=True)
            self._call = [start, *body, end]
            self._give_up_call()
            return
        self._call.clear()
        self._gap.clear()
        self._space = _Space.HELD
        for name, arguments in calls:
            self._events.append(self._counter.next(name, arguments))

    def _give_up_call(self) -> None:
        raw = "".join(self._call)
        self._call.clear()
        self._emit_text(raw)

    def _parse(self, text: str) -> list[tuple[str, str]]:
        """The calls in `text` as (name, arguments); raises whatever is wrong with it."""
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
        edges[_State.NORMAL][output.tool_start] = _State.TOOL
        if output.tool_end:
            edges[_State.TOOL][output.tool_end] = _State.NORMAL
    return edges


def _function_schema(tool: Tool) -> JSONObject:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}
