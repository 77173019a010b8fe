"""What an MCP tool gave becomes parts of a message. Pure; needs the MCP SDK."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from mcp import types

from periscope.core import CallOutcome, FilePart, ImagePart, Part, TextPart, ToolResult

#: Of one result, about 50,000 tokens. The rest is left out, and the model is told.
MAX_RESULT_CHARS: Final = 200_000
_MAX_IMAGES: Final = 16
#: Of all that one link holds.
MAX_LINKED_BYTES: Final = 16 * 1024 * 1024
_MAX_LINKED: Final = 4
_READ: Final = re.compile(r"image/|text/|application/(?:.*\+)?(?:json|xml|yaml)\b", re.IGNORECASE)
#: One piece of what a resource holds.
Held: TypeAlias = types.TextResourceContents | types.BlobResourceContents


def wanted_of(told: types.CallToolResult) -> tuple[str, ...]:
    """Pure: the addresses of linked texts and images that are worth reading from the server, as far as links tell."""
    links = (block for block in told.content if isinstance(block, types.ResourceLink))
    wanted = (link.uri for link in links if _READ.match(link.mime_type or "") and (link.size or 0) <= MAX_LINKED_BYTES)
    return tuple(dict.fromkeys(wanted))[:_MAX_LINKED]


def result_of(told: types.CallToolResult, tool: str, linked: Mapping[str, Sequence[Held]] | None = None) -> ToolResult:
    """The result as the model reads it: texts as they are, images as images, embedded resources by what they hold.

    Images and documents are not decoded here: they go the way of all that a client sends.

    Args:
        linked: what resources held that the result links to, by address; of others the model reads the link alone.
    """
    place = f"the result of {tool}"
    parts = [part for block in told.content for part in _parts_of(block, place, linked or {})]
    if not parts and told.structured_content is not None:
        parts = [_data(json.dumps(told.structured_content, ensure_ascii=False))]
    outcome = CallOutcome.TOOL_ERROR if told.is_error else CallOutcome.DONE
    return ToolResult(bounded(parts) or (_data("(no output)"),), outcome)


def bounded(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Pure: the parts within the bounds of one result, and a note of what was left out."""
    kept: list[Part] = []
    num_left, num_images = MAX_RESULT_CHARS, 0
    for part in parts:
        if isinstance(part, TextPart):
            if len(part.text) > num_left:
                kept.append(_data(part.text[:num_left]))
                kept.append(_data(f"(The result is longer than {MAX_RESULT_CHARS} characters: the rest is left out.)"))
                break
            num_left -= len(part.text)
        else:
            num_images += 1
            if num_images > _MAX_IMAGES:
                kept.append(_data(f"(The result has more than {_MAX_IMAGES} images and files: the rest is left out.)"))
                break
        kept.append(part)
    return tuple(kept)


def _parts_of(block: types.ContentBlock, place: str, linked: Mapping[str, Sequence[Held]]) -> list[Part]:
    parts = [_part_of(block, place)]
    if isinstance(block, types.ResourceLink):
        held = linked.get(block.uri, ())
        sizes = (len(each.text if isinstance(each, types.TextResourceContents) else each.blob) for each in held)
        if sum(sizes) > MAX_LINKED_BYTES * 4 / 3:  # base64
            return [*parts, _data(f"(It has more than {MAX_LINKED_BYTES >> 20} MiB: it is left out.)")]
        parts += (_resource(each, place) for each in held)
    return parts


def _part_of(block: types.ContentBlock, place: str) -> Part:
    match block:
        case types.TextContent():
            return _data(block.text)
        case types.ImageContent():
            return ImagePart(f"data:{block.mime_type};base64,{block.data}", place)
        case types.EmbeddedResource():
            return _resource(block.resource, place)
        case types.ResourceLink():
            kind = f", {block.mime_type}" if block.mime_type else ""
            return _data(f"(resource {block.name}: {block.uri}{kind}) {block.description or ''}".rstrip())
        case _:
            return _data(f"(sound, {block.mime_type}: it cannot be heard here)")


def _resource(held: Held, place: str) -> Part:
    if isinstance(held, types.TextResourceContents):
        return _data(held.text)
    mime = held.mime_type or "application/octet-stream"
    url = f"data:{mime};base64,{held.blob}"
    if mime.startswith("image/"):
        return ImagePart(url, place)
    return FilePart(place, name=held.uri.rsplit("/", 1)[-1], url=url, is_video=mime.startswith("video/"))


def _data(text: str) -> TextPart:
    return TextPart(text, is_data=True)
