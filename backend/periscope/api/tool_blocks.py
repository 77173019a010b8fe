"""Calls and results as Anthropic's clients write them: as parts of the content, beside reasoning. Pure.

A chat that began with Anthropic's API continues with such a history; some editors always write it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

from periscope.api.content import wrong_type
from periscope.api.content_parts import decode_content
from periscope.core import JSONObject, Message, Role, ToolCall


def decode_tool_uses(content: Any, path: str) -> tuple[ToolCall, ...]:
    """The calls among the parts of an assistant's content.

    Raises:
        InvalidRequest: names the field of a `tool_use` part that is of the wrong type.
    """
    return tuple(_call(part, f"{path}[{j}]") for j, part in _parts_of_type(content, "tool_use"))


def results_apart(message: Message, content: Any, path: str, called: Collection[str]) -> Iterator[Message]:
    """A user's message whose tool results become tool messages of their own, before the rest of it.

    Args:
        message: the whole message, including results.
        content: the content that it was decoded from, at `path`.
        called: ids of calls in `tool_use` parts.
    """
    results = {j: part for j, part in _parts_of_type(content, "tool_result") if _id_of(part) in called}
    if message.role is not Role.USER or not results:
        yield message
        return
    for j, part in results.items():
        parts = decode_content([part], path, first_index=j)
        yield Message(Role.TOOL, parts, tool_call_id=_id_of(part))
    rest = [decode_content([part], path, first_index=j) for j, part in enumerate(content) if j not in results]
    if rest:
        yield replace(message, parts=tuple(itertools.chain.from_iterable(rest)))


def _call(part: JSONObject, path: str) -> ToolCall:
    name, arguments = part.get("name") or "", part.get("input")
    if not isinstance(name, str):
        raise wrong_type(f"{path}.name", "a string", name)
    if not isinstance(arguments, (dict, str, type(None))):
        raise wrong_type(f"{path}.input", "an object", arguments)
    text = json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments or "{}"
    return ToolCall(_id_of(part), name, text)


def _id_of(part: JSONObject) -> str:
    call_id = part.get("tool_use_id", part.get("id"))
    return call_id if isinstance(call_id, str) else ""


def _parts_of_type(content: Any, kind: str) -> Iterator[tuple[int, JSONObject]]:
    for j, part in enumerate(content if isinstance(content, list) else ()):
        if isinstance(part, dict) and part.get("type") == kind:
            yield j, part
