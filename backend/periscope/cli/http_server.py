"""The HTTP server of `periscope serve`: uvicorn, without its logging, its signal handlers, and what we do not speak."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from periscope.cli.http_protocol import Patience, protocol_with
from periscope.cli.stopping import DRAIN_S

if TYPE_CHECKING:
    from periscope.config import ServerLimits

#: Longer than clients keep an idle connection (httpx: 5 s), so that no request meets a connection being closed.
_KEEP_ALIVE_S = 75


class HTTPServer(uvicorn.Server):
    """Owns the connections of all listeners.

    Args:
        tls: for listeners with a port; a Unix socket never has TLS.
        handshake_timeout_s: how long a client may take before TLS is set up.
    """

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None, handshake_timeout_s: float) -> None:
        super().__init__(config)
        self._tls = tls
        self._handshake_timeout_s = handshake_timeout_s

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours: uvicorn (0.54) raises them again after the shutdown, so that SIGTERM ends with 143."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections. Uvicorn (0.54) would have TLS on every listener or on none, Unix sockets included."""
        await super().startup(sockets=[])
        loop = asyncio.get_running_loop()
        kind: Any = self.config.http_protocol_class
        protocol = partial(
            kind,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        for listener in sockets or []:
            if listener.family == socket.AF_UNIX:
                server = await loop.create_unix_server(protocol, sock=listener, backlog=self.config.backlog)
            else:
                server = await loop.create_server(
                    protocol,
                    sock=listener,
                    backlog=self.config.backlog,
                    ssl=self._tls,
                    ssl_handshake_timeout=None if self._tls is None else self._handshake_timeout_s,
                )
            self.servers.append(server)


def http_server(app: Any, limits: ServerLimits, tls: ssl.SSLContext | None = None) -> HTTPServer:
    """The server of this app; `serve(sockets)` runs it."""
    patience = Patience(limits.receive_timeout_s, limits.min_receive_rate, limits.send_timeout_s)
    config = uvicorn.Config(
        app,
        loop="none",
        http=protocol_with(patience),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(DRAIN_S),
    )
    return HTTPServer(config, tls, limits.receive_timeout_s)
