"""Parts of a message's content that several dialects share: images as each of them writes them, as core parts. Pure.

No image is decoded: a URL, or base64 with its media type, becomes the URL that `vision` reads. A PDF or a video in
the place of an image, as some clients send it, is a file. A reference to a stored image is a file that is missing:
whether that is an error depends on its place in the conversation, and `vision` decides it. Every route takes the parts
of all dialects, because chats continue at other endpoints with the history that they have.

    OpenAI chat     {"type": "image_url", "image_url": {"url": ...} or "..."}
    Responses       {"type": "input_image", "image_url": "..."} or {"type": "input_image", "file_id": ...}
    Anthropic       {"type": "image", "source": {"type": "base64", "media_type": ..., "data": ...}}
                    {"type": "image", "source": {"type": "url", "url": ...}}
                    {"type": "image", "source": {"type": "file", "file_id": ...}}
    MCP             {"type": "image", "data": ..., "mimeType": ...}
    Transformers    {"type": "image", "url": ...} or {"type": "image", "image": ...}
"""

from __future__ import annotations

import re
from typing import Any

from periscope.api.wording import kind_of
from periscope.core import FilePart, ImagePart, JSONObject
from periscope.errors import InvalidRequest

#: A media type goes into a `data:` URL, so it may hold no character that would end it early.
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+")

#: How a PDF begins, in base64.
_PDF_BASE64 = "JVBERi0"
#: A media type with its parameters is shorter.
_MAX_HEADER_CHARS = 256


def image_url_part(part: JSONObject, path: str) -> ImagePart | FilePart:
    """An image part of OpenAI: the URL itself, or an object with it. `detail` is a hint and is ignored.

    Raises:
        InvalidRequest: names the field that is of the wrong type.
    """
    value = part.get("image_url")
    if isinstance(value, dict):
        return _image_or_file(_url(value.get("url"), f"{path}.image_url.url"), path)
    if value is None and part.get("file_id"):
        return _stored(f"{path}.file_id", path)
    return _image_or_file(_url(value, f"{path}.image_url"), path)


def image_block(part: JSONObject, path: str) -> ImagePart | FilePart:
    """An image block of Anthropic (`source`), of MCP in tool results (`data`, `mimeType`), or of Transformers.

    Raises:
        InvalidRequest: names the field that is of the wrong type.
    """
    if "source" not in part and "data" in part:
        url = data_url(part.get("mimeType"), part["data"], f"{path}.mimeType", f"{path}.data")
        return _image_or_file(url, path)
    source = part.get("source")
    key = next((key for key in ("url", "image") if key in part), None)
    if source is None and key is not None:
        return _image_or_file(_url(part[key], f"{path}.{key}"), path)
    if not isinstance(source, dict):
        raise wrong_type(f"{path}.source", "an object", source)
    at = f"{path}.source"
    match source.get("type"):
        case "base64":
            url = data_url(source.get("media_type"), source.get("data"), f"{at}.media_type", f"{at}.data")
        case "url":
            url = _url(source.get("url"), f"{at}.url")
        case "file":
            return _stored(f"{at}.file_id", path)
        case other:
            raise wrong_type(f"{at}.type", "`base64` or `url`", other)
    return _image_or_file(url, path)


def is_file_url(url: str) -> bool:
    """Whether a `data:` URL holds a PDF or a video, by its media type or its first bytes."""
    head, comma, _ = url[:_MAX_HEADER_CHARS].partition(",")
    kind = head.strip().lower()
    if not comma or not kind.startswith("data:"):
        return False
    return kind.startswith(("data:application/pdf", "data:video/")) or url.startswith(_PDF_BASE64, len(head) + 1)


def data_url(media_type: Any, data: Any, media_path: str, data_path: str) -> str:
    """A `data:` URL of base64 and its media type.

    Raises:
        InvalidRequest: names the one that is of the wrong type.
    """
    if not isinstance(media_type, str) or not _MEDIA_TYPE.fullmatch(media_type):
        raise wrong_type(media_path, "a media type such as `image/png`", media_type)
    return f"data:{media_type};base64,{string_at(data_path, data)}"


def string_at(path: str, value: Any) -> str:
    """The value, which must be a string.

    Raises:
        InvalidRequest: it is something else; names `path`.
    """
    if not isinstance(value, str):
        raise wrong_type(path, "a string", value)
    return value


def wrong_type(path: str, expected: str, value: Any) -> InvalidRequest:
    """The error for a value of the wrong type."""
    return InvalidRequest(f"`{path}` must be {expected}, got {kind_of(value)}.", param=path)


def _stored(field: str, path: str) -> FilePart:
    missing = f"`{field}` names a stored image, and this server stores none. Send it as `data:image/png;base64,...`."
    return FilePart(path, missing=missing)


def _image_or_file(url: str, path: str) -> ImagePart | FilePart:
    return FilePart(path, url=url) if is_file_url(url) else ImagePart(url, path)


def _url(value: Any, path: str) -> str:
    if not isinstance(value, str) or not value:
        raise wrong_type(path, "a URL (`data:image/png;base64,...`)", value)
    return value
