"""How many requests one client has open at once: a client is a key with a name, else an address."""

from __future__ import annotations

import ipaddress
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from periscope.api.auth import OPEN_PATHS
from periscope.api.error_replies import error_reply
from periscope.api.record import record_of
from periscope.errors import ServerBusy

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

#: All programs that come by the server's Unix socket are one client: one user's.
_UNIX: Final = "unix"
#: One household or machine has at least so much of IPv6.
_IPV6_PREFIX: Final = 64
_RETRY_AFTER_S: Final = 2


def client_of(address: tuple[str, int] | None) -> str:
    """Pure: the client at this address; all ports of a host are one client, and so is an IPv6 network."""
    return _UNIX if address is None else _client_at(address[0])


@lru_cache
def _client_at(host: str) -> str:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host
    return host if found.version == 4 else str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))


class ClientBounds:
    """ASGI layer, inside the key guard. Owns the number of open requests of each client; refuses more with 503.

    A refused request's body is not read. Probes are not counted.
    """

    def __init__(self, app: ASGIApp, max_requests: int) -> None:
        self._app = app
        self._max_requests = max_requests
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        key = record_of(scope).key
        client = f"key {key}" if key is not None else client_of(scope.get("client"))
        if self._open[client] >= self._max_requests:
            error = ServerBusy(
                f"This client has {self._max_requests} requests open, which is the limit "
                "(`server.limits.max_requests_per_client`). Wait for one of them to end.",
                retry_after_s=_RETRY_AFTER_S,
            )
            await error_reply(error, scope)(scope, receive, send)
            return
        self._open[client] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]
