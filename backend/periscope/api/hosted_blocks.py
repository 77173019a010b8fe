"""Blocks of a conversation that began at Anthropic's API: what its own tools were asked and answered. Pure.

The model reads them as text. Anthropic's encrypted results are left out: nobody else can read them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from periscope.api.content import string_at
from periscope.core import FilePart, JSONObject, Part, TextPart

#: Types of blocks that hold what a tool of Anthropic's answered.
RESULT_KINDS = (
    *("web_search_tool_result", "web_fetch_tool_result", "tool_search_tool_result", "mcp_tool_result"),
    *("code_execution_tool_result", "bash_code_execution_tool_result", "text_editor_code_execution_tool_result"),
)
#: The keys of such blocks, at any depth, whose text says something to a model.
_WORDS = ("title", "url", "text", "data", "stdout", "stderr", "tool_name", "error_code", "content", "source", "results")


def hosted_call(part: JSONObject, path: str) -> tuple[Part, ...]:
    """A call of a tool that Anthropic ran (`server_tool_use`, `mcp_tool_use`)."""
    name = string_at(f"{path}.name", part.get("name"))
    return (TextPart(f"[{name} was called with {json.dumps(part.get('input'), ensure_ascii=False)}]"),)


def hosted_result(part: JSONObject, _path: str) -> tuple[Part, ...]:
    """The answer to such a call: all of its text, a line for each piece."""
    lines = list(_texts(part.get("content")))
    return (TextPart("\n".join(lines)),) if lines else ()


def tool_reference(part: JSONObject, path: str) -> tuple[Part, ...]:
    """A tool that a search for tools has found. It is among the request's tools, from their first turn on."""
    return (TextPart(f"The tool {string_at(f'{path}.tool_name', part.get('tool_name'))} can be called."),)


def search_result(part: JSONObject, path: str) -> tuple[Part, ...]:
    """What the client has found: a source, its title, and text from it."""
    title, source = (string_at(f"{path}.{key}", part.get(key)) for key in ("title", "source"))
    return (TextPart("\n".join([f"{title} ({source})", *_texts(part.get("content"))])),)


def compaction(part: JSONObject, path: str) -> tuple[Part, ...]:
    """A summary of the conversation before it."""
    content = part.get("content")
    return () if content is None else (TextPart(string_at(f"{path}.content", content)),)


def container_upload(_part: JSONObject, path: str) -> tuple[Part, ...]:
    """A file for Anthropic's containers."""
    missing = f"`{path}.file_id` names a stored file, and this server stores none. Send the bytes in a `document`."
    return (FilePart(path, missing=missing),)


def _texts(value: Any) -> Iterator[str]:
    """All text under the keys that hold words; JSON is at most as deep as `MAX_JSON_DEPTH`."""
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        for key in _WORDS:
            yield from _texts(value.get(key))
