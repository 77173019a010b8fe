"""The HTTP server of `periscope serve`: uvicorn, without its logging, its signal handlers, and what we do not speak."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from periscope.cli.http_bounds import HTTPBounds
from periscope.cli.http_protocol import Patience, protocol_with
from periscope.cli.stopping import DRAIN_S

if TYPE_CHECKING:
    from periscope.config import ServerLimits

#: Of the process beside its connections: weights, caches, pictures, logs.
_NUM_OTHER_FILES = 512


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
    _allow_files(limits.max_connections + _NUM_OTHER_FILES)
    bounds = HTTPBounds(
        limits.max_header_bytes, limits.max_headers, limits.max_connections, limits.max_connections_per_client
    )
    patience = Patience(limits.receive_timeout_s, limits.min_receive_rate, limits.send_timeout_s)
    config = uvicorn.Config(
        app,
        loop="none",
        http=protocol_with(patience, bounds=bounds),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=limits.keep_alive_s,  # type: ignore[arg-type]  # it is only a delay
        timeout_graceful_shutdown=int(DRAIN_S),
    )
    return HTTPServer(config, tls, limits.receive_timeout_s)


def _allow_files(num: int) -> None:
    """Let the process have this many files open: macOS allows 256 at first, less than there may be connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = num if hard == resource.RLIM_INFINITY else min(num, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
