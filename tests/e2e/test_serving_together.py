"""Many clients at once, clients that go away, and the end of the server."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.conftest import RunningServer, start_server
from tests.e2e.drawing import circle, picture, square, user

COUNT = {"role": "user", "content": "Count from 1 to 50."}


def body_of(i: int) -> dict[str, Any]:
    """Sixteen different chats, with and without pictures, short and long."""
    questions = ["What colour is the circle?", "Describe the image.", "How many shapes are there?", "Is there a star?"]
    colours = ["red", "blue", "green", "orange"]
    message = user(questions[i % 4], picture(circle(colours[i // 4], 200 + i))) if i % 3 else COUNT
    return {"messages": [message], "temperature": 0, "stream": True, "max_tokens": 10 + 2 * i}


async def streamed(client: httpx.AsyncClient, body: dict[str, Any]) -> list[str]:
    """The content deltas of one streamed completion."""
    deltas = []
    async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
        assert reply.status_code == 200
        async for line in reply.aiter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                deltas += [choice["delta"].get("content") for choice in json.loads(line[6:])["choices"]]
    return [delta for delta in deltas if delta]


def test_sixteen_clients_at_once_get_what_each_gets_alone(server: RunningServer) -> None:
    """At temperature 0 the batch changes nothing for anybody."""

    async def run() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            together = await asyncio.gather(*(streamed(client, body_of(i)) for i in range(16)))
            alone = [await streamed(client, body_of(i)) for i in range(16)]
            assert together == alone

    asyncio.run(run())


def test_health_and_models_answer_while_the_models_work(server: RunningServer) -> None:
    """A menubar app never waits for a GPU."""

    async def run() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            working = [asyncio.create_task(streamed(client, body_of(i))) for i in range(8)]
            for path in ("/health", "/v1/models", "/livez", "/readyz"):
                assert (await client.get(path)).status_code == 200
            await asyncio.gather(*working)

    asyncio.run(run())


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
def test_a_client_that_goes_away_frees_its_row(server: RunningServer, stream: bool) -> None:
    """Work stops for a closed connection: afterwards the server has no request running."""

    async def run() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            body = {"messages": [COUNT], "temperature": 1.5, "seed": 1, "stream": stream, "max_tokens": 3000}
            request = asyncio.create_task(client.post("/v1/chat/completions", json=body))
            while (await running(client)) == 0:
                await asyncio.sleep(0)
            request.cancel()
            async with asyncio.timeout(20):
                while await running(client):
                    await asyncio.sleep(0)

    asyncio.run(run())


async def running(client: httpx.AsyncClient) -> int:
    """Requests that hold a model now, as /health tells."""
    count: int = (await client.get("/health")).json()["num_running"]
    return count


def test_a_thousand_mixed_requests_leave_memory_where_it_was(server: RunningServer) -> None:
    """Pictures, texts, garbage and clients that leave: nothing of them stays."""

    async def mixed(client: httpx.AsyncClient, i: int) -> None:
        match i % 5:
            case 0:
                shown = picture(square(f"#{(i // 10 * 7919) % 0xFFFFFF:06x}", 96))  # each twice
                message = user("What is this?", shown)
                await client.post("/v1/chat/completions", json={"messages": [message], "max_tokens": 4})
            case 1:
                await client.post("/v1/chat/completions", content=b"{not json")
            case 2:
                body = {"messages": [{"role": "user", "content": f"Hello {i}"}], "max_tokens": 6, "stream": True}
                await streamed(client, body)
            case 3:
                bad = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
                await client.post("/v1/chat/completions", json={"messages": [user(bad)]})
            case _:
                async with client.stream(
                    "POST", "/v1/chat/completions", json={"messages": [COUNT], "stream": True}
                ) as reply:
                    async for _line in reply.aiter_lines():
                        break

    async def load(count: int) -> None:
        limit = asyncio.Semaphore(12)
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:

            async def one(i: int) -> None:
                async with limit:
                    await mixed(client, i)

            await asyncio.gather(*(one(i) for i in range(count)))
            async with asyncio.timeout(60):
                while await running(client):
                    await asyncio.sleep(0)

    process = psutil.Process(server.process.pid)
    asyncio.run(load(300))  # warm: caches and allocators reach their size
    before = process.memory_info().rss
    asyncio.run(load(1000))
    grown = process.memory_info().rss - before
    # Allocators breathe by about 12 MiB; a leak of one small picture a request would be ten times this bound.
    assert grown < 24 * 2**20, f"grew by {grown / 2**20:.0f} MiB from {before / 2**20:.0f} MiB"


def test_sigterm_during_a_stream_ends_the_process_with_zero(tmp_path: Path) -> None:
    """As launchd stops it: the running stream is finished or ended, the exit status is 0."""
    server = start_server(log=tmp_path / "log")
    started = threading.Event()

    def read() -> None:
        body = {"messages": [COUNT], "temperature": 0, "stream": True}
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as reply:
            for line in reply.iter_lines():
                if "content" in line:
                    started.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert started.wait(60)
    assert server.stop() == 0
    reader.join(30)
    assert not reader.is_alive()


def test_a_model_with_vision_disabled_refuses_before_any_work(tmp_path: Path) -> None:
    """The typed 400 names the part, the model and the way to enable vision."""
    config = tmp_path / "models.yaml"
    config.write_text(
        "models:\n  - name: blind\n    local_path: embedded:text\n    preload: true\n"
        "    capabilities: {vision_mode: disabled}\n"
    )
    server = start_server(config, log=tmp_path / "log")
    message = user("What colour?", picture(circle("red")))
    reply = httpx.post(f"{server.url}/v1/chat/completions", json={"messages": [message]}, timeout=60)
    assert server.stop() == 0
    error = reply.json()["error"]
    assert reply.status_code == 400
    assert (error["type"], error["code"]) == ("invalid_request_error", "image_input_unsupported")
    assert error["param"] == "messages[0].content[1]"
    assert "blind" in error["message"]
    assert "vision_mode" in error["message"]


def test_text_goes_on_when_the_captioner_cannot_load(tmp_path: Path) -> None:
    """A missing captioner costs sight, not the server: text is answered, a picture becomes a marker."""
    config = tmp_path / "models.yaml"
    config.write_text(
        "models:\n  - name: demo\n    local_path: embedded:text\n    preload: true\n"
        "    capabilities: {vision_mode: proxy, vision_proxy: {hf_id: nobody/never-downloaded}}\n"
    )
    server = start_server(config, log=tmp_path / "log")
    with httpx.Client(base_url=server.url, timeout=60) as client:
        hello = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hello!"}]})
        shown = user("What colour is the circle?", picture(circle("red")))
        seen = client.post("/v1/chat/completions", json={"messages": [shown], "temperature": 0})
        health = client.get("/health").json()
    assert server.stop() == 0
    assert hello.status_code == seen.status_code == 200
    assert seen.json()["periscope"]["vision"]["num_failed"] == 1
    assert any("never-downloaded" in problem for problem in health["problems"])
