"""Other servers as contenders."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import psutil

from periscope.bench.contenders import Ask
from periscope.bench.peers import PEERS, Peer, PeerContender, command_of
from periscope.bench.samples import Batch

MLX_LM, MLX_VLM = PEERS
#: Ends at once; listens, but cannot chat.
ABSENT = Peer("absent", ("{python}", "-c", "raise SystemExit('no such module')"))
DEAF = Peer("deaf", ("{python}", "-m", "http.server", "--bind", "{host}", "{port}"))


def test_commands_name_the_model_and_the_port() -> None:
    """The command has model and port filled in, and braces in a path are left alone."""
    assert command_of(MLX_VLM, Path("/models/{a}"), 8000) == (
        *(sys.executable, "-m", "mlx_vlm.server", "--model", "/models/{a}"),
        *("--host", "127.0.0.1", "--port", "8000"),
    )


def test_a_peer_answers_with_its_own_processor_time(tiny_random_model: Path) -> None:
    """mlx-lm's server answers on a random model, offline, and its CPU time is measured."""

    async def run() -> tuple[Batch | None, str | None]:
        async with PeerContender(MLX_LM, tiny_random_model) as peer:
            return await peer.run([Ask("about after", 5), Ask("again home and all", 5)]), peer.failure

    batch, failure = asyncio.run(run())
    assert failure is None
    assert batch is not None
    assert [row.num_tokens for row in batch.rows] == [5, 5]
    assert batch.cpu_s is not None
    assert 0 < batch.cpu_s < 60


def test_a_peer_that_cannot_take_part_says_why_once(tmp_path: Path) -> None:
    """The failure has the end of the log, the process has ended, and the peer takes no further part."""

    async def run(peer: Peer) -> str | None:
        async with PeerContender(peer, tmp_path) as contender:
            assert [await contender.run([Ask("about", 2)]) for _ in range(2)] == [None, None]
            assert set(psutil.Process().children()) <= others
            return contender.failure

    others = set(psutil.Process().children())  # servers of other tests
    assert asyncio.run(run(ABSENT)) == "did not start: its process ended.\nno such module"
    failed = asyncio.run(run(DEAF)) or ""
    assert re.match(r"failed at 1 at once: The server at \S+ answered with status 501: \(no reason given\)\n", failed)
    assert '"POST /v1/chat/completions HTTP/1.1" 501' in failed
