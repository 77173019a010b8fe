"""Other people's servers on the same model: as their users start them, asked by the same client. Event loop.

A peer that does not start, or fails on the way, takes no further part, and the others go on.
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

    from periscope.bench.samples import Batch

_START_TIMEOUT_S = 600.0
_POLL_S = 0.05
#: A server whose working thread has died keeps its clients waiting for ever.
_MAX_SILENCE_S = 300.0
#: mlx_lm.server 0.32 lets five connections wait, and drops some of sixteen that come at once; SDKs ask again, too.
_MAX_TRIES = 3
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Peer:
    """One of them.

    Attributes:
        argv: how it is started; `{python}`, `{model}` (a folder), `{host}` and `{port}` are filled in.
        model: what a request names, likewise.
    """

    name: str
    argv: tuple[str, ...]
    model: str = "{model}"


_WHERE = ("--model", "{model}", "--host", "{host}", "--port", "{port}")
#: Those that we depend on, so that they are always there.
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
    """Pure: how it is started on this port."""
    return tuple(part.format(python=sys.executable, model=model, host=_HOST, port=port) for part in peer.argv)


class PeerContender:
    """Owns a peer's server, which runs inside the context until it fails; then `failure` says why."""

    def __init__(self, peer: Peer, model: Path) -> None:
        self.name = peer.name
        self.failure: str | None = None
        self._peer = peer
        self._model = model
        self._running = AsyncExitStack()
        self._server: Child | None = None
        self._asked: HTTPContender | None = None

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

    async def run(self, prompts: Sequence[str], max_tokens: int) -> Batch | None:
        if self._asked is None:
            return None
        try:
            return await self._asked.run(prompts, max_tokens)
        except PeriscopeError as error:
            await self._give_up(f"failed at {len(prompts)} at once: {str(error) or type(error).__name__}")
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
        self._asked = HTTPContender(client, self._server.cpu_s, name=self.name, model=asked_for, max_tries=_MAX_TRIES)

    async def _give_up(self, reason: str) -> None:
        """Its process goes, too: what it still works on would slow the others down."""
        self._asked = None
        await self._running.aclose()
        log = "" if self._server is None else await self._server.last_lines()
        self.failure = f"{reason}\n{log}".rstrip()


def _free_port() -> int:
    """One that nobody listens on now; not every server can be asked which one it chose itself."""
    with socket.socket() as one:
        one.bind((_HOST, 0))
        return int(one.getsockname()[1])


async def _listening(server: Child, port: int) -> None:
    """Ready or nearly so: its first request may wait for the model, and belongs to the warm-up.

    Raises:
        PeriscopeError: it ended instead.
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
