"""A request's events as server-sent events. The dialect encodes them, this module forwards them, `frames` sends them.

The status line waits for the first delta, an error, or the end of a short grace (`commit_grace_s`), so that an early
error gets its own status. Then come the headers and the opening frame at once, and
from there on a frame at least every `heartbeat_s`. An error after that is an error frame, then the dialect's end
frame all the same: Open WebUI waits for `[DONE]` for ever (vllm-mlx#101). Streams that are still open when
the server stops end in the same way.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from starlette.responses import Response

from periscope.api.disconnect import while_connected
from periscope.api.error_replies import error_object, let_go
from periscope.api.errors import CUT_OFF, ClientGone
from periscope.api.frames import FrameSender
from periscope.api.record import record_of
from periscope.api.replies import dump_json
from periscope.core import Finished, Waiting
from periscope.errors import GenerationFailed, PeriscopeError, RequestCancelled, ServerStopping

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import Receive, Scope, Send

    from periscope.api.settings import ApiSettings
    from periscope.core import AnswerEvent, JSONObject

logger = logging.getLogger(__name__)
EventT = TypeVar("EventT", bound="AnswerEvent")
EncodedT_contra = TypeVar("EncodedT_contra", bound="AnswerEvent", contravariant=True)

#: How long a stopping server waits for a client to take the last frame.
LAST_FRAME_S = 0.2

STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx would keep frames to itself
}


_RAW_HEADERS = [(name.encode(), value.encode()) for name, value in STREAM_HEADERS.items()]


def data_frame(value: JSONObject) -> bytes:
    """One event, in the framing that all clients read."""
    return framed(dump_json(value))


def framed(data: bytes) -> bytes:
    """As `data_frame`, of JSON that is encoded already."""
    return b"data: " + data + b"\n\n"


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
        self.raw_headers = list(_RAW_HEADERS)
        self._events = events
        self._encoder = encoder
        self._heartbeat_s = settings.heartbeat_s
        self._grace_s = min(settings.commit_grace_s, settings.heartbeat_s)
        self._waiting: EventT | None = None  # the newest wait state, as long as the stream is not open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the request until it ends or its client disconnects.

        Raises:
            Exception: the backend's, before anything was sent.
            ClientGone: the client disconnected; all work has ended.
            asyncio.CancelledError: the server stops; all work has ended, and the client got an error frame.
        """
        frames = FrameSender(
            scope,
            send,
            self.raw_headers,
            self._opening,
            self._encoder.heartbeat,
            grace_s=self._grace_s,
            heartbeat_s=self._heartbeat_s,
        )
        try:
            await while_connected(self._run(frames, scope), receive)
        except RequestCancelled as error:
            await self._fail(error, frames, scope)
        except asyncio.CancelledError:
            await frames.aclose()
            await self._cut_off(frames, scope)
            raise
        finally:
            await frames.aclose()

    def _opening(self) -> bytes:
        waiting, self._waiting = self._waiting, None
        return self._encoder.opening() + (b"" if waiting is None else self._encoder.event(waiting))

    async def _run(self, frames: FrameSender, scope: Scope) -> None:
        """Iterate over the events and send them. One task for both: a switch for each token would cost more than it."""
        try:
            ending = await self._forward(frames)
        except ClientGone:
            raise
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            # Something that the backend awaited was cancelled.
            await self._fail(GenerationFailed("The request was cancelled."), frames, scope)
        except Exception as error:
            if _is_cancelled():
                logger.warning("a cancelled request raised while it cleaned up", exc_info=error)
                raise asyncio.CancelledError from error
            await self._fail(error, frames, scope)
        else:
            await frames.put(ending, is_last=True)

    async def _forward(self, frames: FrameSender) -> bytes:
        """Send all events but the last, whose frame is returned once the generator has cleaned up."""
        finished = None
        async with aclosing(self._events) as events:
            async for event in events:
                if isinstance(event, Finished):
                    finished = event
                    break
                if not frames.is_open:
                    if isinstance(event, Waiting):
                        self._waiting = event
                        continue
                    await frames.open()
                frame = self._encoder.event(event)
                if not frames.put_now(frame):
                    await frames.put(frame)
        if finished is None:
            raise GenerationFailed("The model's answer ended without a result.")
        await frames.open()
        return self._encoder.event(finished)

    async def _fail(self, error: Exception, frames: FrameSender, scope: Scope) -> None:
        """An error that has no status any more becomes the last frame.

        Raises:
            Exception: the error, which still has its own status.
        """
        if not frames.is_open:
            raise error
        if not isinstance(error, PeriscopeError):
            logger.error("unexpected error in a stream", exc_info=error, extra={"request_id": record_of(scope).id})
        told = error_object(error, scope)
        let_go(error)
        await frames.put(self._encoder.failure(told), is_last=True)

    async def _cut_off(self, frames: FrameSender, scope: Scope) -> None:
        """Send the error frame and the end frame, unless the client is too far behind to take them at once."""
        if not frames.is_open:
            return
        frame = self._encoder.failure(error_object(ServerStopping(CUT_OFF), scope))
        with suppress(TimeoutError, ClientGone):
            async with asyncio.timeout(LAST_FRAME_S):
                await frames.put(frame, is_last=True)


def _is_cancelled() -> bool:
    """Whether this task was told to end: by its client's disconnect, by command, or by the end of the server."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
