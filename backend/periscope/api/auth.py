"""Who may call: the Host and Origin headers, then the API key. Plain ASGI layers, which do not buffer streams.

They prevent DNS rebinding (by Host), requests that a web page sends without reading the answer (by Origin), and keys
guessed byte by byte. Desktop apps have origins with schemes of their own, which are allowed (`periscope.core.origins`).
They do not encrypt, limit rates, or stop somebody who can reach the port and knows the key.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware

from periscope.api.error_replies import error_reply
from periscope.api.errors import OriginRefused
from periscope.api.record import record_of
from periscope.api.wording import clip
from periscope.core import AllowedOrigins
from periscope.core.caller import KEY_NAME
from periscope.errors import AuthenticationFailed, HostRefused, PeriscopeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from periscope.api.access_keys import AccessKeys

#: Docker Desktop's name for this machine, which Open WebUI in a container uses.
_LOCAL_NAMES = frozenset({"localhost", "host.docker.internal"})
_HOST = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[^\s,:/@\[\]]+?)\.?)(?::\d*)?")
_FOREIGN = 'Web pages of the origin "{}" may not use this server. Add it to `server.cors_origins`.'
_HIDDEN = (
    "Web pages that hide their origin (`null`: opened from a file, or in a sandboxed frame) may not use this server. "
    "Serve the page over HTTP, and add its origin to `server.cors_origins`."
)
_NO_KEY = "The API key is missing or wrong. Send the server's key as `Authorization: Bearer <key>` or as `x-api-key`."
#: Supervisors request these without a key. Their answers hold nothing that needs protection.
OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/health"})


class HostGuard:
    """ASGI layer: refuses requests under a foreign Host, or from a web page of a foreign origin, with 403."""

    def __init__(self, app: ASGIApp, allowed_hosts: Iterable[str], origins: AllowedOrigins) -> None:
        self._app = app
        self._hosts = frozenset(_setting_name(host) for host in allowed_hosts)
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self._objection(Headers(scope=scope))):
            await error_reply(error, scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _objection(self, headers: Headers) -> PeriscopeError | None:
        host = ", ".join(headers.getlist("host"))
        if not self._is_allowed_host(host_name(host)):
            return HostRefused(
                f'This server does not answer to the host "{clip(host)}". Use localhost, or add the name to '
                "`server.allowed_hosts`."
            )
        origin = ", ".join(headers.getlist("origin"))
        if "origin" in headers and not self._is_allowed_origin(origin, host):
            return OriginRefused(_HIDDEN if origin == "null" else _FOREIGN.format(clip(origin)))
        return None

    def _is_allowed_host(self, name: str) -> bool:
        return bool(name) and (name in _LOCAL_NAMES or name in self._hosts or "*" in self._hosts or _is_loopback(name))

    def _is_allowed_origin(self, origin: str, host: str) -> bool:
        return origin in self._origins or origin.lower().partition("://")[2] == host.lower()


def host_name(host: str) -> str:
    """Pure: the name or address of a Host header in lower case, without port, brackets and final dot; "" if invalid."""
    match = _HOST.fullmatch(host.lower())
    return (match["address"] or match["name"]) if match else ""


def _setting_name(host: str) -> str:
    is_bare_address = host.count(":") > 1 and not host.startswith("[")
    return host.lower() if host == "*" or is_bare_address else host_name(host)


@lru_cache
def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Cors(CORSMiddleware):
    """ASGI layer: lets pages of allowed origins read the answers, and answers their preflights, which carry no key."""

    def __init__(self, app: ASGIApp, origins: AllowedOrigins) -> None:
        super().__init__(
            app,
            allow_origins=["*"] if origins.are_all else [],
            allow_methods=["*"],
            allow_headers=["*"],
            allow_private_network=True,
            expose_headers=["x-request-id", "request-id", "retry-after", "mcp-session-id"],
        )
        self._origins = origins

    def is_allowed_origin(self, origin: str) -> bool:
        """Whether pages of this origin may read."""
        return origin in self._origins


class KeyGuard:
    """ASGI layer: asks for an API key, as `Authorization: Bearer` or `x-api-key`, except on the open paths.

    It notes the key's name for the access log and for the status of requests, never the key.
    """

    def __init__(self, app: ASGIApp, keys: AccessKeys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            is_asked = self._keys.are_asked_for
            name = self._keys.name_of(_offered(Headers(scope=scope))) if is_asked else None
            if is_asked and name is None and scope["path"] not in OPEN_PATHS:
                await error_reply(AuthenticationFailed(_NO_KEY), scope)(scope, receive, send)
                return
            record_of(scope).key = name
            KEY_NAME.set(name)
        await self._app(scope, receive, send)


def _offered(headers: Headers) -> list[bytes]:
    """The keys of a request; header values are bytes, which Starlette shows as Latin-1."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    offered = [token.strip()] if scheme.lower() == "bearer" else []
    return [key.encode("latin-1") for key in (*offered, *headers.getlist("x-api-key"))]
