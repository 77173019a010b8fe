"""MCP servers over HTTP in the process of the test, one over stdio, and a model that plays a script."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.mcpserver import Image, MCPServer

from periscope.conversations import HttpServer, StdioServer
from periscope.core import (
    Finished,
    FinishReason,
    GenerationRequest,
    Message,
    OutputEvent,
    Role,
    TextDelta,
    TextPart,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from tests.e2e.drawing import circle, data_url

LOCAL = StdioServer("local", sys.executable, (str(Path(__file__).with_name("stdio_server.py")),))


def camera() -> MCPServer:
    """An MCP server whose screen shows a red circle."""
    server = MCPServer("camera")

    @server.tool()
    def screenshot() -> Image:
        """What is on the screen."""
        return Image(data=base64.b64decode(data_url(circle("red")).partition(",")[2]), format="png")

    return server


def asked(text: str = "Go on.") -> Message:
    return Message(Role.USER, (TextPart(text),))


def call(name: str, **arguments: Any) -> tuple[str, str]:
    """A call in a script."""
    return name, json.dumps(arguments)


@dataclass
class ScriptedModel:
    """Answers each request by the next entry of the script: a text, calls, or an error; then it says `done`."""

    script: list[Any]
    requests: list[GenerationRequest] = field(default_factory=list)
    num_open: int = 0

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[OutputEvent, None]:
        self.requests.append(request)
        self.num_open += 1
        try:
            step = self.script.pop(0) if self.script else "done"
            if isinstance(step, Exception):
                raise step
            if isinstance(step, asyncio.Event):
                yield TextDelta("so far")
                await step.wait()
                step = "done"
            if isinstance(step, str):
                yield TextDelta(step)
                yield Finished(FinishReason.STOP, Usage(10, 2))
                return
            for index, (name, arguments) in enumerate(step):
                yield ToolCallStart(index, f"call_{len(self.requests)}_{index}", name)
                yield ToolCallDelta(index, arguments)
            yield Finished(FinishReason.TOOL_CALLS, Usage(10, 2))
        finally:
            self.num_open -= 1


@dataclass
class HttpHost:
    """A listening MCP server; it can be ended and started again on its port."""

    server: Callable[[], MCPServer]
    port: int = 0
    certificate: Path | None = None
    headers: list[dict[bytes, bytes]] = field(default_factory=list)
    _uvicorn: uvicorn.Server | None = None
    _serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        inner = self.server().streamable_http_app()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            self.headers.append(dict(scope.get("headers", ())))
            await inner(scope, receive, send)

        settings = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=0, ssl_certfile=self.certificate)
        self._uvicorn = uvicorn.Server(settings)
        self._serving = asyncio.create_task(self._uvicorn._serve([listener]))
        while not self._uvicorn.started:
            await asyncio.sleep(0)

    async def stop(self) -> None:
        if self._uvicorn is None or self._serving is None:
            return
        self._uvicorn.should_exit = True
        await self._serving
        self._uvicorn = self._serving = None

    def at(self, name: str, **fields: Any) -> HttpServer:
        scheme = "https" if self.certificate else "http"
        return HttpServer(name, f"{scheme}://127.0.0.1:{self.port}/mcp", **fields)


@asynccontextmanager
async def hosting(*servers: Callable[[], MCPServer]) -> AsyncIterator[list[HttpHost]]:
    hosts = [HttpHost(server) for server in servers]
    try:
        for host in hosts:
            await host.start()
        yield hosts
    finally:
        for host in hosts:
            await host.stop()
