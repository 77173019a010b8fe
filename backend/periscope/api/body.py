"""JSON on its way in: bounded while it is read, strict where Python's parser is lax."""

from __future__ import annotations

import codecs
import json
import math
import re
from typing import TYPE_CHECKING, Any, NoReturn

from starlette.requests import ClientDisconnect

from periscope.api.errors import ClientGone, InvalidJSON
from periscope.api.wording import clip
from periscope.errors import BodyTooLarge

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Deeper than any real tool schema, and shallow enough for every recursive reader behind us.
MAX_JSON_DEPTH = 128

#: Half of a surrogate pair: JSON can write it, and it stands for no character.
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


class BodyLimit:
    """ASGI layer: no request gets more than `max_bytes` of body read, whatever its content-length claims.

    Its `BodyTooLarge` is raised where the body is read.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        claimed = dict(scope["headers"]).get(b"content-length", b"0")
        num_read = 0

        async def bounded() -> Message:
            nonlocal num_read
            if claimed.isdigit() and int(claimed) > self._max_bytes:
                self._refuse()
            message = await receive()
            num_read += len(message.get("body", b""))
            if num_read > self._max_bytes:
                self._refuse()
            return message

        await self._app(scope, bounded, send)

    def _refuse(self) -> NoReturn:
        raise BodyTooLarge(
            f"The request body is larger than {self._max_bytes} bytes. Send fewer or smaller images, or raise "
            "`server.limits.max_body_bytes`."
        )


async def read_json(request: Request) -> Any:
    """The request's body, parsed; its content-type is not looked at (curl's default is wrong, its JSON is right).

    Raises:
        InvalidJSON, BodyTooLarge: the client's fault.
        ClientGone: the client left while it sent.
    """
    try:
        # Not `request.body()`, which keeps it for as long as the request lives.
        body = b"".join([chunk async for chunk in request.stream()])
    except ClientDisconnect as error:
        raise ClientGone from error
    return parse_json(body)


def parse_json(body: bytes | bytearray) -> Any:
    """Pure: strict JSON in UTF-8, without NaN and infinities or bottomless nesting. A byte order mark is passed over.

    Half a surrogate pair becomes U+FFFD: JavaScript cuts texts in the middle of a character, and such a text comes back
    with every turn of its chat.

    Raises:
        InvalidJSON: says what is wrong and where.
    """
    try:
        value = json.loads(_text_of(body), parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise InvalidJSON(f"The body is not UTF-8: byte {error.start} is wrong.") from error
    except RecursionError as error:
        raise InvalidJSON(_TOO_DEEP) from error
    except ValueError as error:
        raise InvalidJSON(f"The body is not JSON: {clip(str(error), 200)}.") from error
    return _in_whole_characters(value)


def _text_of(body: bytes | bytearray) -> str:
    """Windows begins files with a byte order mark; `utf-8-sig` would copy the body to take it off."""
    has_mark = body.startswith(codecs.BOM_UTF8)
    return str(memoryview(body)[len(codecs.BOM_UTF8) :], "utf-8") if has_mark else body.decode("utf-8")


_TOO_DEEP = f"The body is nested more than {MAX_JSON_DEPTH} levels deep."


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJSON(f"The body is not JSON: {name} is not a JSON number.")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise InvalidJSON(f"The number {clip(digits)} is too large.")
    return number


def _in_whole_characters(root: Any) -> Any:
    """The same value, changed in place where a text holds half a character."""
    if isinstance(root, str):
        return _whole_characters(root)
    pending: list[tuple[Any, int]] = [(root, 0)] if isinstance(root, (dict, list)) else []
    while pending:
        node, depth = pending.pop()
        if depth == MAX_JSON_DEPTH:
            raise InvalidJSON(_TOO_DEEP)
        if isinstance(node, dict) and not all(map(_is_whole, node)):
            entries = [(_whole_characters(key), value) for key, value in node.items()]
            node.clear()
            node.update(entries)
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(value, (dict, list)):
                pending.append((value, depth + 1))
            elif isinstance(value, str) and not _is_whole(value):
                node[key] = _whole_characters(value)
    return root


def _is_whole(text: str) -> bool:
    # ASCII is known of every string without looking: base64 images cost nothing here.
    return text.isascii() or _HALF_CHARACTER.search(text) is None


def _whole_characters(text: str) -> str:
    return _HALF_CHARACTER.sub("\ufffd", text)
