"""One line per request, with its id, and never what was said."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from periscope.api.wording import clip
from periscope.core import TextDelta
from periscope.errors import GenerationFailed
from tests.api.driving import FINISHED, HELLO, FakeBackend, FakeTools, app_over, client_of, in_loop, post_chat
from tests.api.exchange import Exchange
from tests.api.gates import Gate

STREAM = HELLO | {"stream": True}
SECRET = "data:image/png;base64," + "QUFB" * 100


def lines_of(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "periscope.api.request_log"]


@pytest.mark.parametrize(
    ("body", "script", "line"),
    [
        (HELLO, (FINISHED,), "status=200 * model=small error=-"),
        (STREAM, (FINISHED,), "status=200 * model=small error=-"),
        ({"messages": HELLO["messages"]}, (FINISHED,), "status=200 * model=default error=-"),
        (HELLO, (GenerationFailed("x"),), "status=500 * model=small error=generation_failed"),
        (STREAM, (TextDelta("a"), GenerationFailed("x")), "status=200 * model=small error=generation_failed"),
        (b"{", (), "status=400 * model=- error=invalid_json"),
    ],
)
@in_loop
async def test_one_line_tells_how_a_request_went(
    body: Any, script: tuple[Any, ...], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Status, model and error code; the id is the one the client got."""
    caplog.set_level(logging.INFO)
    response = await post_chat(FakeBackend(*script), body)
    (record,) = lines_of(caplog)
    message = record.getMessage()
    assert message.startswith("POST /v1/chat/completions status=")
    assert all(part in message for part in line.split(" * "))
    assert message.endswith(f"id={response.headers['x-request-id']}")
    assert record.__dict__["request_id"] == response.headers["x-request-id"]


@in_loop
async def test_what_each_client_of_mcp_tries_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """Its GET and DELETE are refused as MCP asks, and are told at debug level alone; other failures are news."""
    caplog.set_level(logging.DEBUG)
    async with client_of(FakeBackend(), mcp=FakeTools()) as client:
        for method in ("GET", "DELETE"):
            assert (await client.request(method, "/mcp")).status_code == 405
        await client.post("/mcp", content=b"{")
        await client.delete("/v1/models")
    assert [(record.levelname, record.getMessage().split(" ms=")[0]) for record in lines_of(caplog)] == [
        ("DEBUG", "GET /mcp status=405"),
        ("DEBUG", "DELETE /mcp status=405"),
        ("INFO", "POST /mcp status=400"),
        ("INFO", "DELETE /v1/models status=405"),
    ]


@in_loop
async def test_what_was_said_is_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Neither texts nor data URLs, not even in odd places; long or many-lined names are cut and flattened."""
    caplog.set_level(logging.DEBUG)
    parts = [{"type": "text", "text": "my secret"}, {"type": "image_url", "image_url": SECRET}]
    body = {"model": SECRET + "\nFAKE LINE", "messages": [{"role": "user", "content": parts}]}
    async with client_of(FakeBackend(TextDelta("my answer"), FINISHED)) as client:
        await client.post("/v1/chat/completions", json=body)
        await client.get("/" + SECRET + "%0AFAKE")
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("periscope")]
    assert len(ours) == 2
    for line in ours:
        assert "secret" not in line
        assert "answer" not in line
        assert "\n" not in line
        assert SECRET[:65] not in line


@in_loop
async def test_a_client_that_left_is_logged_as_499(caplog: pytest.LogCaptureFixture) -> None:
    """The status is nginx's number for it, whether or not the stream had begun."""
    caplog.set_level(logging.INFO)
    for script in ((), (TextDelta("a"),)):
        gate = Gate()
        exchange = Exchange(app_over(FakeBackend(*script, gate)), STREAM)
        await gate.reached.wait()
        exchange.disconnect()
        await exchange.task
    assert ["status=499" in record.getMessage() for record in lines_of(caplog)] == [True, True]


def test_clip() -> None:
    """64 characters at most, all printable."""
    assert clip("a\r\n\x1b[31m") == "a???[31m"
    assert clip("x" * 64) == "x" * 64
    assert clip("x" * 65) == "x" * 61 + "..."
