"""Other servers as contenders."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import psutil
import pytest

from periscope.bench.contenders import Ask
from periscope.bench.peers import BARE, PEERS, Peer, PeerContender, able, command_of
from periscope.bench.samples import Batch

MLX_LM, MLX_VLM, *OPTIONAL = PEERS
#: Ends at once; listens, but cannot chat.
ABSENT = Peer("absent", ("{python}", "-c", "raise SystemExit('no such module')"))
DEAF = Peer("deaf", ("{python}", "-m", "http.server", "--bind", "{host}", "{port}"))


def test_commands_name_the_model_and_the_port() -> None:
    """The command has model and port filled in, and braces in a path are left alone."""
    assert command_of(MLX_VLM, Path("/models/{a}"), 8000) == (
        *(sys.executable, "-m", "mlx_vlm.server", "--model", "/models/{a}"),
        *("--host", "127.0.0.1", "--port", "8000"),
    )


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the PATH with a program of each optional peer."""
    for peer in OPTIONAL:
        program = tmp_path / str(peer.program)
        program.write_text("#!/bin/sh")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


def test_optional_peers_are_started_as_their_own_pages_say(installed: Path) -> None:
    """Each by its program on the PATH, with batching on; llama.cpp's server reads a GGUF file."""
    vllm, rapid, llama = (command_of(peer, Path("/models/a"), 8000, rows=16) for peer in OPTIONAL)
    address = ("--host", "127.0.0.1", "--port", "8000")
    assert vllm == (f"{installed}/vllm-mlx", "serve", "/models/a", *address, "--continuous-batching")
    assert rapid == (f"{installed}/rapid-mlx", "serve", "/models/a", *address, "--continuous-batching")
    batching = ("--parallel", "16", "--kv-unified")
    assert llama == (f"{installed}/llama-server", "--model", "/models/a", *address, *batching, "--alias", "bench")


def test_peers_that_cannot_take_part_are_named_with_the_reason(installed: Path) -> None:
    """One that is not installed, and one that lacks its file; the others take part."""
    elsewhere = Peer("elsewhere", ("{program}",), program="no-such-program")
    peers, left_out = able((*PEERS, elsewhere), None)
    assert peers == PEERS[:4]
    assert [(one.name, one.reason) for one in left_out] == [
        ("llama-server", "is left out: it takes GGUF files: name the same model as one with --gguf."),
        ("elsewhere", "is left out: there is no command no-such-program on the PATH."),
    ]
    assert able(PEERS, installed / "model.gguf") == (PEERS, ())


@pytest.mark.parametrize("peer", [MLX_LM, BARE], ids=lambda peer: peer.name)
def test_a_peer_answers_with_its_own_processor_time(peer: Peer, tiny_random_model: Path) -> None:
    """mlx-lm's server, and the least there can be, answer on a random model, offline; their CPU time is measured."""

    async def run() -> tuple[Batch | None, str | None]:
        async with PeerContender(peer, tiny_random_model, rows=2) as contender:
            return await contender.run([Ask("about after", 5), Ask("again home and all", 5)]), contender.failure

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
