"""Splits one completion's raw text into answer, reasoning and tool calls while it is being generated.

Pure apart from the ids it draws: no clock, no I/O. Knows nothing of MLX; how a model writes its tool calls
comes in as data (`OutputFormat`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import TypeAlias

from periscope.core import (
    JSONObject,
    OutputFormat,
    ReasoningDelta,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    new_id,
)
from periscope.parsing.markers import MarkerSet

logger = logging.getLogger(__name__)

Delta: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta


class _State(StrEnum):
    NORMAL = "normal"
    REASONING = "reasoning"
    TOOL = "tool"


class _Space(StrEnum):
    """What happens to whitespace that comes next."""

    KEPT = "kept"  # inside an answer or a train of thought
    HELD = "held"  # where an answer may begin: kept if it does, dropped before a marker
    DROPPED = "dropped"  # directly after a think marker, where models write newlines


_new_call_id = partial(new_id, "call_")


class OutputParser:
    """Owns the parse of one completion: its state, the text that has to wait, the count of its tool calls.

    The events, neighbouring deltas of one kind joined, are the same for any cut of the text. Time is linear
    in the text, apart from what `parse_tool_call` takes. No delta is empty. Nothing but markers and the
    whitespace around them is ever dropped: a tool call that cannot be read comes out as the text it was.

    A call to a tool that was not offered is a call: the client knows its tools and answers the model with an
    error, as it would with vLLM. Ids a model writes are not used, for they repeat between turns.

    Args:
        tools: offered to the model; with none, tool markers are plain text.
        new_call_id: draws the id of a tool call.
    """

    def __init__(
        self,
        format: OutputFormat,  # noqa: A002 - the contract's name; the builtin is not needed here
        tools: tuple[Tool, ...],
        new_call_id: Callable[[], str] = _new_call_id,
    ) -> None:
        self._parse_tool_call = format.parse_tool_call if format.tool_start and tools else None
        self._tools = [_function_schema(tool) for tool in tools]
        self._new_call_id = new_call_id
        self._edges = _edges(format, has_tools=self._parse_tool_call is not None)
        self._markers = {state: MarkerSet(edges) for state, edges in self._edges.items()}
        starts_in_reasoning = format.starts_in_reasoning and bool(format.think_end)
        self._state = _State.REASONING if starts_in_reasoning else _State.NORMAL
        self._space = _Space.DROPPED if starts_in_reasoning else _Space.HELD
        self._tail = ""  # may still become a marker
        self._gap: list[str] = []  # held whitespace
        self._call: list[str] = []  # the open tool call's text, its start marker first
        self._events: list[Delta] = []
        self._num_tool_calls = 0

    @property
    def num_tool_calls(self) -> int:
        """Tool calls emitted so far."""
        return self._num_tool_calls

    def feed(self, text: str) -> list[Delta]:
        """Takes the next piece of output; returns what is certain by now."""
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
        """Takes the end of the output; returns all that was waiting. Idempotent; nothing may be fed after it.

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
        if self._num_tool_calls == 0:
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

    def _cross(self, marker: str) -> None:
        """Takes a marker of the current state."""
        source, self._state = self._state, self._edges[self._state][marker]
        if self._state is _State.TOOL:
            self._call.append(marker)
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
            call = ToolCall(self._new_call_id(), name, arguments)
            self._events.append(ToolCallDelta(self._num_tool_calls, call))
            self._num_tool_calls += 1

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
        return [(_name(call["name"]), _arguments(call["arguments"] if len(call) > 1 else {})) for call in calls]


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


def _name(name: object) -> str:
    # Unprintable covers lone surrogates, which JSON escapes can make and UTF-8 cannot carry.
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError("a tool call without a usable name")
    return name


def _arguments(arguments: object) -> str:
    """Compact JSON text of an object; a string that already is one stays as the model wrote it."""
    if arguments in (None, ""):
        return "{}"
    decoded = json.loads(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(decoded, dict):
        raise TypeError("tool call arguments are not an object")
    compact = json.dumps(decoded, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = arguments if isinstance(arguments, str) else compact
    # UTF-8 cannot carry a lone surrogate: it becomes its JSON escape again (written as Python writes it).
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
