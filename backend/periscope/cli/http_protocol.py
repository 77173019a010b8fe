"""The HTTP protocol of `periscope serve`: uvicorn's, with a deadline for every wait for a client.

Uvicorn (0.54) waits for ever for the end of a request's headers, for the rest of a body that is no longer read, and for
a client to read its answer. Each of these holds a connection, and the last one also what the request has leased, since
its handler waits in `send`. Here the connection is closed, which cancels the request like any disconnect.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from periscope.api.client_bounds import client_of
from periscope.api.dialects import DIALECTS, DialectTable, dialect_path, encoder_for
from periscope.api.errors import ErrorFacts, ErrorRow
from periscope.api.record import RequestRecord
from periscope.api.replies import dump_json
from periscope.cli.http_bounds import BoundedConnection, Connections, HeadersTooLarge, HTTPBounds, refusing
from periscope.cli.http_targets import TargetRefused
from periscope.cli.http_writes import JoinedWrites, joining

logger = logging.getLogger(__name__)

#: The kernel's send buffer. By default it grows to megabytes, which a slow client reads for minutes, and in that time
#: the server cannot see that it reads.
_KERNEL_BUFFER_BYTES = 128 * 1024
#: The longest pause in reading an answer while the server stops.
_STOP_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client may take.

    Attributes:
        receive_timeout_s: for the headers of a request, from their first byte on; also for a pause in the rest of a
            body whose request was already answered.
        min_rate: bytes a second that a client must read when it is behind with its answer.
        send_timeout_s: for reading the next bytes of an answer.
    """

    receive_timeout_s: float
    min_rate: int
    send_timeout_s: float


def protocol_with(
    patience: Patience, dialects: DialectTable = DIALECTS, bounds: HTTPBounds = HTTPBounds()
) -> type[asyncio.Protocol]:
    """The protocol class, of which uvicorn makes an instance for each connection.

    Args:
        dialects: the table that the app was made with, for the errors that the protocol answers by itself.
    """
    connections = Connections(bounds)

    class Protocol(PatientProtocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, patience=patience, dialects=dialects, connections=connections, **kwargs)
            self.conn = BoundedConnection(bounds)

    return Protocol


class _Deadline:
    """Owns one timer of a connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, act: Callable[[], None]) -> None:
        self._loop = loop
        self._act = act
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        return self._timer is not None

    def set(self, delay_s: float) -> None:
        """Start the timer, or restart it."""
        self.cancel()
        self._timer = self._loop.call_later(delay_s, self._fire)

    def cancel(self) -> None:
        """Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._act()


class PatientProtocol(H11Protocol):
    """Owns the deadlines of one connection."""

    conn: BoundedConnection
    _below: asyncio.Transport

    def __init__(
        self, *args: Any, patience: Patience, dialects: DialectTable, connections: Connections, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._counted = connections
        self._patience = patience
        self._dialects = dialects
        self._receiving = _Deadline(self.loop, self._give_up_receiving)
        self._sending = _Deadline(self.loop, self._look_at_sending)
        self._send_timeout_s = patience.send_timeout_s
        self._num_unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep a connection without a request as long as one that waits for its next request, or refuse it."""
        self._below = transport
        joined = JoinedWrites(transport)
        super().connection_made(joined)
        fault = self._counted.enter(client_of(self.client))
        if self._counted.is_flooded:
            transport.abort()
            return
        if fault is not None:
            self.app = refusing(fault)
            self.timeout_keep_alive = min(self.timeout_keep_alive, math.ceil(self._patience.receive_timeout_s))
        self.app = joining(self.app, self.conn, joined, self.flow)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER_BYTES)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._counted.leave(client_of(self.client))
        self._receiving.cancel()
        self._sending.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._follow_receiving(has_news=True)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._follow_receiving(has_news=False)
        self._follow_sending()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._follow_sending()

    def shutdown(self) -> None:
        super().shutdown()
        self._send_timeout_s = min(_STOP_TIMEOUT_S, self._send_timeout_s)
        self._sending.cancel()
        self._follow_sending()

    def send_400_response(self, msg: str) -> None:
        """Answer like uvicorn, which calls this where it handles h11's error, but with an error object as always."""
        if isinstance(error := sys.exception(), HeadersTooLarge):
            self._refuse(431, "headers_too_large", str(error))
            return
        if isinstance(error, TargetRefused):
            fault = str(error)
        else:
            fault = "Its body is not in valid chunks." if self._is_in_body else "Its headers are malformed."
        self._refuse(400, "invalid_http", f"{msg} {fault}")

    @property
    def _is_in_body(self) -> bool:
        """Whether the headers of the current request are complete, so that its path is known."""
        return self.cycle is not None and not self.cycle.response_complete

    def _follow_receiving(self, *, has_news: bool) -> None:
        """Update the deadline: one for the headers, from their first byte on; one per pause in an answered body."""
        if self.transport.is_closing():
            self._receiving.cancel()
        elif self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            if not self._receiving.is_set:
                self._receiving.set(self._patience.receive_timeout_s)
        elif self.conn.their_state is h11.SEND_BODY and self.cycle.response_complete:
            if has_news or not self._receiving.is_set:
                self._receiving.set(self._patience.receive_timeout_s)
        else:
            self._receiving.cancel()

    def _give_up_receiving(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self.transport.abort()
            return
        self._refuse(
            408,
            "request_timeout",
            f"The request's headers did not come within {self._patience.receive_timeout_s:g} seconds. Send it again, "
            "or raise `server.limits.receive_timeout_s`.",
        )

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer without the app, in the dialect of the request as far as it came, and end the connection."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # an answer has begun
            self.transport.abort()
            return
        asked = self.scope if self._is_in_body else self.conn.asked
        tells, record = encoder_for(dialect_path(asked), self._dialects), RequestRecord()
        facts = ErrorFacts(ErrorRow(status, "invalid_request_error", code), message, request_id=record.id)
        body = dump_json(tells(facts))
        headers = [
            *record.headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        if self.conn.our_state is h11.SEND_RESPONSE and asked["method"] == "HEAD":  # h11 has read it, and takes no body
            body = b""
        for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        self._follow_sending()

    def _follow_sending(self) -> None:
        """Watch the client from now on until it has read all that is buffered for it."""
        if not self._sending.is_set:
            self._num_unsent = self._count_unsent()
            if self._num_unsent:
                self._sending.set(self._send_timeout_s)

    def _look_at_sending(self) -> None:
        """At the deadline, continue if the client has read enough, otherwise close the connection."""
        num_left = self._count_unsent()
        if not self._is_behind or not num_left:
            return
        num_taken = self._num_unsent - num_left
        if num_taken >= min(self._num_unsent, self._patience.min_rate * self._send_timeout_s):
            self._follow_sending()
            return
        logger.info("a client does not take its answer, so its connection is cut")
        self.transport.abort()

    def _count_unsent(self) -> int:
        """Bytes that were written and that the kernel has not taken.

        asyncio's TLS transport (Python 3.11 to 3.14) does not count what it has encrypted, which waits in the transport
        below it: a client that took none of its answer was held until the end of its keep-alive.
        """
        below = getattr(getattr(self._below, "_ssl_protocol", None), "_transport", None)
        return self.transport.get_write_buffer_size() + (0 if below is None else int(below.get_write_buffer_size()))

    @property
    def _is_behind(self) -> bool:
        """Whether nothing is written now, so that the size of the buffer shows what the client has read."""
        return self.flow.write_paused or self.transport.is_closing() or self.cycle.response_complete
