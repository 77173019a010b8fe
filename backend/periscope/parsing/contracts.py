"""The protocol of output parsers, and the counter of tool calls that they share. Pure apart from the ids drawn."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeAlias

from periscope.core import ReasoningDelta, TextDelta, ToolCallDelta, ToolCallStart, new_id

Delta: TypeAlias = TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta

new_call_id: Callable[[], str] = partial(new_id, "call_")


class Parser(Protocol):
    """Splits one completion's text, as it comes, into answer, reasoning and tool calls.

    The events, neighbouring deltas of one kind joined, are the same for any cut of the text. Time is linear in
    the text. No delta is empty.

    Where calls are JSON, a call begins as soon as its name is known and its arguments begin, and these follow as the
    model writes them. It then remains a call: if its text ends early or is not JSON, its arguments are that text.
    A call in another syntax is emitted whole. What cannot be read as a call is text.
    """

    @property
    def num_tool_calls(self) -> int:
        """Number of tool calls that have been emitted so far, at least in part."""
        ...

    @property
    def is_reasoning(self) -> bool:
        """Whether what comes next is reasoning, unless it is a marker."""
        ...

    def feed(self, text: str) -> list[Delta]:
        """Takes the next piece of output and returns the events that are certain."""
        ...

    def finish(self, *, is_cut_off: bool = False) -> list[Delta]:
        """Ends the output and returns the events of all text that was pending. Idempotent; nothing may be fed after it.

        Args:
            is_cut_off: the completion reached its token limit. Then an incomplete call or marker is dropped, as far as
                it has not been emitted, because it is not part of the answer.
        """
        ...


def is_broken_marker(tail: str, *, is_cut_off: bool) -> bool:
    """Pure: whether text that may still become a marker is to be dropped at the end of a completion.

    A single character is more likely to be text.
    """
    return is_cut_off and len(tail) > 1


class CallCounter:
    """Owns the numbers and ids of one completion's tool calls."""

    def __init__(self, draw_id: Callable[[], str]) -> None:
        self._draw_id = draw_id
        self.num_calls = 0

    def start(self, name: str) -> ToolCallStart:
        """The event that begins a call."""
        self.num_calls += 1
        return ToolCallStart(self.num_calls - 1, self._draw_id(), name)

    def arguments(self, text: str) -> ToolCallDelta:
        """The event of further arguments of the newest call."""
        return ToolCallDelta(self.num_calls - 1, text)

    def whole(self, name: str, arguments: str) -> list[Delta]:
        """The events of a complete call."""
        return [self.start(name), self.arguments(arguments)]


def call_name(name: object) -> str:
    """Pure: the name, if it is usable.

    Raises:
        ValueError: the name is not usable.
    """
    # Unprintable covers lone surrogates, which JSON escapes can make and UTF-8 cannot carry.
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError("a tool call without a usable name")
    return name


def call_arguments(arguments: object) -> str:
    """Pure: compact JSON text of an object; a string that already is one stays as the model wrote it.

    A number beyond the range of floats becomes the largest float.

    Raises:
        ValueError, TypeError, RecursionError: it is not an object.
    """
    if arguments in (None, ""):
        return "{}"
    decoded = json.loads(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(decoded, dict):
        raise TypeError("tool call arguments are not an object")
    compact = json.dumps(_finite(decoded), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = arguments if isinstance(arguments, str) else compact
    # UTF-8 cannot carry a lone surrogate: it becomes its JSON escape again (written as Python writes it).
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and math.isinf(value):
        return math.copysign(sys.float_info.max, value)
    return value
