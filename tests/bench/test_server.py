"""The server that is measured."""

from __future__ import annotations

import asyncio

import psutil
import pytest

from periscope.bench.captions import CaptionSettings, bench_caption
from periscope.bench.http import captions, client_of
from periscope.bench.pictures import picture_url
from periscope.bench.server import DEMO_PAIR, serving
from periscope.errors import PeriscopeError
from periscope.remote import kept_captions


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def test_a_server_that_cannot_start_says_why() -> None:
    """The error has the end of the log, and no process is left."""

    async def run() -> None:
        async with serving({"models": [{"name": "x", "local_path": "/nowhere", "flavour": "sweet"}]}):
            pytest.fail("it cannot start")

    before = children()
    with pytest.raises(PeriscopeError, match="flavour"):
        asyncio.run(run())
    assert children() <= before


def test_a_server_whose_model_cannot_be_loaded_says_why() -> None:
    """It stays up without the model; the benchmark does not wait for it."""

    async def run() -> None:
        async with serving({"models": [{"name": "x", "local_path": "/nowhere", "preload": True}]}):
            pytest.fail("it cannot answer")

    with pytest.raises(PeriscopeError, match="/nowhere"):
        asyncio.run(run())


def test_captions_are_measured_new_and_seen_before() -> None:
    """One and four at a time, on any server, and none gets into the user's file; a failure has the server's message."""

    async def run() -> None:
        async with serving(DEMO_PAIR) as server, client_of(server.url) as client:
            used_s = server.cpu_s()
            report = await bench_caption(CaptionSettings(url=server.url, rounds=1), lambda _: None)
            cases = [(figure.num_pictures, figure.is_cached) for figure in report.figures]
            assert cases == [(1, False), (1, True), (4, False), (4, True)]
            assert [sample.round for sample in report.samples] == [1] * 4
            assert used_s is not None
            assert (server.cpu_s() or 0) > used_s
            stats, _ = await kept_captions(client, 1, "")
            assert stats["num_entries"]
            assert stats["file"] is None
            with pytest.raises(PeriscopeError, match=r"status 404.*nobody"):
                await captions(client, [picture_url(0)], model="nobody")

    before = children()
    asyncio.run(run())
    assert children() <= before


def test_pictures_are_alike_only_by_their_key() -> None:
    """The same key gives the same picture, and other keys give others."""
    assert picture_url(1, 2) == picture_url(1, 2)
    assert len({picture_url(1, number) for number in range(20)}) == 20
