"""Peers: other servers on the same model, started as their users do and measured by the same client. Event loop.

A peer that does not start, or fails later, takes no further part, and the others go on.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from periscope.bench.child import Child, child
from periscope.bench.http_contender import HTTPContender
from periscope.bench.waiting import TIME_LIMIT_S, waiting_for
from periscope.errors import PeriscopeError

if TYPE_CHECKING:
    from types import TracebackType

    from periscope.bench.contenders import Ask
    from periscope.bench.samples import Batch
    from periscope.bench.waiting import Tell

_POLL_S = 0.05
#: mlx_lm.server 0.32 has a listen backlog of five and drops some of sixteen simultaneous connections. SDKs retry, too.
_MAX_TRIES = 3
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Peer:
    """How to start a peer.

    Attributes:
        argv: its command; `{python}`, `{program}`, `{model}` (a folder, or a GGUF file), `{host}`, `{port}` and
            `{rows}` (how many requests it gets at once) are filled in.
        model: the model name in requests, filled in likewise.
        program: the command that has to be installed; None = a module of our own dependencies.
        takes_gguf: it reads GGUF files, not MLX's folders.
    """

    name: str
    argv: tuple[str, ...]
    model: str = "{model}"
    program: str | None = None
    takes_gguf: bool = False


_ADDRESS = ("--host", "{host}", "--port", "{port}")
_BATCHING = ("--continuous-batching",)
#: All of them batch. The first two are of packages that we depend on, which are always installed.
PEERS = (
    Peer("mlx_lm.server", ("{python}", "-m", "mlx_lm", "server", "--model", "{model}", *_ADDRESS)),
    Peer("mlx_vlm.server", ("{python}", "-m", "mlx_vlm.server", "--model", "{model}", *_ADDRESS)),
    Peer("vllm-mlx", ("{program}", "serve", "{model}", *_ADDRESS, *_BATCHING), program="vllm-mlx"),
    Peer("rapid-mlx", ("{program}", "serve", "{model}", *_ADDRESS, *_BATCHING), program="rapid-mlx"),
    Peer(
        "llama-server",
        ("{program}", "--model", "{model}", *_ADDRESS, "--parallel", "{rows}", "--kv-unified", "--alias", "bench"),
        model="bench",
        program="llama-server",
        takes_gguf=True,
    ),
)
#: Nobody's server: what HTTP itself costs (`periscope.bench.bare_server`).
BARE = Peer("bare HTTP", ("{python}", "-m", "periscope.bench.bare_server", "{model}", "{host}", "{port}", "{rows}"))


@dataclass(frozen=True, slots=True)
class PeerFailure:
    """A peer that did not take part to the end, and why."""

    name: str
    reason: str


def program_of(peer: Peer) -> str | None:
    """Where a peer's program is: on the PATH, or beside this Python; None if it is not installed."""
    if peer.program is None:
        return sys.executable
    beside = str(Path(sys.executable).parent)
    return shutil.which(peer.program, path=os.pathsep.join((os.environ.get("PATH", os.defpath), beside)))


def able(peers: Sequence[Peer], gguf: Path | None) -> tuple[tuple[Peer, ...], tuple[PeerFailure, ...]]:
    """The peers that can take part here, and why the others cannot.

    Args:
        gguf: the same model for peers that take GGUF files; None = there is none.
    """
    missing = {
        peer: f"there is no command {peer.program} on the PATH"
        if program_of(peer) is None
        else "it takes GGUF files: name the same model as one with --gguf"
        for peer in peers
        if program_of(peer) is None or (peer.takes_gguf and gguf is None)
    }
    left_out = tuple(PeerFailure(peer.name, f"is left out: {why}.") for peer, why in missing.items())
    return tuple(peer for peer in peers if peer not in missing), left_out


def command_of(peer: Peer, model: Path, port: int, rows: int = 1) -> tuple[str, ...]:
    """The command that starts a peer on this port."""
    known = {"python": sys.executable, "program": program_of(peer), "model": model, "host": _HOST}
    return tuple(part.format(**known, port=port, rows=rows) for part in peer.argv)


class PeerContender:
    """Owns a peer's server, which runs inside the context until it fails. `failure` says why; None = it has not.

    Args:
        model: a folder, or a GGUF file, as the peer takes it.
        rows: how many requests it gets at once, at most.
        limit_s: how long its start, and a batch, may take.
    """

    def __init__(
        self,
        peer: Peer,
        model: Path,
        *,
        rows: int = 1,
        tell: Tell = lambda _: None,
        limit_s: float = TIME_LIMIT_S,
    ) -> None:
        self.name = peer.name
        self.failure: str | None = None
        self._peer = peer
        self._model = model
        self._rows = rows
        self._tell = tell
        self._limit_s = limit_s
        self._running = AsyncExitStack()
        self._server: Child | None = None
        self._contender: HTTPContender | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except (PeriscopeError, OSError) as error:
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
            child(command_of(self._peer, self._model, port, self._rows), HF_HUB_OFFLINE="1")
        )
        self._server.drain()
        async with waiting_for(f"{self.name} to listen", self._tell, self._limit_s):
            await _listening(self._server, port)
        asked_for = self._peer.model.format(model=self._model)
        self._contender = HTTPContender(
            f"http://{_HOST}:{port}",
            self._server.cpu_s,
            host_clock=self._server.host_clock,
            name=self.name,
            model=asked_for,
            max_tries=_MAX_TRIES,
            limit_s=self._limit_s,
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
