"""Decodes documents and videos in a message's content from all dialects into core parts. Pure; no file is opened.

    OpenAI chat     {"type": "file", "file": {"filename": ..., "file_data": "data:application/pdf;base64,..."}}
    Responses       {"type": "input_file", "filename": ..., "file_data": ...}
    Anthropic       {"type": "document", "title": ..., "source": {"type": "base64", "media_type": ..., "data": ...}}
                    {"type": "document", "source": {"type": "text", "data": ...} or {"type": "content", "content": ...}}
    vLLM, SGLang    {"type": "video_url", "video_url": {"url": ...} or "..."}
    llama.cpp       {"type": "input_video", "input_video": {"data": ..., "format": "mp4"}}
    Transformers    {"type": "video", "video": "..."}
    any             a `data:application/pdf` or `data:video/...` URL where an image is expected

A reference to a file on another server becomes a part that says so. Whether that is an error depends on its place in
the conversation; `vision` decides it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from periscope.api.content import data_url, is_file_url, string_at, wrong_type
from periscope.core import FilePart, ImagePart, JSONObject, Part, TextPart
from periscope.errors import InvalidRequest

#: A character that every URL has, and base64 never.
_ADDRESS_MARK: Final = "://"
#: Where the parts of videos hold them.
_VIDEO_KEYS: Final = ("video_url", "input_video", "video")
_SEND_BYTES: Final = "Send the bytes in `file_data` as `data:application/pdf;base64,...`."


def file_part(part: JSONObject, path: str) -> FilePart | ImagePart:
    """OpenAI's `file` part, or the same fields without an object around them, as in `input_file`.

    An image that is sent as a file is an image.

    Raises:
        InvalidRequest: names the field that is of the wrong type.
    """
    inner, at = part, path
    if "file" in part:
        inner, at = part["file"], f"{path}.file"
        if not isinstance(inner, dict):
            raise wrong_type(at, "an object", inner)
    name = _optional_text(inner, "filename", at)
    data = inner.get("file_data")
    if data:
        return _from_file_data(string_at(f"{at}.file_data", data), name, at, path)
    if inner.get("file_id"):
        missing = f"`{at}.file_id` names a stored file, and this server stores none. {_SEND_BYTES}"
    elif inner.get("file_url"):
        missing = f"`{at}.file_url` is not fetched by this server. {_SEND_BYTES}"
    else:
        missing = f"`{at}.file_data` is missing or empty. {_SEND_BYTES}"
    return FilePart(path, name, missing=missing)


def video_part(part: JSONObject, path: str) -> FilePart:
    """A video in any of the shapes above: a `data:` URL, or bare base64.

    Raises:
        InvalidRequest: names the field that is of the wrong type.
    """
    key = next((key for key in _VIDEO_KEYS if key in part), _VIDEO_KEYS[0])
    value, at = part.get(key), f"{path}.{key}"
    if isinstance(value, dict):
        inner = "data" if "data" in value else "url"
        value, at = value.get(inner), f"{at}.{inner}"
    if not isinstance(value, str) or not value:
        raise wrong_type(at, "a `data:video/mp4;base64,...` URL", value)
    head = value[:256].lstrip().lower()
    if head.startswith("data:"):
        return FilePart(path, url=value)
    if _ADDRESS_MARK in head:
        missing = f"`{at}` is an address, and videos are not fetched. Send the bytes as `data:video/mp4;base64,...`."
        return FilePart(path, missing=missing, is_video=True)
    return FilePart(path, url=f"data:video/mp4;base64,{value}")


def document_block(part: JSONObject, path: str, decode: Callable[[Any, str], tuple[Part, ...]]) -> tuple[Part, ...]:
    """Anthropic's `document`, preceded by its `context` as text.

    Args:
        decode: reads a list of content parts.

    Raises:
        InvalidRequest: names the field that is of the wrong type, or asks for citations.
    """
    citations = part.get("citations")
    if isinstance(citations, dict) and citations.get("enabled"):
        raise InvalidRequest(
            f"`{path}.citations` asks for citations, which this server does not make. Leave it out.",
            param=f"{path}.citations",
        )
    source, at = part.get("source"), f"{path}.source"
    if not isinstance(source, dict):
        raise wrong_type(at, "an object", source)
    context = _optional_text(part, "context", path)
    before = (TextPart(context),) if context else ()
    return (*before, *_from_source(source, _optional_text(part, "title", path), at, path, decode))


def _from_source(
    source: JSONObject, name: str, at: str, path: str, decode: Callable[[Any, str], tuple[Part, ...]]
) -> tuple[Part, ...]:
    match source.get("type"):
        case "base64":
            url = data_url(source.get("media_type"), source.get("data"), f"{at}.media_type", f"{at}.data")
            return (FilePart(path, name, url=url),)
        case "text":
            return (FilePart(path, name, text=string_at(f"{at}.data", source.get("data"))),)
        case "content":
            return _from_content(decode(source.get("content"), f"{at}.content"), name, path)
        case "url":
            url = string_at(f"{at}.url", source.get("url"))
            if is_file_url(url) or url.lower().startswith("data:"):
                return (FilePart(path, name, url=url),)
            missing = f"`{at}.url` is not fetched by this server. Send the bytes in a source of type `base64`."
        case "file":
            missing = (
                f"`{at}.file_id` names a stored file, and this server stores none. Send the bytes in a source of type "
                "`base64`."
            )
        case other:
            raise wrong_type(f"{at}.type", "`base64`, `text` or `content`", other)
    return (FilePart(path, name, missing=missing),)


def _from_content(parts: tuple[Part, ...], name: str, path: str) -> tuple[Part, ...]:
    """The text of all parts as one document, followed by the images in it."""
    text = "\n".join(part.text for part in parts if isinstance(part, TextPart))
    others = tuple(part for part in parts if not isinstance(part, TextPart))
    return (*((FilePart(path, name, text=text),) if text or not others else ()), *others)


def _from_file_data(data: str, name: str, at: str, path: str) -> FilePart | ImagePart:
    """A `data:` URL, or bare base64."""
    head = data[:256].lstrip().lower()
    if head.startswith("data:image/") and not is_file_url(data):
        return ImagePart(data, path)
    if head.startswith("data:"):
        return FilePart(path, name, url=data)
    if _ADDRESS_MARK in head:
        return FilePart(path, name, missing=f"`{at}.file_data` is an address, which is not fetched. {_SEND_BYTES}")
    return FilePart(path, name, url=f"data:application/octet-stream;base64,{data}")


def _optional_text(part: JSONObject, key: str, path: str) -> str:
    value = part.get(key)
    return "" if value is None else string_at(f"{path}.{key}", value)
