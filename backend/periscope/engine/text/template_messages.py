"""Messages and tools in the shape that chat templates read (Hugging Face's). Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from periscope.core import JSONObject, Role, TextPart
from periscope.engine.text.images import broken_up
from periscope.engine.text.message_rewrites import REASONING_KEYS

if TYPE_CHECKING:
    from periscope.core import Message, Tool

#: Nesting depth of a call's arguments. Templates serialise them recursively.
_MAX_ARGUMENTS_DEPTH = 128
#: One half of a surrogate pair, which is not a character.
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def template_message(
    message: Message,
    control_tokens: re.Pattern[str] | None = None,
    reasoning_keys: Sequence[str] = REASONING_KEYS[:1],
) -> JSONObject:
    """A message as chat templates expect it (the Hugging Face shape, string content, arguments as objects). Pure.

    Args:
        control_tokens: broken up by a space wherever they occur in data parts, so that a picture that shows
            `<|im_end|>` cannot end the turn that describes it.
        reasoning_keys: the keys under which the template looks for a message's reasoning.
    """
    out: JSONObject = {"role": str(message.role), "content": _content(message, control_tokens)}
    if message.name is not None:
        out["name"] = message.name
    if message.role is Role.TOOL:
        out["tool_call_id"] = message.tool_call_id
    if message.reasoning:
        out |= dict.fromkeys(reasoning_keys, message.reasoning)
    if message.tool_calls:
        out["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call.arguments)},
            }
            for call in message.tool_calls
        ]
    return out


def _content(message: Message, control_tokens: re.Pattern[str] | None) -> str:
    texts = [part for part in message.parts if isinstance(part, TextPart)]
    return "\n".join(told_text(part, control_tokens) for part in texts)


def told_text(part: TextPart, control_tokens: re.Pattern[str] | None) -> str:
    """A part's text; in somebody else's words the control tokens are broken up."""
    return part.text if control_tokens is None or not part.is_data else broken_up(control_tokens, part.text)


def _arguments(text: str) -> Any:
    """The JSON object in the text; the text itself if it is none, or is nested too deep for templates."""
    try:
        value = _whole_characters(json.loads(text or "{}"), _MAX_ARGUMENTS_DEPTH)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _whole_characters(value: Any, max_depth: int) -> Any:
    """Replace lone surrogates, which JSON escapes can produce and tokenizers reject, by U+FFFD.

    Raises:
        ValueError: the value is nested deeper than `max_depth`.
    """
    if isinstance(value, str):
        return _HALF_CHARACTER.sub("\ufffd", value)
    if not isinstance(value, (dict, list)):
        return value
    if not max_depth:
        raise ValueError("nested too deep")
    if isinstance(value, list):
        return [_whole_characters(item, max_depth - 1) for item in value]
    return {_HALF_CHARACTER.sub("\ufffd", key): _whole_characters(item, max_depth - 1) for key, item in value.items()}


def tool_schema(tool: Tool) -> JSONObject:
    """A tool as templates and mlx-lm's parsers expect it (the OpenAI shape). Pure."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}
