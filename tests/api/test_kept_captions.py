"""`GET` and `DELETE /api/captions`: what is kept is told, and a flush flushes exactly what was meant."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.driving import FakeBackend, client_of, error_of, in_loop
from tests.api.fake_control import FakeControl


@in_loop
async def test_the_cache_is_told_with_the_captions_used_last() -> None:
    """Counters, the bound, the file and its state, and as many captions as are wanted."""
    control = FakeControl()
    async with client_of(FakeBackend(), control) as client:
        reply = await client.get("/api/captions", params={"limit": "5", "key": "ab1"})
        assert (await client.get("/api/captions")).status_code == 200
    assert control.commands == [("captions", 5, "ab1"), ("captions", 20, "")]
    assert reply.json() == {
        "stats": {
            "num_entries": 1,
            "num_bytes": 600,
            "max_bytes": 1024,
            "num_hits": 2,
            "num_misses": 1,
            "file": {"path": "/c/captions.sqlite3", "state": "open", "num_unwritten": 0},
        },
        "captions": [
            {
                "key": "caption/ab12/cd34",
                "text": "A red circle.",
                "num_tokens": 5,
                "elapsed_ms": 70,
                "created_at": 1.5,
                "used_at": 2.25,
            }
        ],
    }


@in_loop
async def test_a_flush_tells_how_much_it_dropped() -> None:
    """And whether the file is empty, too."""
    control = FakeControl()
    async with client_of(FakeBackend(), control) as client:
        reply = await client.delete("/api/captions")
    assert (reply.status_code, reply.json()) == (200, {"flushed": 3, "is_written": True})
    assert control.commands == [("flush_captions",)]


@pytest.mark.parametrize(
    ("method", "query", "param"),
    [
        ("GET", {"limit": "-1"}, "limit"),
        ("GET", {"limit": "1001"}, "limit"),
        ("GET", {"limit": "ten"}, "limit"),
        ("GET", {"limit": "²"}, "limit"),
        ("GET", {"limit": "9" * 5000}, "limit"),
        ("GET", {"model": "small"}, "model"),
        ("GET", {"key": ["a", "b"]}, None),
        ("DELETE", {"key": "ab12"}, "key"),
    ],
)
@in_loop
async def test_what_is_not_understood_is_refused(method: str, query: dict[str, Any], param: str | None) -> None:
    """A flush of one picture, which does not exist, must not become the flush of everything."""
    control = FakeControl()
    async with client_of(FakeBackend(), control) as client:
        reply = await client.request(method, "/api/captions", params=query)
    assert (reply.status_code, error_of(reply)["param"]) == (400, param)
    assert control.commands == []
