"""What a connection writes: few system calls, and frames of a stream without the layers that only look at headers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import h11

from periscope.api.frames import FRAMES

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from uvicorn.protocols.http.flow_control import FlowControl

#: More is not collected, nor copied to be joined with others.
_MAX_JOINED_BYTES: Final = 16 * 1024


class JoinedWrites(asyncio.Transport):
    """Owns what a connection has yet to hand to its transport. Event loop only.

    While writes are held, small ones are collected; `release` writes them at once. Everything else is passed on.
    """

    def __init__(self, below: asyncio.Transport) -> None:
        super().__init__()
        self._below = below
        self._held: list[bytes] = []
        self._num_held_bytes = 0
        self._is_holding = False

    def hold(self) -> None:
        """Collect writes until `release`, which the caller calls in the same turn of the loop."""
        self._is_holding = True

    def hold_for_now(self) -> None:
        """Collect what is written until whoever writes now waits for something."""
        if not self._is_holding:
            self._is_holding = True
            asyncio.get_running_loop().call_soon(self.release)

    def release(self) -> None:
        """Write what was collected. Idempotent."""
        self._is_holding = False
        self._write_held()

    def write(self, data: Any) -> None:
        if not self._is_holding:
            self._below.write(data)
            return
        if self._num_held_bytes + len(data) > _MAX_JOINED_BYTES:  # the transport has to learn how much there is
            self._write_held()
        if len(data) > _MAX_JOINED_BYTES:
            self._below.write(data)
        else:
            self._held.append(data)
            self._num_held_bytes += len(data)

    def _write_held(self) -> None:
        if self._held:
            held, self._held, self._num_held_bytes = b"".join(self._held), [], 0
            self._below.write(held)

    def close(self) -> None:
        self.release()
        self._below.close()

    def abort(self) -> None:
        self._held.clear()
        self._below.abort()

    def is_closing(self) -> bool:
        return self._below.is_closing()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._below.get_extra_info(name, default)


def joining(app: ASGIApp, conn: h11.Connection, transport: JoinedWrites, flow: FlowControl) -> ASGIApp:
    """The app, whose answers take few writes: what it sends with the headers in one turn of the loop is one.

    Frames of a stream may go by `FRAMES` straight into the transport. h11 needs not know: in an answer whose length is
    open, a chunk changes nothing in its state.
    """

    def write_chunk(piece: bytes) -> bool:
        if conn.our_state is not h11.SEND_BODY or flow.write_paused:
            return False
        if piece:  # a chunk of no bytes would be the end
            transport.hold_for_now()  # tokens that come together are written together
            transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        return True

    async def joined(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_joined(message: Message) -> None:
            if message["type"] == "http.response.start":
                transport.hold_for_now()
                await send(message)
            elif message.get("more_body", False):
                await send(message)
            else:
                transport.hold()
                try:
                    await send(message)
                finally:
                    transport.release()

        if scope["http_version"] == "1.1" and scope["method"] != "HEAD":
            scope["extensions"] = {FRAMES: write_chunk}
        await app(scope, receive, send_joined)

    return joined
