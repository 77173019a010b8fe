"""The client's side of one stream: its headers, its frames, and the signs of life between them. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

from periscope.api.disconnect import stop
from periscope.api.errors import ClientGone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Message, Scope, Send

#: The extension of a scope under which our HTTP protocol offers a `WriteFrame`.
FRAMES: Final = "periscope.frames"
#: Writes one piece of a body whose headers are sent. Does not wait; returns False, and writes nothing, where that would
#: be necessary, and then `send` has to be used. No layer learns of it: all of them look at the headers only.
WriteFrame: TypeAlias = Callable[[bytes], bool]


class FrameSender:
    """Owns what was sent of one stream. It opens after `grace_s` at the latest, and is never silent for `heartbeat_s`.

    One task at a time puts frames; signs of life are sent by a timer. `aclose` ends that.

    Args:
        opening: makes the frames that come first.
        heartbeat: makes a frame that only shows that the stream is alive.

    Attributes:
        is_open: the headers are sent, and the last frame is not.
    """

    def __init__(
        self,
        scope: Scope,
        send: Send,
        headers: Sequence[tuple[bytes, bytes]],
        opening: Callable[[], bytes],
        heartbeat: Callable[[], bytes],
        *,
        grace_s: float,
        heartbeat_s: float,
    ) -> None:
        self.is_open = False
        self._send = send
        self._write: WriteFrame | None = scope.get("extensions", {}).get(FRAMES)
        self._headers = headers
        self._opening = opening
        self._heartbeat = heartbeat
        self._heartbeat_s = heartbeat_s
        self._loop = asyncio.get_running_loop()
        self._is_sending = False
        self._ahead = b""
        self._beating: asyncio.Task[None] | None = None
        self._sent_at = self._loop.time()
        self._timer = self._loop.call_later(grace_s, self._look)

    async def open(self) -> None:
        """Send the headers, if they are not sent yet. The frames that come first are sent with the next one.

        Raises:
            ClientGone: the client has disconnected.
        """
        await self._beaten()
        if not self.is_open:
            self._ahead = await self._start()

    async def put(self, frame: bytes, *, is_last: bool = False) -> None:
        """Send a frame, once the stream is open. An empty one is none.

        Raises:
            ClientGone: the client has disconnected.
        """
        await self._beaten()
        frame, self._ahead = self._ahead + frame, b""
        if is_last:
            self.is_open = False
            self._timer.cancel()
        elif self.put_now(frame):
            return
        await self._tell({"type": "http.response.body", "body": frame, "more_body": not is_last})

    def put_now(self, frame: bytes) -> bool:
        """Send a frame if that needs no waiting. Returns False, and sends nothing, if `put` has to be used."""
        if self._ahead or self._beating is not None:
            return False
        if not frame:
            return True
        if self._write is None or not self._write(frame):
            return False
        self._sent_at = self._loop.time()
        return True

    async def aclose(self) -> None:
        """Nothing is sent by itself any more. Idempotent."""
        self._timer.cancel()
        if self._beating is not None:
            await stop(self._beating)

    async def _beaten(self) -> None:
        """Wait until a sign of life that is being sent is out."""
        if self._beating is not None:
            await asyncio.wait({self._beating})

    async def _start(self) -> bytes:
        """Send the headers. Returns the frames that come first."""
        await self._tell({"type": "http.response.start", "status": 200, "headers": self._headers})
        self.is_open = True
        return self._opening()

    async def _tell(self, message: Message) -> None:
        self._is_sending = True
        try:
            await send_or_leave(self._send, message)
        finally:
            self._is_sending = False
            self._sent_at = self._loop.time()

    def _look(self) -> None:
        """See whether a sign of life is due. A client that has yet to take a frame needs none."""
        left_s = self._sent_at + self._heartbeat_s - self._loop.time()
        if self._is_sending:
            self._timer = self._loop.call_later(self._heartbeat_s, self._look)
        elif self.is_open and left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self._beating = self._loop.create_task(self._beat(), name="heartbeat")

    async def _beat(self) -> None:
        with suppress(ClientGone):  # whoever waits for the disconnect tells it
            frame = self._heartbeat() if self.is_open else await self._start()
            await self._tell({"type": "http.response.body", "body": frame, "more_body": True})
            self._timer = self._loop.call_later(self._heartbeat_s, self._look)
        self._beating = None


async def send_or_leave(send: Send, message: Message) -> None:
    """Sends, or raises `ClientGone` if the client has disconnected."""
    try:
        await send(message)
    except OSError as error:  # ASGI 2.4: how `send` says that the client has left
        raise ClientGone from error
