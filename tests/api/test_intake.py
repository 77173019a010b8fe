"""A body's way in: in time, within its size, off the event loop when it is big, and let go when it was answered."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from typing import Any

import pytest
from starlette.requests import Request

from periscope.api.json_reading import read_json
from periscope.core import Finished, FinishReason, ImagePart, TextDelta, Usage
from periscope.errors import ImageInvalid
from tests.api.driving import HELLO, FakeBackend, app_over, client_of, error_of, in_loop, post_chat
from tests.api.exchange import Exchange
from tests.api.fake_control import SNAPSHOT, FakeControl
from tests.api.gates import Gate

FINISHED = Finished(FinishReason.STOP, Usage(1, 1, 0))


async def status_of(exchange: Exchange) -> tuple[int, dict[str, Any], dict[bytes, bytes]]:
    status = await exchange.status()
    return status, json.loads(await exchange.rest())["error"], dict(exchange.messages[0]["headers"])


@in_loop
async def test_a_body_that_stalls_is_given_up() -> None:
    """408 in the form of every other error, naming the setting; the connection ends with it."""
    exchange = Exchange(app_over(FakeBackend(), receive_timeout_s=0.02))
    exchange._incoming.get_nowait()
    exchange.feed(b'{"messages": [', more=True)
    status, error, headers = await status_of(exchange)
    assert (status, error["code"]) == (408, "request_timeout")
    assert "0.02 seconds" in error["message"]
    assert "server.limits.receive_timeout_s" in error["message"]
    assert headers[b"connection"] == b"close"


@in_loop
async def test_a_body_that_trickles_is_given_up() -> None:
    """Bytes that come too slowly do not keep the server waiting for ever: progress counts, not signs of life."""
    exchange = Exchange(app_over(FakeBackend(), receive_timeout_s=0.02, min_receive_rate=10**9))
    exchange._incoming.get_nowait()
    while not exchange.task.done():
        exchange.feed(b" ", more=True)
        await wait_for_receiver(exchange)
    status, error, _ = await status_of(exchange)
    assert (status, error["code"]) == (408, "request_timeout")


async def wait_for_receiver(exchange: Exchange) -> None:
    while not exchange._incoming.empty() and not exchange.task.done():
        await asyncio.sleep(0)
    await asyncio.sleep(0)


@in_loop
async def test_who_waits_for_an_answer_has_no_deadline() -> None:
    """The deadline is for the body alone: a long answer is not cut, a disconnect is still noticed."""
    gate = Gate()
    exchange = Exchange(app_over(FakeBackend(gate, FINISHED), receive_timeout_s=0.01))
    await gate.reached.wait()
    await asyncio.wait({exchange.task}, timeout=0.05)
    assert not exchange.task.done()
    gate.opened.set()
    assert await exchange.status() == 200
    await exchange.task


@in_loop
async def test_a_watcher_whose_own_body_stalls_is_left() -> None:
    """It has its stream already, so that no other answer can be given; that is no fault of ours to log."""
    exchange = Exchange(
        app_over(FakeBackend(), FakeControl(SNAPSHOT, Gate()), receive_timeout_s=0.01), method="GET", path="/api/events"
    )
    exchange._incoming.get_nowait()
    exchange.feed(b"{", more=True)
    assert await exchange.status() == 200
    await exchange.task


@in_loop
async def test_text_and_pictures_have_bounds_of_their_own() -> None:
    """A picture may be larger than all text; text may not, and is a 413 that names the limit."""
    long = "A" * 20_000
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{long}"}}
    body = {"messages": [{"role": "user", "content": [picture]}]}
    assert (await post_chat(FakeBackend(), body, max_text_bytes=1000)).status_code == 200
    for text in (long, "one two " * 2500):
        reply = await post_chat(FakeBackend(), {"messages": [{"role": "user", "content": text}]}, max_text_bytes=1000)
        assert reply.status_code == 413
        assert "1000 bytes of text" in error_of(reply)["message"]
        assert "server.limits.max_text_bytes" in error_of(reply)["message"]


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({"messages": [{}] * 10_001}, "messages", "10001 messages; at most 10000"),
        ({"messages": [{"content": [{}] * 20_001}]}, "messages", "20001 content parts; at most 20000"),
        (
            {"messages": [{"content": [{"type": "tool_result", "content": [{}] * 20_000}]}]},
            "messages",
            "20001 content parts; at most 20000",
        ),
        ({"messages": [{"tool_calls": [{}] * 20_001}]}, "messages", "20001 tool calls; at most 20000"),
        ({**HELLO, "tools": [{}] * 2001}, "tools", "2001 tools; at most 2000"),
        ({**HELLO, "stop": ["a"] * 1001}, "stop", "1001 stop strings; at most 1000"),
    ],
    ids=["messages", "parts", "nested parts", "calls", "tools", "stops"],
)
@in_loop
async def test_messages_parts_and_tools_are_counted(body: Any, param: str, told: str) -> None:
    """Before anything is made of them: the error says how many there are and how many are taken."""
    reply = await post_chat(FakeBackend(), body)
    assert reply.status_code == 400
    assert error_of(reply)["param"] == param
    assert told in error_of(reply)["message"]


@pytest.mark.parametrize("size", [10, 1_000_000])
@in_loop
async def test_a_big_body_is_parsed_and_decoded_off_the_event_loop(size: int) -> None:
    """A small one costs less than the way to a thread."""
    threads: list[threading.Thread] = []

    def decode(value: Any) -> Any:
        threads.append(threading.current_thread())
        return value

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps("a " * size).encode(), "more_body": False}

    await read_json(Request({"type": "http", "headers": []}, receive), 10**7, decode)
    assert (threads == [threading.main_thread()]) is (size == 10)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "script", [(TextDelta("a"), FINISHED), (ImageInvalid("no"),), (TextDelta("a"), ValueError("bug"))]
)
@in_loop
async def test_an_answered_request_is_let_go_at_once(script: tuple[Any, ...], stream: bool) -> None:
    """Also when it failed: no traceback keeps its pictures until the collector comes by."""
    backend = FakeBackend(*script)
    url = f"data:image/png;base64,{'B' * 10_000}"
    body = {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}],
        "stream": stream,
    }
    gc.collect()
    gc.disable()
    try:
        async with client_of(backend) as client:
            reply = await client.post("/v1/chat/completions", json=body)
        assert reply.status_code in (200, 400, 500)
        backend.requests.clear()
        backend.tasks.clear()
        backend.script = ()
        assert not [part for part in gc.get_objects() if isinstance(part, ImagePart) and part.url == url]
    finally:
        gc.enable()
