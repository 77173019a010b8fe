"""A request's events as server-sent events. The dialect encodes them; this module decides when they are sent.

The status line waits for the first delta, an error, or the end of a short grace (`commit_grace_s`), so that an early
error gets its own status. Then come the headers and the opening frame at once, and
from there on a frame at least every `heartbeat_s`. An error after that is an error frame, then the dialect's end
frame all the same: Open WebUI waits for `[DONE]` for ever (vllm-mlx#101). Streams that are still open when
the server stops end in the same way.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from starlette.responses import Response

from periscope.api.disconnect import while_connected
from periscope.api.error_replies import error_object, let_go
from periscope.api.errors import CUT_OFF, ClientGone
from periscope.api.feed import EventFeed, until_finished
from periscope.api.record import record_of
from periscope.api.replies import dump_json
from periscope.core import Finished, Waiting
from periscope.errors import PeriscopeError, ServerStopping

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import Message, Receive, Scope, Send

    from periscope.api.settings import ApiSettings
    from periscope.core import AnswerEvent, JSONObject

logger = logging.getLogger(__name__)
EventT = TypeVar("EventT", bound="AnswerEvent")
EncodedT_contra = TypeVar("EncodedT_contra", bound="AnswerEvent", contravariant=True)

#: How long a stopping server waits for a client to take the last frame.
LAST_FRAME_S = 0.2

#: Frames that are ready at the same time are sent together, up to about this size: each write is a system call.
MAX_JOINED_BYTES = 16 * 1024

STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx would keep frames to itself
}


def data_frame(value: JSONObject) -> bytes:
    """One event, in the framing that all clients read."""
    return b"data: " + dump_json(value) + b"\n\n"


def comment_frame(text: str) -> bytes:
    """A comment, which keeps the connection alive and which clients ignore."""
    return f": {text}\n\n".encode()


class FrameEncoder(Protocol[EncodedT_contra]):
    """Encodes one streamed answer in one dialect. Each method returns the bytes to send, which may be empty."""

    def opening(self) -> bytes:
        """The frame that comes before any event."""
        ...

    def event(self, event: EncodedT_contra) -> bytes:
        """The frames of an event; for `Finished`, all up to the end of the stream."""
        ...

    def heartbeat(self) -> bytes:
        """A frame that only shows that the stream is alive."""
        ...

    def failure(self, error: JSONObject) -> bytes:
        """The error object as an event, then the end of the stream."""
        ...


class EventStream(Response, Generic[EventT]):
    """Response that runs a request and sends its events. Owns the generator; a disconnect ends it at any await."""

    def __init__(
        self, events: AsyncGenerator[EventT, None], encoder: FrameEncoder[EventT], settings: ApiSettings
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(STREAM_HEADERS)
        self._events = events
        self._encoder = encoder
        self._heartbeat_s = settings.heartbeat_s
        self._grace_s = min(settings.commit_grace_s, settings.heartbeat_s)
        self._is_open = False  # the headers are sent, and the last frame is not

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the request until it ends or its client disconnects.

        Raises:
            Exception: the backend's, before anything was sent.
            ClientGone: the client disconnected; all work has ended.
            asyncio.CancelledError: the server stops; all work has ended, and the client got an error frame.
        """
        try:
            await while_connected(self._run(scope, send), receive)
        except asyncio.CancelledError:
            await self._cut_off(scope, send)
            raise

    async def _run(self, scope: Scope, send: Send) -> None:
        async with EventFeed(until_finished(self._events)) as feed:
            held = await self._hold(feed)
            await send_or_leave(send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            self._is_open = True
            frame, is_last = self._encoder.opening(), False
            deadline = _now()
            while True:
                if frame:
                    await send_or_leave(send, {"type": "http.response.body", "body": frame, "more_body": not is_last})
                    deadline = _now() + self._heartbeat_s
                if is_last:
                    self._is_open = False
                    return
                frame, is_last = await self._next_frame(feed, held, deadline, scope)
                while feed.has_pending and not held and not is_last and len(frame) < MAX_JOINED_BYTES:
                    more, is_last = await self._next_frame(feed, held, deadline, scope)
                    frame += more

    async def _cut_off(self, scope: Scope, send: Send) -> None:
        """Send the error frame and the end frame, unless the client is too far behind to take them at once."""
        if not self._is_open:
            return
        frame = self._encoder.failure(error_object(ServerStopping(CUT_OFF), scope))
        with suppress(TimeoutError, ClientGone):
            async with asyncio.timeout(LAST_FRAME_S):
                await send_or_leave(send, {"type": "http.response.body", "body": frame, "more_body": False})

    async def _hold(self, feed: EventFeed[EventT]) -> deque[EventT]:
        """Waits until the status is decided; returns the newest wait state until then, and the first delta."""
        deadline = _now() + self._grace_s
        waiting: list[EventT] = []
        while (left_s := deadline - _now()) > 0 and (event := await feed.next(left_s)) is not None:
            if not isinstance(event, Waiting):
                return deque([*waiting, event])
            waiting = [event]
        return deque(waiting)

    async def _next_frame(
        self, feed: EventFeed[EventT], held: deque[EventT], deadline: float, scope: Scope
    ) -> tuple[bytes, bool]:
        """The next frame, which may be empty, and whether it is the last. An error becomes a frame."""
        try:
            event = held.popleft() if held else await feed.next(deadline - _now())
            frame = self._encoder.heartbeat() if event is None else self._encoder.event(event)
        except Exception as error:
            if not isinstance(error, PeriscopeError):
                logger.exception("unexpected error in a stream", extra={"request_id": record_of(scope).id})
            told = error_object(error, scope)
            let_go(error)
            return self._encoder.failure(told), True
        return frame, isinstance(event, Finished)


async def send_or_leave(send: Send, message: Message) -> None:
    """Sends, or raises `ClientGone` if the client has disconnected."""
    try:
        await send(message)
    except OSError as error:  # ASGI 2.4: how `send` says that the client has left
        raise ClientGone from error


def _now() -> float:
    return asyncio.get_running_loop().time()
