"""Reads a request's JSON: scans it while it arrives, and parses it off the event loop if it is large.

Python's parser reads every byte of a string with the GIL held: half a second for 200 MB of images, in which no other
request is served. So long strings of base64 are replaced by placeholders before parsing, and put back after it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import ClientDisconnect

from periscope.api.body import LeftOut, parse_json, parse_string
from periscope.api.collector import paused_collector
from periscope.api.errors import ClientGone
from periscope.api.freed_memory import give_back_freed_memory
from periscope.api.json_scan import BodyScan, too_much_text

if TYPE_CHECKING:
    from typing import Final

    from starlette.requests import Request

T = TypeVar("T")

#: Keys under which clients send images (OpenAI's, Anthropic's, MCP's, Ollama's and our own) and files, which are
#: refused by their kind, not by their size.
PICTURE_FIELDS: Final = frozenset({"url", "image_url", "image", "images", "data", "file_data"})
#: A larger body is parsed in a thread. Smaller ones take a millisecond or two.
_MAX_BYTES_ON_LOOP = 128 * 1024
#: The pieces that strings of a larger body were put together from are worth the milliseconds of returning them, else
#: they would stand beside the decoded pictures.
_GIVES_BACK_BYTES = 16 * 1024 * 1024


async def read_json(request: Request, max_text_bytes: int, decode: Callable[[Any], T]) -> T:
    """What `decode` makes of the request's body. The content type is ignored (curl's default is wrong).

    Args:
        max_text_bytes: bound of the body without its images.
        decode: pure; called off the event loop if the body is large.

    Raises:
        InvalidRequest, BodyTooLarge, RequestTimedOut: the client's fault, or what `decode` raised.
        ClientGone: the client disconnected while it sent.
    """
    body, scan = bytearray(), BodyScan(max_text_bytes)
    try:
        async for chunk in request.stream():
            scan.feed(chunk)
            body += chunk
    except ClientDisconnect as error:
        raise ClientGone from error
    if len(body) <= _MAX_BYTES_ON_LOOP:
        return decode(parse_body(body, scan))

    def parse() -> T:
        with paused_collector():
            return decode(_parse_large(body, scan))

    return await asyncio.to_thread(parse)


def _parse_large(body: bytearray, scan: BodyScan) -> Any:
    """As `parse_body`. Leaves no freed memory behind that the C library would keep."""
    value = parse_body(body, scan)
    if len(body) > _GIVES_BACK_BYTES:
        give_back_freed_memory()
    return value


def parse_body(body: bytes | bytearray, scan: BodyScan) -> Any:
    """The value of a body that has been read.

    Args:
        scan: has read all of the body.

    Raises:
        InvalidJSON: as `parse_json`.
        BodyTooLarge: there is too much text: base64 under a key that holds no image counts as text.
    """
    if not scan.pictures:
        return parse_json(body)
    mark = secrets.token_hex(16)  # occurs in no client's text
    shortened, left_out, at = bytearray(), list[LeftOut](), 0
    for number, (start, end) in enumerate(scan.pictures):
        shortened += body[at:start]
        placeholder = f"{mark}{number}".encode()
        left_out.append(LeftOut(len(shortened), placeholder, memoryview(body)[start:end]))
        shortened += placeholder
        at = end
    shortened += body[at:]
    value = parse_json(shortened, left_out)
    return _PutBack(mark, body, scan).into(value)


class _PutBack:
    """Puts the strings that were taken out of one body back into their places."""

    def __init__(self, mark: str, body: bytes | bytearray, scan: BodyScan) -> None:
        self._mark = mark
        self._body = body
        self._scan = scan
        self._num_text_bytes = scan.num_text_bytes

    def into(self, root: Any) -> Any:
        """The value with its original strings. Containers are changed in place."""
        holder = [root]
        pending: list[tuple[dict[str, Any] | list[Any], str]] = [(holder, "")]
        while pending:
            container, name = pending.pop()
            for key, value in self._entries(container):
                at = key if isinstance(key, str) else name
                if isinstance(value, (dict, list)):
                    pending.append((value, at))
                elif isinstance(value, str) and value.startswith(self._mark):
                    container[key] = self._string(value, is_picture=at in PICTURE_FIELDS)
        return holder[0]

    def _entries(self, container: dict[str, Any] | list[Any]) -> Iterable[tuple[Any, Any]]:
        if isinstance(container, list):
            return enumerate(container)
        for key in [key for key in container if key.startswith(self._mark)]:
            container[self._string(key, is_picture=False)] = container.pop(key)
        return container.items()  # values are replaced, keys stay

    def _string(self, placeholder: str, *, is_picture: bool) -> str:
        start, end = self._scan.pictures[int(placeholder.removeprefix(self._mark))]
        if not is_picture:
            self._num_text_bytes += end - start
            if self._num_text_bytes > self._scan.max_text_bytes:
                raise too_much_text(self._scan.max_text_bytes)
        return parse_string(memoryview(self._body)[start:end], start)
