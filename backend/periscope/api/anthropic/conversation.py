"""`system` and `messages`, wire to core. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from periscope.api.content_parts import decode_content, decode_reasoning
from periscope.api.tool_blocks import decode_tool_uses, results_apart
from periscope.api.wording import kind_of
from periscope.core import Message, Part, Role, TextPart
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.anthropic.schema import MessageWire

#: The tags in which Claude Code writes what the user has not said.
_REMINDER_START, _REMINDER_END = TextPart("<system-reminder>"), TextPart("</system-reminder>")


def decode_conversation(system: Any, wires: Sequence[MessageWire]) -> list[Message]:
    """The messages in order, the system prompt first.

    A `system` message within the conversation becomes text of the user's turn. Many chat templates take system messages
    only at the front, and there it would change the prefix of the prompt, so that nothing in the prompt cache would
    match.

    Raises:
        InvalidRequest: names the field, what was expected and what came.
    """
    messages = [Message(Role.SYSTEM, decode_content(system, "system"))] if system else []
    called: set[str] = set()
    for i, wire in enumerate(wires):
        path = f"messages[{i}].content"
        match wire.role:
            case "system":
                _add_instructions(messages, decode_content(wire.content, path) if wire.content else ())
            case "assistant":
                message = _assistant(wire, path)
                called |= {call.id for call in message.tool_calls if call.id}
                messages.append(message)
            case "user":
                user = Message(Role.USER, decode_content(wire.content, path))
                messages += results_apart(user, wire.content, path, called)
            case other:
                param = f"messages[{i}].role"
                raise InvalidRequest(f"`{param}` must be user, assistant or system, got {kind_of(other)}.", param=param)
    return messages


def _assistant(wire: MessageWire, path: str) -> Message:
    return Message(
        Role.ASSISTANT,
        decode_content(wire.content, path, is_assistant=True),
        tool_calls=decode_tool_uses(wire.content, path),
        reasoning=decode_reasoning(wire.content, path) or None,
    )


def _add_instructions(messages: list[Message], parts: tuple[Part, ...]) -> None:
    """Add a `system` message. Claude Code also sends some without content, which only set the effort."""
    if not parts:
        return
    if all(message.role is Role.SYSTEM for message in messages):
        messages.append(Message(Role.SYSTEM, parts))
        return
    parts = (_REMINDER_START, *parts, _REMINDER_END)
    if messages[-1].role is Role.USER:
        messages[-1] = replace(messages[-1], parts=(*messages[-1].parts, *parts))
    else:
        messages.append(Message(Role.USER, parts))
