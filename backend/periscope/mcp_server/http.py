"""The tools over HTTP, one JSON-RPC request at a time, by the SDK's transport without sessions. Event loop only.

The SDK is asked for plain JSON: streams, heartbeats, disconnects and the end of the server are the HTTP side's, as for
every other route. It is imported by the first request, since that takes longer than the rest of a start.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from periscope.core import McpProgress, McpReply, McpRequest
from periscope.mcp_server.exchange import Exchange

if TYPE_CHECKING:
    from periscope.mcp_server.folders import AllowedFolders
    from periscope.mcp_server.sight import Sight
    from periscope.mcp_server.tools import ImageServer

#: The transport answers in JSON all the same; without events it refuses a subscription by its header, without a word.
_HEADERS: Final = (
    (b"content-type", b"application/json"),
    (b"accept", b"application/json, text/event-stream"),
)


class HttpTools:
    """Owns the SDK's server, which keeps nothing from one request to the next. Any number of them may run at once."""

    def __init__(self, sight: Sight, folders: AllowedFolders) -> None:
        self._sight = sight
        self._folders = folders
        self._server: ImageServer | None = None

    async def answer(self, request: McpRequest) -> AsyncGenerator[McpProgress | McpReply, None]:
        """Any number of `McpProgress`, then `McpReply`. Closing it ends the call at any await."""
        server = await self._loaded()
        told: asyncio.Queue[McpProgress | None] = asyncio.Queue()
        serving = asyncio.create_task(_served(server, request, told.put_nowait), name="answer an agent")
        serving.add_done_callback(lambda _: told.put_nowait(None))
        try:
            while (progress := await told.get()) is not None:
                yield progress
            yield serving.result()
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    async def _loaded(self) -> ImageServer:
        if self._server is None:
            tools = await asyncio.to_thread(import_module, "periscope.mcp_server.tools")
            self._server = self._server or tools.image_server(self._sight, self._folders)
        return self._server


async def _served(server: ImageServer, request: McpRequest, tell: Callable[[McpProgress], None]) -> McpReply:
    """What the SDK answers, whose tasks have all ended then."""
    pieces = [json.dumps(request.message).encode()]
    status, body = 500, b""

    async def receive() -> MutableMapping[str, Any]:
        if not pieces:  # a disconnect cancels the task
            await asyncio.Event().wait()
        return {"type": "http.request", "body": pieces.pop(), "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status, body
        status = message.get("status", status)
        body += message.get("body", b"")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/mcp",
        "query_string": b"",
        "headers": [*_HEADERS, *request.headers],
        **Exchange(request.image, tell).scope,
    }
    transport = server.transport()
    async with transport.run():
        await transport.handle_request(scope, receive, send)
    return McpReply(status, body)
