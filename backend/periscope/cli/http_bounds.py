"""Bounds of the HTTP protocol: how many connections all clients and each of them have, and how large headers are."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import h11

from periscope.api.error_replies import error_reply
from periscope.cli.http_targets import path_of, with_path
from periscope.errors import ServerBusy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger(__name__)

#: Connections beyond the limit that are told why they are not served; still more are closed without a word.
_NUM_TOLD: Final = 64


@dataclass(frozen=True, slots=True)
class HTTPBounds:
    """The settings of the same names in `server.limits`."""

    max_header_bytes: int = 64 * 1024
    max_headers: int = 128
    max_connections: int = 512
    max_connections_per_client: int = 256


class Connections:
    """Owns the count of the connections that are open, of all clients and of each. Event loop only."""

    def __init__(self, bounds: HTTPBounds) -> None:
        self._bounds = bounds
        self._by_client: Counter[str] = Counter()
        self._num = 0
        self._is_full = False

    @property
    def is_flooded(self) -> bool:
        """There are so many that no more of them can be told."""
        return self._num > self._bounds.max_connections + _NUM_TOLD

    def enter(self, client: str) -> str | None:
        """Count one more connection. Returns why its requests are not served; None if they are."""
        self._num += 1
        self._by_client[client] += 1
        for num, setting, whose in (
            (self._num, "max_connections", "The server"),
            (self._by_client[client], "max_connections_per_client", "This client"),
        ):
            limit = getattr(self._bounds, setting)
            if num > limit:
                fault = f"{whose} has {limit} connections open, which is the limit (`server.limits.{setting}`)."
                if not self._is_full:  # one line until there is room again, however many are refused
                    logger.warning("connections are refused: %s", fault)
                self._is_full = True
                return f"{fault} Close those that are not used, or use them for several requests."
        self._is_full = False
        return None

    def leave(self, client: str) -> None:
        """A connection that was entered is closed."""
        self._num -= 1
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]


def refusing(fault: str) -> ASGIApp:
    """An app that answers every request with this fault, and closes its connection."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await error_reply(ServerBusy(fault), scope, {"connection": "close"})(scope, receive, send)

    return refuse


class HeadersTooLarge(h11.RemoteProtocolError):
    """A request's headers are over a limit; the text says which."""

    def __init__(self, message: str) -> None:
        super().__init__(message, error_status_hint=431)


class BoundedConnection(h11.Connection):
    """Owns the state of one connection's HTTP; refuses requests whose headers are too many or too large.

    h11 (0.16) counts bytes only while headers are incomplete, so that any number of them passes in one piece.
    """

    def __init__(self, bounds: HTTPBounds) -> None:
        super().__init__(h11.SERVER, bounds.max_header_bytes)
        self._bounds = bounds
        self._head = b""

    @property
    def asked(self) -> Mapping[str, Any]:
        """What the newest request is, as far as it came, under the keys of an ASGI scope. Headers have no values."""
        line, *fields = self._head.lstrip().partition(b"\r\n\r\n")[0].split(b"\r\n")
        method, _, rest = line.partition(b" ")
        target = rest.partition(b" ")[0]
        return {
            "method": method.decode("latin-1"),
            "path": path_of(target).partition(b"?")[0].decode("latin-1"),
            "headers": [(field.partition(b":")[0].strip().lower(), b"") for field in fields],
        }

    def next_event(self) -> Any:
        """The next event, as h11 has it, but that the target of a request is a path.

        Raises:
            HeadersTooLarge: the request's headers are over a limit.
            TargetRefused: the request's target has no path.
            h11.RemoteProtocolError: the client does not speak HTTP.
        """
        if self.their_state is h11.IDLE:
            self._head = self.trailing_data[0]
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                raise self._too_large() from None
            raise
        if isinstance(event, h11.Request):
            num_bytes = len(event.target) + sum(len(name) + len(value) + 4 for name, value in event.headers)
            if num_bytes > self._bounds.max_header_bytes:
                raise self._too_large()
            if (num := len(event.headers)) > self._bounds.max_headers:
                raise HeadersTooLarge(
                    f"The request has {num} headers, and at most {self._bounds.max_headers} are taken "
                    "(`server.limits.max_headers`)."
                )
            return with_path(event)
        return event

    def _too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"The request's headers are larger than {self._bounds.max_header_bytes} bytes "
            "(`server.limits.max_header_bytes`)."
        )
