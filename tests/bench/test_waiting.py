"""What a benchmark waits for is limited, and told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from periscope.bench.contenders import Ask
from periscope.bench.http_contender import HTTPContender
from periscope.bench.peers import Peer, PeerContender
from periscope.bench.waiting import told, waiting_for, within
from periscope.errors import PeriscopeError
from tests.remote.hostile import hostile

#: Starts, and never listens.
MUTE = Peer("mute", ("{python}", "-c", "import threading; threading.Event().wait()"))


def test_what_takes_too_long_is_given_up_by_name() -> None:
    """The error says what was waited for, and how long."""

    async def run() -> None:
        async with waiting_for("the cows to come home", lambda _: None, 0.01):
            await asyncio.Event().wait()

    with pytest.raises(PeriscopeError, match=r"Waited 0\.01 s for the cows to come home, and gave up"):
        asyncio.run(run())


def test_a_time_out_of_something_else_stays_what_it_is() -> None:
    """Only the limit's own expiry is told as such."""

    async def run() -> None:
        async with within(60, "nothing"):
            raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        asyncio.run(run())


def test_a_long_wait_is_told_again_and_again() -> None:
    """What is waited for, and for how long by now; nothing once it is over."""
    lines: list[str] = []
    enough = asyncio.Event()

    def tell(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            enough.set()

    async def run() -> None:
        async with told("the kettle", tell, every_s=0.25):
            await enough.wait()

    asyncio.run(run())
    assert lines == ["waiting for the kettle, for 0.25 s now", "waiting for the kettle, for 0.5 s now"]


def test_a_server_that_never_answers_is_given_up() -> None:
    """The batch has a limit of its own, whatever the server does."""

    async def run() -> None:
        async with hostile([b""], holds_on=True) as server:
            await HTTPContender(server.url, lambda: None, limit_s=0.2).run([Ask("about", 2)])

    with pytest.raises(PeriscopeError, match=r"Waited 0\.2 s for http with 1 at once"):
        asyncio.run(run())


def test_a_peer_that_never_listens_is_left_behind(tmp_path: Path) -> None:
    """Its failure says what was waited for; the others go on."""

    async def run() -> str | None:
        async with PeerContender(MUTE, tmp_path, limit_s=2) as peer:
            assert await peer.run([Ask("about", 2)]) is None
            return peer.failure

    assert (asyncio.run(run()) or "").startswith("did not start: Waited 2 s for mute to listen, and gave up.")
