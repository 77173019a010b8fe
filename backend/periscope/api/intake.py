"""Receives a request's body: in time, decompressed, within the bounds of one body and of all bodies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

from periscope.api.bodies_in_flight import SMALL_BODY_BYTES, BodiesInFlight
from periscope.api.byte_rate import ByteRate
from periscope.api.content_coding import DecodedBody, coding_of
from periscope.api.errors import RequestTimedOut
from periscope.api.freed_memory import give_back_freed_memory
from periscope.errors import BodyTooLarge

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from periscope.api.bodies_in_flight import BodyPlace
    from periscope.api.settings import ApiSettings

#: Threads that worked on a request may hold parts of it for a moment longer than its answer takes.
LET_GO_S = 0.5


class BodyIntake:
    """ASGI layer: the layers inside it read the body decompressed, in time and within its bounds.

    Owns the count of the bytes of all bodies. Errors of a body are raised where it is read. The HTTP server
    then reads the rest and drops it, so that a client that sends its whole body before it reads still gets the answer.
    """

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._settings = settings
        self._bodies = BodiesInFlight(settings.max_body_bytes_in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        place = self._bodies.place()
        body = _Body(dict(scope["headers"]), receive, place, self._settings)
        try:
            await self._app(scope, body.next, send)
        finally:
            place.give_back()
            if body.num_bytes > SMALL_BODY_BYTES:  # the freed memory is worth the milliseconds
                loop = asyncio.get_running_loop()
                loop.call_later(LET_GO_S, loop.run_in_executor, None, give_back_freed_memory)


class _Body:
    """Owns the reading of one body. `next` is its ASGI `receive`."""

    def __init__(self, headers: dict[bytes, bytes], receive: Receive, place: BodyPlace, settings: ApiSettings) -> None:
        self.num_bytes = 0
        self._place = place
        self._headers = headers
        self._receive = receive
        self._settings = settings
        self._rate = ByteRate(settings.receive_timeout_s, settings.min_receive_rate)
        self._is_complete = False
        self._is_handed_on = False
        self._decoded: Receive | None = None

    async def next(self) -> Message:
        """The next piece of the decompressed body.

        Raises:
            BodyTooLarge, RequestTimedOut, ContentCodingRefused, InvalidRequest (broken data).
            ServerBusy: it does not fit beside the bodies of other requests.
        """
        if self._is_handed_on:  # the body was parsed and freed; the reader waits only for a disconnect
            self._place.give_back()
        if self._decoded is None:
            self._decoded = self._begin()
        message = await self._decoded()
        self.num_bytes += len(message.get("body", b""))
        if self.num_bytes > self._settings.max_body_bytes:
            self._refuse_size()
        self._place.grow_to(self.num_bytes)
        self._is_handed_on = not message.get("more_body", False)
        return message

    def _begin(self) -> Receive:
        header = self._headers.get(b"content-length", b"0")
        claimed = int(header[:20]) if header.isdigit() else 0
        if claimed > self._settings.max_body_bytes:
            self._refuse_size()
        coding = coding_of(self._headers.get(b"content-encoding", b"").decode("latin-1"))
        self._place.grow_to(claimed)
        return self._in_time if coding is None else DecodedBody(self._in_time, coding)

    async def _in_time(self) -> Message:
        if self._is_complete:  # this waits for a disconnect, which has no deadline
            return await self._receive()
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._rate.left_s):
                message = await self._receive()
        except TimeoutError:
            raise RequestTimedOut(
                f"The rest of the request did not come in time: the server waits {self._settings.receive_timeout_s:g} "
                f"seconds, and longer for whoever sends {self._settings.min_receive_rate} bytes a second. Send it "
                "again, or raise `server.limits.receive_timeout_s`."
            ) from None
        self._rate.spend(loop.time() - began, len(message.get("body", b"")))
        self._is_complete = not message.get("more_body", False)
        return message

    def _refuse_size(self) -> NoReturn:
        raise BodyTooLarge(
            f"The request body is larger than {self._settings.max_body_bytes} bytes. Send fewer or smaller images, or "
            "raise `server.limits.max_body_bytes`."
        )
