"""Which tool result answers which call, also where clients left the ids out or used one twice. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from periscope.core import Message, Role, ToolCall
from periscope.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class _OpenCall:
    """A call without a result so far. `sent_id` is the client's, which may be empty; `id` is unique in its turn."""

    sent_id: str
    id: str
    name: str


def pair_calls(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The same messages; every call has an id of its own, and every tool result names the call it answers.

    A result without an id answers the first open call of its `name`, else the first open call. Ids that are there and
    unique stay as they are, and a message's ids depend on nothing behind it, so that the prompt of a growing
    conversation keeps its beginning.

    Raises:
        InvalidRequest: a tool result without an id follows no call that it could answer.
    """
    paired: list[Message] = []
    open_calls: list[_OpenCall] = []
    for i, message in enumerate(messages):
        if message.role is Role.ASSISTANT:
            if not paired or paired[-1].role is not Role.ASSISTANT:
                open_calls = []  # a new turn: what was never answered in the last one stays so
            named = _with_ids(message.tool_calls, i, open_calls)
            paired.append(replace(message, tool_calls=named))
        elif message.role is Role.TOOL:
            paired.append(replace(message, tool_call_id=_answered_id(message, f"messages[{i}]", open_calls)))
        else:
            paired.append(message)
    return tuple(paired)


def _with_ids(calls: Sequence[ToolCall], message_index: int, open_calls: list[_OpenCall]) -> tuple[ToolCall, ...]:
    """Also opens the calls."""
    named = []
    for j, call in enumerate(calls):
        is_free = call.id and all(call.id != other.id for other in open_calls)
        call_id = call.id if is_free else f"call_{message_index}_{j}"
        open_calls.append(_OpenCall(call.id, call_id, call.name))
        named.append(replace(call, id=call_id))
    return tuple(named)


def _answered_id(result: Message, path: str, open_calls: list[_OpenCall]) -> str:
    """The id of the call that a result answers, which is then closed."""
    if result.tool_call_id:
        found = next((call for call in open_calls if call.sent_id == result.tool_call_id), None)
        if found is None:
            return result.tool_call_id  # its call may have been cut off from the history
    elif open_calls:
        found = next((call for call in open_calls if call.name == result.name), open_calls[0])
    else:
        raise InvalidRequest(
            f"`{path}.tool_call_id` is missing, and no call stands before this tool message that it could answer. "
            "Send the `id` of the call.",
            param=f"{path}.tool_call_id",
        )
    open_calls.remove(found)
    return found.id
