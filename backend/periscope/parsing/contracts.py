"""What every output parser offers, and the count of tool calls they share. Pure apart from the ids drawn."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeAlias

from periscope.core import ReasoningDelta, TextDelta, ToolCall, ToolCallDelta, new_id

Delta: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta

new_call_id: Callable[[], str] = partial(new_id, "call_")


class Parser(Protocol):
    """Splits one completion's text, as it comes, into answer, reasoning and tool calls.

    The events, neighbouring deltas of one kind joined, are the same for any cut of the text. Time is linear in
    the text. No delta is empty. A tool call is emitted whole or not at all: what cannot be read is text.
    """

    @property
    def num_tool_calls(self) -> int:
        """Tool calls emitted so far."""
        ...

    def feed(self, text: str) -> list[Delta]:
        """Takes the next piece of output; returns what is certain by now."""
        ...

    def finish(self) -> list[Delta]:
        """Takes the end of the output; returns all that was waiting. Idempotent; nothing may be fed after it."""
        ...


class CallCounter:
    """Owns the numbers and ids of one completion's tool calls."""

    def __init__(self, draw_id: Callable[[], str]) -> None:
        self._draw_id = draw_id
        self.num_calls = 0

    def next(self, name: str, arguments: str) -> ToolCallDelta:
        """The event of one more call."""
        delta = ToolCallDelta(self.num_calls, ToolCall(self._draw_id(), name, arguments))
        self.num_calls += 1
        return delta


def call_name(name: object) -> str:
    """Pure: the name, known to be usable.

    Raises:
        ValueError: it is not.
    """
    # Unprintable covers lone surrogates, which JSON escapes can make and UTF-8 cannot carry.
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError("a tool call without a usable name")
    return name


def call_arguments(arguments: object) -> str:
    """Pure: compact JSON text of an object; a string that already is one stays as the model wrote it.

    JSON knows numbers that floats do not: beyond them it is the largest float.

    Raises:
        ValueError, TypeError, RecursionError: it is no object.
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
