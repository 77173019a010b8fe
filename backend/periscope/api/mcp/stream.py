"""The answer to an agent's request: JSON if it comes soon, else events with progress and heartbeats before it.

Agents take either. A client that has gone ends the call at any await, as for every other stream: MCP would let a call
go on for a client that resumes its stream, but no stream is kept here.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from periscope.api.disconnect import while_connected
from periscope.api.error_replies import error_object, let_go
from periscope.api.errors import CUT_OFF, ClientGone
from periscope.api.feed import EventFeed
from periscope.api.frames import send_or_leave
from periscope.api.record import record_of
from periscope.api.replies import dump_json
from periscope.api.sse import LAST_FRAME_S, STREAM_HEADERS, comment_frame
from periscope.core import JSONObject, McpProgress, McpReply
from periscope.errors import PeriscopeError, ServerStopping

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from periscope.api.mcp.decode import McpCall
    from periscope.api.settings import ApiSettings

logger = logging.getLogger(__name__)

_JSON: Final = {"content-type": "application/json"}


class McpStream(Response):
    """Response that runs a call and sends what comes of it. Owns the generator; a disconnect ends it at any await."""

    def __init__(
        self,
        call: McpCall,
        events: AsyncGenerator[McpProgress | McpReply, None],
        settings: ApiSettings,
        *,
        headers: Mapping[str, str],
        takes_events: bool,
    ) -> None:
        self.status_code = 200
        self.background = None
        self._own_headers = headers
        self._call = call
        self._events = events
        self._heartbeat_s = settings.heartbeat_s
        self._grace_s = min(settings.commit_grace_s, settings.heartbeat_s) if takes_events else None
        self._is_open = False  # the headers of a stream are sent, and its last frame is not

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the call until it ends or its client disconnects.

        Raises:
            ClientGone: the client disconnected; all work has ended.
            asyncio.CancelledError: the server stops; all work has ended, and the client was told so.
        """
        try:
            await while_connected(self._run(scope, send), receive)
        except asyncio.CancelledError:
            with suppress(TimeoutError, ClientGone):
                async with asyncio.timeout(LAST_FRAME_S):
                    await self._finish(self._failure(ServerStopping(CUT_OFF), scope), send)
            raise

    async def _run(self, scope: Scope, send: Send) -> None:
        async with EventFeed(self._events) as feed:
            event = await self._soon(feed, scope)
            while not isinstance(event, McpReply):
                if not self._is_open:
                    await self._start(200, STREAM_HEADERS, send)
                    self._is_open = True
                await send_or_leave(send, {"type": "http.response.body", "body": self._frame(event), "more_body": True})
                event = await self._next(feed, self._heartbeat_s, scope)
        await self._finish(event, send)

    async def _soon(self, feed: EventFeed[McpProgress | McpReply], scope: Scope) -> McpProgress | McpReply | None:
        """The reply if it comes within the grace, or whenever it comes to a client that takes no events.

        Else the newest progress, if there is any.
        """
        now = asyncio.get_running_loop().time
        deadline = None if self._grace_s is None else now() + self._grace_s
        newest: McpProgress | None = None
        while deadline is None or now() < deadline:
            event = await self._next(feed, None if deadline is None else deadline - now(), scope)
            if isinstance(event, McpReply):
                return event
            newest = event or newest
        return newest

    async def _next(
        self, feed: EventFeed[McpProgress | McpReply], timeout_s: float | None, scope: Scope
    ) -> McpProgress | McpReply | None:
        """The next event; an error becomes a reply."""
        try:
            return await feed.next(timeout_s)
        except Exception as error:
            if not isinstance(error, PeriscopeError):
                logger.exception("unexpected error in a call", extra={"request_id": record_of(scope).id})
            reply = self._failure(error, scope)
            let_go(error)
            return reply

    def _failure(self, error: Exception, scope: Scope) -> McpReply:
        return McpReply(200, dump_json(error_object(error, scope) | {"id": self._call.id}))

    def _frame(self, event: McpProgress | None) -> bytes:
        """A notification for whoever asked for them, else a sign of life."""
        if event is None or self._call.progress_token is None:
            return comment_frame("keep-alive")
        params: JSONObject = {
            "progressToken": self._call.progress_token,
            "progress": round(event.elapsed_s, 3),
            "message": event.message,
        }
        return _message(dump_json({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}))

    async def _start(self, status: int, headers: Mapping[str, str], send: Send) -> None:
        raw = [(name.encode(), value.encode()) for name, value in {**headers, **self._own_headers}.items()]
        await send_or_leave(send, {"type": "http.response.start", "status": status, "headers": raw})

    async def _finish(self, reply: McpReply, send: Send) -> None:
        if self._is_open:
            body = _message(reply.body)
        else:
            body = reply.body
            await self._start(reply.status, _JSON | {"content-length": str(len(body))}, send)
        self._is_open = False
        await send_or_leave(send, {"type": "http.response.body", "body": body, "more_body": False})


def _message(body: bytes) -> bytes:
    """One event. In its JSON is no character at which a client could end the line."""
    return b"event: message\ndata: " + dump_json(json.loads(body)) + b"\n\n"
