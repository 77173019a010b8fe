"""Bounds of the messages, parts, calls and tools in a request, checked before they are decoded. Pure.

Each of them costs the server far more than its bytes in the body, and again with every template that is tried. The
limits are far beyond what the longest context holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from typing import Final

MAX_MESSAGES: Final = 10_000
#: Content parts of all messages, including those in tool results.
MAX_PARTS: Final = 20_000
MAX_TOOL_CALLS: Final = 20_000
MAX_TOOLS: Final = 2_000
MAX_STOPS: Final = 1_000


def refuse_too_many(body: Any) -> None:
    """Check the lists in a parsed body of any shape.

    Raises:
        InvalidRequest: names the field, how many there are and the limit.
    """
    if not isinstance(body, dict):
        return
    messages = _list(body, "messages")
    _check(len(messages), MAX_MESSAGES, "messages", "messages")
    num_parts = len(_list(body, "system")) + sum(_num_parts(message) for message in messages)
    _check(num_parts, MAX_PARTS, "content parts", "messages")
    _check(sum(len(_list(message, "tool_calls")) for message in messages), MAX_TOOL_CALLS, "tool calls", "messages")
    tools = _list(body, "tools")
    _check(len(tools) + sum(len(_list(tool, "tools")) for tool in tools), MAX_TOOLS, "tools", "tools")
    for stops in ("stop", "stop_sequences"):
        _check(len(_list(body, stops)), MAX_STOPS, "stop strings", stops)


def refuse_too_many_items(items: Sequence[Any]) -> None:
    """Check the items of a whole conversation, those of earlier requests included.

    Raises:
        InvalidRequest: as `refuse_too_many`.
    """
    _check(len(items), MAX_MESSAGES, "items", "input")
    num_parts = sum(_num_parts(item) + len(_list(item, "output")) + len(_list(item, "summary")) for item in items)
    _check(num_parts, MAX_PARTS, "content parts", "input")
    _check(sum(len(_list(item, "tools")) for item in items), MAX_TOOLS, "tools", "input")


def _num_parts(message: Any) -> int:
    parts = _list(message, "content")
    return len(parts) + sum(len(_list(part, "content")) for part in parts)


def _list(holder: Any, key: str) -> list[Any]:
    value = holder.get(key) if isinstance(holder, dict) else None
    return value if isinstance(value, list) else []


def _check(number: int, limit: int, what: str, param: str) -> None:
    if number > limit:
        raise InvalidRequest(f"The request has {number} {what}; at most {limit} are taken. Send fewer.", param=param)
