"""More clients with pictures than the captioner and the queues take: right answers and 503s, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import RunningServer, start_server
from tests.e2e.drawing import circle, picture, square, user

#: The demo pair with a captioner that takes four requests at once, and short queues.
CONFIG = """\
server: {limits: {max_waiting: 6, wait_timeout_s: 6s}}
models:
  - name: demo
    local_path: embedded:text
    preload: true
    params: {temperature: 0, max_num_seqs: 8}
    capabilities: {vision_mode: proxy, vision_proxy: {model: eyes, on_error: marker}}
  - name: eyes
    local_path: embedded:captioner
    preload: true
    params: {max_num_seqs: 4}
"""
NUM_CLIENTS = 32
COLOURS = ("red", "blue", "green", "orange")
PATIENCE_S = 100


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that is soon full."""
    folder = tmp_path_factory.mktemp("narrow")
    (folder / "models.yaml").write_text(CONFIG)
    running = start_server(folder / "models.yaml", log=folder / "server.log")
    yield running
    assert running.stop() == 0


def body_of(number: int) -> dict[str, Any]:
    """A question about a picture that nobody else sends."""
    draw, name = (circle, "circle") if number % 2 else (square, "square")
    question = f"What colour is the {name}?"
    return {"messages": [user(question, picture(draw(COLOURS[number // 2 % 4], 200 + number)))], "max_tokens": 30}


async def outcome(client: httpx.AsyncClient, number: int) -> str:
    """`right` or `busy`; anything else says what it was."""
    is_stream = number % 3 == 0
    async with client.stream("POST", "/v1/chat/completions", json=body_of(number) | {"stream": is_stream}) as reply:
        content = (await reply.aread()).decode()
    if reply.status_code == 503:
        error = json.loads(content)["error"]
        return "busy" if error["code"] == "server_busy" and int(reply.headers["retry-after"]) >= 1 else content
    text = streamed_text(content) if is_stream else json.loads(content)["choices"][0]["message"]["content"]
    if text is None:  # its status line was sent before its wait was over
        return "busy"
    return "right" if COLOURS[number // 2 % 4] in text and "could not" not in content else content


def streamed_text(content: str) -> str | None:
    """Of a stream; None for one that ended with `server_busy`."""
    frames = [json.loads(line[6:]) for line in content.splitlines() if line.startswith("data: {")]
    if any("error" in frame for frame in frames):
        return None if frames[-1]["error"]["code"] == "server_busy" else content
    return "".join(choice["delta"].get("content") or "" for frame in frames for choice in frame["choices"])


def test_32_clients_with_pictures_are_answered_rightly_or_told_to_come_again(narrow: RunningServer) -> None:
    """None is told that its picture could not be read; who comes again is served; then nothing runs or waits."""

    async def run() -> None:
        limits = httpx.Limits(max_connections=NUM_CLIENTS + 2)
        async with (
            asyncio.timeout(PATIENCE_S),
            httpx.AsyncClient(base_url=narrow.url, timeout=PATIENCE_S, limits=limits) as client,
        ):
            told = await asyncio.gather(*(outcome(client, number) for number in range(NUM_CLIENTS)))
            assert set(told) == {"right", "busy"}, Counter(told)
            for number in [number for number, said in enumerate(told) if said == "busy"][:4]:
                assert await outcome(client, number) == "right"
            status = (await client.get("/api/status")).json()
            assert status["requests"] == []
            assert [(model["active_requests"], model["queued"]) for model in status["models"]] == [(0, 0), (0, 0)]

    asyncio.run(run())


def test_captions_on_their_own_are_busy_too(narrow: RunningServer) -> None:
    """`/api/captions` beyond the captioner's places is 503 with `Retry-After`, and every other one has its text."""

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient(base_url=narrow.url, timeout=PATIENCE_S) as client:
            urls = [picture(square("purple", 300 + number))["image_url"]["url"] for number in range(24)]
            replies = await asyncio.gather(*(client.post("/api/captions", json={"images": [url]}) for url in urls))
            assert {reply.status_code for reply in replies} == {200, 503}
            assert all("retry-after" in reply.headers for reply in replies if reply.status_code == 503)
            said = [reply.json()["captions"][0] for reply in replies if reply.status_code == 200]
            assert all(caption["text"] and caption["error"] is None for caption in said)

    asyncio.run(run())
