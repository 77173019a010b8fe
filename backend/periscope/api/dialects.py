"""The dialect in which each request is told errors: the one table by path, and the ASGI layer that looks it up.

A request with Anthropic's version header speaks Anthropic's dialect on every path. A new dialect needs one entry here
and one function that makes its error object from `ErrorFacts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from periscope.api.anthropic.errors import encode_error as encode_anthropic_error
from periscope.api.errors import ErrorFacts
from periscope.api.mcp.errors import encode_error as encode_mcp_error
from periscope.api.openai.errors import encode_error
from periscope.api.paths import PATHS, intended_path
from periscope.api.responses.errors import encode_error as encode_responses_error
from periscope.core import JSONObject

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

#: Makes the body of an error answer, which is also the data of an error event in a stream. Pure.
ErrorEncoder: TypeAlias = Callable[[ErrorFacts], JSONObject]
#: Maps a path to the encoder of errors on it and on the paths below it.
DialectTable: TypeAlias = Mapping[str, ErrorEncoder]

_MESSAGES, _RESPONSES = "/v1/messages", "/v1/responses"
#: Control routes, probes and unknown paths use OpenAI's error objects, like everything under `/v1`.
DIALECTS: DialectTable = {
    "/": encode_error,
    _MESSAGES: encode_anthropic_error,
    _RESPONSES: encode_responses_error,
    "/mcp": encode_mcp_error,
}

_KEY = "periscope.error_encoder"


def encoder_for(path: str, dialects: DialectTable) -> ErrorEncoder:
    """Pure: the encoder of errors on this path, as the client spelled it. The longest entry that covers it counts.

    Args:
        path: may be none, as in `OPTIONS *`.
        dialects: must have an entry for "/".
    """
    meant = intended_path(path)
    covering = (prefix for prefix in dialects if f"{meant}/".startswith(f"{prefix.rstrip('/')}/"))
    return dialects[max(covering, key=len, default="/")]


def speaks_anthropic(scope: Mapping[str, Any]) -> bool:
    """Whether the request carries the header that every client of Anthropic's API sends, and no other does."""
    return any(name == b"anthropic-version" for name, _ in scope["headers"])


def dialect_path(scope: Mapping[str, Any]) -> str:
    """The path by which a request's dialect is looked up: its own, or one of the dialect that its headers name."""
    return _MESSAGES if speaks_anthropic(scope) else str(scope["path"])


def encoder_of(scope: MutableMapping[str, Any]) -> ErrorEncoder:
    """The encoder of errors for the request of this ASGI scope."""
    if _KEY not in scope:
        scope[_KEY] = encoder_for(dialect_path(scope), DIALECTS)
    return cast("ErrorEncoder", scope[_KEY])


class DialectByPath:
    """ASGI layer, outside all others: notes the encoder of errors for the path in the scope. See `encoder_of`."""

    def __init__(self, app: ASGIApp, dialects: DialectTable) -> None:
        self._app = app
        self._dialects = dialects
        self._known = {path: encoder_for(path, dialects) for path in PATHS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = dialect_path(scope)
            scope[_KEY] = self._known.get(path) or encoder_for(path, self._dialects)
        await self._app(scope, receive, send)
