"""The API over a real socket, and the bytes of requests and answers."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn

from periscope.api.dialects import DIALECTS, DialectTable
from periscope.cli.http_bounds import HTTPBounds
from periscope.cli.http_protocol import Patience, protocol_with
from tests.api.driving import HELLO, FakeBackend, app_over

LONG = Patience(60.0, 1, 60.0)
CHAT = json.dumps(HELLO).encode()


def request(body: bytes, *headers: bytes, length: int | None = None) -> bytes:
    lines = [b"POST /v1/chat/completions HTTP/1.1", b"host: localhost", b"content-length: %d" % (length or len(body))]
    return b"\r\n".join([*lines, *headers, b"", body])


@asynccontextmanager
async def served(
    backend: FakeBackend,
    patience: Patience,
    *,
    keep_alive_s: int = 60,
    dialects: DialectTable = DIALECTS,
    bounds: HTTPBounds = HTTPBounds(),
    certificate: Path | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[str, int, uvicorn.Server]]:
    """The app over a real socket; leaving waits until every connection has ended."""
    config = uvicorn.Config(
        app_over(backend, **settings),
        http=protocol_with(patience, dialects, bounds),
        lifespan="off",
        log_config=None,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=10,
        ssl_certfile=certificate,
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    try:
        yield *listener.getsockname()[:2], server
    finally:
        await server.shutdown(sockets=[listener])


def parsed(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)
