"""Peers: other servers on the same model, started as their users do and measured by the same client. Event loop.

A peer that does not start, or fails later, takes no further part, and the others go on.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from periscope.bench.child import Child, child
from periscope.bench.http import HTTPContender, client_of
from periscope.errors import PeriscopeError

if TYPE_CHECKING:
    from types import TracebackType

    from periscope.bench.contenders import Ask
    from periscope.bench.samples import Batch

_START_TIMEOUT_S = 600.0
_POLL_S = 0.05
#: Limit for servers that keep their clients waiting for ever after their worker thread has died.
_MAX_SILENCE_S = 300.0
#: mlx_lm.server 0.32 has a listen backlog of five and drops some of sixteen simultaneous connections. SDKs retry, too.
_MAX_TRIES = 3
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Peer:
    """How to start a peer.

    Attributes:
        argv: its command; `{python}`, `{model}` (a folder), `{host}` and `{port}` are filled in.
        model: the model name in requests, filled in likewise.
    """

    name: str
    argv: tuple[str, ...]
    model: str = "{model}"


_WHERE = ("--model", "{model}", "--host", "{host}", "--port", "{port}")
#: The servers of packages that we depend on, which are always installed.
PEERS = (
    Peer("mlx_lm.server", ("{python}", "-m", "mlx_lm", "server", *_WHERE)),
    Peer("mlx_vlm.server", ("{python}", "-m", "mlx_vlm.server", *_WHERE)),
)


@dataclass(frozen=True, slots=True)
class PeerFailure:
    """A peer that did not take part to the end, and why."""

    name: str
    reason: str


def command_of(peer: Peer, model: Path, port: int) -> tuple[str, ...]:
    """Pure: the command that starts a peer on this port."""
    return tuple(part.format(python=sys.executable, model=model, host=_HOST, port=port) for part in peer.argv)


class PeerContender:
    """Owns a peer's server, which runs inside the context until it fails. `failure` says why; None = it has not."""

    def __init__(self, peer: Peer, model: Path) -> None:
        self.name = peer.name
        self.failure: str | None = None
        self._peer = peer
        self._model = model
        self._running = AsyncExitStack()
        self._server: Child | None = None
        self._contender: HTTPContender | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except (PeriscopeError, OSError, TimeoutError) as error:
            await self._give_up(f"did not start: {error}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._running.aclose()

    async def run(self, asks: Sequence[Ask]) -> Batch | None:
        if self._contender is None:
            return None
        try:
            return await self._contender.run(asks)
        except PeriscopeError as error:
            await self._give_up(f"failed at {len(asks)} at once: {str(error) or type(error).__name__}")
            return None

    async def _start(self) -> None:
        port = _free_port()
        self._server = await self._running.enter_async_context(
            child(command_of(self._peer, self._model, port), HF_HUB_OFFLINE="1")
        )
        self._server.drain()
        async with asyncio.timeout(_START_TIMEOUT_S):
            await _listening(self._server, port)
        client = client_of(f"http://{_HOST}:{port}", max_silence_s=_MAX_SILENCE_S)
        await self._running.enter_async_context(client)
        asked_for = self._peer.model.format(model=self._model)
        self._contender = HTTPContender(
            client,
            self._server.cpu_s,
            host_clock=self._server.host_clock,
            name=self.name,
            model=asked_for,
            max_tries=_MAX_TRIES,
        )

    async def _give_up(self, reason: str) -> None:
        """Record the failure and end the peer's process, whose remaining work would slow the others down."""
        self._contender = None
        await self._running.aclose()
        log = "" if self._server is None else await self._server.last_lines()
        self.failure = f"{reason}\n{log}".rstrip()


def _free_port() -> int:
    """A port that is free now. Needed because not every server reports a port that it chose itself."""
    with socket.socket() as one:
        one.bind((_HOST, 0))
        return int(one.getsockname()[1])


async def _listening(server: Child, port: int) -> None:
    """Wait until a server accepts connections. It may still be loading; the warm-up round waits for that.

    Raises:
        PeriscopeError: its process ended.
    """
    while not server.has_ended:
        try:
            _, writer = await asyncio.open_connection(_HOST, port)
        except OSError:
            await asyncio.sleep(_POLL_S)
        else:
            writer.close()
            await writer.wait_closed()
            return
    raise PeriscopeError("its process ended.")
