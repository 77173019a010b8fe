"""Pairs tool results with their calls, even if clients left ids out or used one twice. Pure."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace

from periscope.core import Message, Role, ToolCall
from periscope.errors import InvalidRequest


def pair_calls(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The same messages, in which every call has a unique id and every tool result names the call that it answers.

    A result without an id answers the first open call of its `name`, else the first open call. Unique ids stay as they
    are, and a message's ids do not depend on later messages, so that the prompt of a growing conversation keeps its
    prefix. Takes linear time.

    Raises:
        InvalidRequest: a tool result without an id follows no call that it could answer.
    """
    paired: list[Message] = []
    calls = _OpenCalls()
    for i, message in enumerate(messages):
        if message.role is Role.ASSISTANT:
            if not paired or paired[-1].role is not Role.ASSISTANT:
                calls = _OpenCalls()  # a new turn: open calls of the last one stay unanswered
            named = tuple(calls.opened(call, f"call_{i}_{j}") for j, call in enumerate(message.tool_calls))
            paired.append(replace(message, tool_calls=named))
        elif message.role is Role.TOOL:
            paired.append(replace(message, tool_call_id=_answered_id(message, f"messages[{i}]", calls)))
        else:
            paired.append(message)
    return tuple(paired)


def _answered_id(result: Message, path: str, calls: _OpenCalls) -> str:
    if result.tool_call_id:
        # The call may have been cut off with the beginning of the history.
        return calls.closed_by_id(result.tool_call_id) or result.tool_call_id
    if call_id := calls.closed_by_name(result.name or "") or calls.closed_first():
        return call_id
    raise InvalidRequest(
        f"`{path}.tool_call_id` is missing, and no call stands before this tool message that it could answer. "
        "Send the `id` of the call.",
        param=f"{path}.tool_call_id",
    )


class _OpenCalls:
    """Owns the calls of one turn that have no result yet. Its queues may hold ids of calls that are closed by now."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._in_order: deque[str] = deque()
        self._by_sent_id: defaultdict[str, deque[str]] = defaultdict(deque)
        self._by_name: defaultdict[str, deque[str]] = defaultdict(deque)

    def opened(self, call: ToolCall, spare_id: str) -> ToolCall:
        """Add the call under its own id, or under `spare_id` if it has none or an open call has the same one."""
        call_id = call.id
        while not call_id or call_id in self._ids:
            call_id, spare_id = spare_id, f"{spare_id}_"
        self._ids.add(call_id)
        for queue in (self._in_order, self._by_sent_id[call.id], self._by_name[call.name]):
            queue.append(call_id)
        return replace(call, id=call_id)

    def closed_by_id(self, sent_id: str) -> str | None:
        """Close the first open call that was sent with this id, and return its id now."""
        return self._close(self._by_sent_id.get(sent_id))

    def closed_by_name(self, name: str) -> str | None:
        """Close the first open call of this tool."""
        return self._close(self._by_name.get(name))

    def closed_first(self) -> str | None:
        """Close the first open call."""
        return self._close(self._in_order)

    def _close(self, queue: deque[str] | None) -> str | None:
        while queue:
            call_id = queue.popleft()
            if call_id in self._ids:
                self._ids.remove(call_id)
                return call_id
        return None
