"""`GET /api/logs`."""

from __future__ import annotations

import logging

import httpx
import pytest

from periscope.api import ApiSettings, create_app
from periscope.log_tail import KEPT_LINES, LogTail
from tests.api.driving import FakeBackend, error_of, in_loop
from tests.api.fake_control import FakeControl


def client_over(tail: LogTail) -> httpx.AsyncClient:
    app = create_app(FakeBackend(), FakeControl(), ApiSettings(), log=tail)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")


@in_loop
async def test_the_newest_lines_are_listed() -> None:
    """With their numbers, so that whoever asks again gets only what is new."""
    tail = LogTail()
    for level in (logging.INFO, logging.ERROR):
        tail.handle(logging.LogRecord("periscope", level, "", 0, "it is so", (), None))
    async with client_over(tail) as client:
        first, second = (await client.get("/api/logs")).json()["lines"]
        newer = (await client.get("/api/logs", params={"after": first["id"], "lines": 5})).json()["lines"]
        errors = (await client.get("/api/logs?level=error")).json()["lines"]
    assert (first["id"], first["level"], first["text"]) == (1, "info", "it is so")
    assert newer == errors == [second]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("lines=-1", "lines"),
        (f"lines={KEPT_LINES + 1}", "lines"),
        ("after=x", "after"),
        ("level=loud", "level"),
        ("tail=5", "tail"),
    ],
)
@in_loop
async def test_what_cannot_be_meant_is_refused(query: str, param: str) -> None:
    """With the parameter and what it may be."""
    async with client_over(LogTail()) as client:
        reply = await client.get(f"/api/logs?{query}")
    assert reply.status_code == 400
    assert error_of(reply)["param"] == param
