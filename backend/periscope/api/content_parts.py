"""Decodes a message's content, in all shapes that clients send, into core parts. Pure; no image is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from periscope.api.content import image_block, image_url_part, string_at, wrong_type
from periscope.api.documents import document_block, file_part, video_part
from periscope.api.hosted_blocks import (
    RESULT_KINDS,
    compaction,
    container_upload,
    hosted_call,
    hosted_result,
    search_result,
    tool_reference,
)
from periscope.api.wording import kind_of
from periscope.core import JSONObject, Part, TextPart
from periscope.errors import InvalidRequest

_Decode: TypeAlias = Callable[[JSONObject, str], tuple[Part, ...]]

#: Types of parts that hold reasoning, and the keys that may hold their text.
_REASONING_KINDS = (
    *("thinking", "redacted_thinking", "reasoning", "reasoning_text", "reasoning_content"),
    *("reasoning.text", "reasoning.summary", "reasoning.encrypted"),
)
_REASONING_KEYS = ("thinking", "reasoning", "reasoning_text", "reasoning_content", "text", "content", "summary")


def decode_content(content: Any, path: str, *, is_assistant: bool = False, first_index: int = 0) -> tuple[Part, ...]:
    """The parts of a string or a list of parts.

    An assistant's parts with reasoning or calls are skipped: `decode_reasoning` and `decode_tool_uses` read them.

    Args:
        path: its place in the request (`messages[0].content`).
        first_index: index of the first part, if the list is a piece of the content.

    Raises:
        InvalidRequest: names the part and what is wrong with it.
    """
    return _decode_content(content, path, _ASSISTANT_PARTS if is_assistant else _PARTS, first_index)


def decode_reasoning(content: Any, path: str) -> str:
    """The text of the reasoning parts of an assistant message, "" if it has none.

    Servers have shapes of their own: Anthropic's `thinking`, Mistral's with a list of texts, the AI SDK's and
    OpenRouter's `reasoning` with a `text` or a `summary`. Redacted and encrypted reasoning is skipped.

    Raises:
        InvalidRequest: a reasoning part holds something other than text.
    """
    parts = enumerate(content if isinstance(content, list) else ())
    told = (_words(part, f"{path}[{j}]") for j, part in parts if _is_reasoning(part))
    return "\n".join(filter(None, told))


def _is_reasoning(part: Any) -> bool:
    kind = part.get("type") if isinstance(part, dict) else None
    return isinstance(kind, str) and kind in _REASONING_KINDS


def _words(value: Any, path: str) -> str:
    """All text in a reasoning part, at any depth."""
    if isinstance(value, dict):
        key = next((key for key in _REASONING_KEYS if value.get(key)), None)
        return "" if key is None else _words(value[key], f"{path}.{key}")
    if isinstance(value, list):
        return "\n".join(filter(None, (_words(each, f"{path}[{j}]") for j, each in enumerate(value))))
    return string_at(path, value)


def _passed_over(_part: JSONObject, _path: str) -> tuple[Part, ...]:
    """Whether the part is reasoning or a call, which other functions read."""
    return ()


def _decode_content(content: Any, path: str, known: Mapping[str, _Decode], first_index: int = 0) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (TextPart(content),)
    if not isinstance(content, list):
        raise wrong_type(path, "a string or a list of content parts", content)
    numbered = enumerate(content, first_index)
    return tuple(part for j, item in numbered for part in _decode_part(item, f"{path}[{j}]", known))


def _decode_part(part: Any, path: str, known: Mapping[str, _Decode]) -> tuple[Part, ...]:
    if not isinstance(part, dict):
        raise wrong_type(path, "a content part (an object)", part)
    kind = part.get("type")
    decode = known.get(kind) if isinstance(kind, str) else None
    if decode is None:
        raise InvalidRequest(
            f"`{path}.type` is {kind_of(kind)}, which is not supported. Supported are: {', '.join(known)}.",
            param=path,
        )
    return decode(part, path)


def _text(part: JSONObject, path: str) -> tuple[Part, ...]:
    return (TextPart(string_at(f"{path}.text", part.get("text"))),)


def _refusal(part: JSONObject, path: str) -> tuple[Part, ...]:
    return (TextPart(string_at(f"{path}.refusal", part.get("refusal"))),)


def _image_url(part: JSONObject, path: str) -> tuple[Part, ...]:
    return (image_url_part(part, path),)


def _image(part: JSONObject, path: str) -> tuple[Part, ...]:
    return (image_block(part, path),)


def _file(part: JSONObject, path: str) -> tuple[Part, ...]:
    return (file_part(part, path),)


def _video(part: JSONObject, path: str) -> tuple[Part, ...]:
    return (video_part(part, path),)


def _document(part: JSONObject, path: str) -> tuple[Part, ...]:
    return document_block(part, path, lambda content, at: _decode_content(content, at, _IN_DOCUMENTS))


def _tool_result(part: JSONObject, path: str) -> tuple[Part, ...]:
    """The content of Anthropic's `tool_result` block. A nested one is refused like any unknown part."""
    content = part.get("content")
    told = () if content is None else _decode_content(content, f"{path}.content", _PLAIN_PARTS)
    return (_FAILED, *told) if part.get("is_error") is True else told


#: Before the content of a result with `is_error`: chat templates have no place for the flag.
_FAILED = TextPart("The tool call failed.")
_IN_DOCUMENTS: Mapping[str, _Decode] = {"text": _text, "image": _image}
_PLAIN_PARTS: Mapping[str, _Decode] = {
    "text": _text,
    "image_url": _image_url,
    "input_text": _text,
    "input_image": _image_url,
    "image": _image,
    "file": _file,
    "input_file": _file,
    "document": _document,
    "video_url": _video,
    "input_video": _video,
    "video": _video,
    "output_text": _text,
    "refusal": _refusal,
    "search_result": search_result,
    "tool_reference": tool_reference,
    "container_upload": container_upload,
}
_PARTS: Mapping[str, _Decode] = {**_PLAIN_PARTS, "tool_result": _tool_result}
_ASSISTANT_PARTS: Mapping[str, _Decode] = {
    **_PARTS,
    **dict.fromkeys((*_REASONING_KINDS, "tool_use"), _passed_over),
    **dict.fromkeys(("server_tool_use", "mcp_tool_use"), hosted_call),
    **dict.fromkeys(RESULT_KINDS, hosted_result),
    "compaction": compaction,
}
