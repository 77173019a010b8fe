"""The server's status as server-sent events: a snapshot, then changes, until server or reader stop.

Memory is bounded whatever the reader does: the feed takes a few events, the backend's subscription a few more and ends
when it is full, and a reader that does not take a frame before the next heartbeat is due is disconnected.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING

from starlette.responses import Response

from periscope.api.disconnect import while_connected
from periscope.api.errors import ClientGone
from periscope.api.feed import EventFeed
from periscope.api.frames import send_or_leave
from periscope.api.record import record_of
from periscope.api.replies import dump_json
from periscope.api.sse import STREAM_HEADERS, comment_frame
from periscope.api.status_wire import encode_event

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import Message, Receive, Scope, Send

    from periscope.api.settings import ApiSettings
    from periscope.status import StatusEvent

logger = logging.getLogger(__name__)


class StatusStream(Response):
    """Response that sends status events. Owns the generator; a disconnect closes it at whatever it awaits."""

    def __init__(self, events: AsyncGenerator[StatusEvent, None], settings: ApiSettings) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(STREAM_HEADERS)
        self._events = events
        self._heartbeat_s = settings.heartbeat_s
        self._ids = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends until the backend's events end.

        Raises:
            Exception: the backend's; with a status of its own if nothing was sent yet.
            ClientGone: the client disconnected or stopped reading; the generator is closed.
        """
        await while_connected(self._run(scope, send), receive)

    async def _run(self, scope: Scope, send: Send) -> None:
        async with EventFeed(self._events) as feed:
            frame = await self._next_frame(feed)  # an error here still has a status of its own
            await self._send(scope, send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while frame:
                await self._send(scope, send, {"type": "http.response.body", "body": frame, "more_body": True})
                frame = await self._next_frame(feed)
            await self._send(scope, send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _next_frame(self, feed: EventFeed[StatusEvent]) -> bytes:
        """The next event or a heartbeat; nothing at the end."""
        try:
            event = await feed.next(self._heartbeat_s)
        except StopAsyncIteration:
            return b""
        if event is None:
            return comment_frame("keep-alive")
        name, data = encode_event(event)
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (next(self._ids), name.encode(), dump_json(data))

    async def _send(self, scope: Scope, send: Send, message: Message) -> None:
        try:
            async with asyncio.timeout(self._heartbeat_s):
                await send_or_leave(send, message)
        except TimeoutError:
            logger.info("a reader of events does not read, so it is left", extra={"request_id": record_of(scope).id})
            raise ClientGone from None
