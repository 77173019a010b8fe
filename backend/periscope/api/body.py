"""JSON on its way in: bounded while it is read, strict where Python's parser is lax."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from starlette.requests import ClientDisconnect

from periscope.api.errors import ClientGone, InvalidJSON
from periscope.api.wording import clip
from periscope.errors import BodyTooLarge

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Deeper than any real tool schema, and shallow enough for every recursive reader behind us.
MAX_JSON_DEPTH = 128

#: The way from a value up to the root, so that a path costs nothing until it is told.
_Way: TypeAlias = "tuple[_Way, str | int] | None"


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


def parse_json(body: bytes) -> Any:
    """Pure: strict JSON in UTF-8, without NaN and infinities, lone surrogates or bottomless nesting.

    Raises:
        InvalidJSON: says what is wrong and where.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise InvalidJSON(f"The body is not UTF-8: byte {error.start} is wrong.") from error
    except RecursionError as error:
        raise InvalidJSON(_TOO_DEEP) from error
    except ValueError as error:
        raise InvalidJSON(f"The body is not JSON: {clip(str(error), 200)}.") from error
    _check_values(value)
    return value


_TOO_DEEP = f"The body is nested more than {MAX_JSON_DEPTH} levels deep."


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJSON(f"The body is not JSON: {name} is not a JSON number.")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise InvalidJSON(f"The number {clip(digits)} is too large.")
    return number


def _check_values(root: Any) -> None:
    pending: list[tuple[Any, _Way, int]] = [(root, None, 0)]
    while pending:
        value, way, depth = pending.pop()
        if isinstance(value, str):
            _check_text(value, way)
        elif isinstance(value, (dict, list)):
            if depth == MAX_JSON_DEPTH:
                raise InvalidJSON(_TOO_DEEP)
            if isinstance(value, dict):
                for key in value:
                    _check_text(key, way)
            entries = value.items() if isinstance(value, dict) else enumerate(value)
            pending += [(v, (way, k), depth + 1) for k, v in entries if isinstance(v, (str, dict, list))]


def _check_text(text: str, way: _Way) -> None:
    if text.isascii():  # known of every string without looking: base64 images cost nothing here
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        param = path_of(way)
        place = f"`{param}`" if param else "The body"
        raise InvalidJSON(
            f"{place} holds half of a surrogate pair, which is no character. Send whole characters.", param=param
        ) from error


def path_of(way: _Way) -> str | None:
    """`messages[0].content`, from the way up to the root."""
    path = ""
    while way is not None:
        way, key = way
        path = (f"[{key}]" if isinstance(key, int) else f".{clip(key)}") + path
    return path.removeprefix(".") or None
