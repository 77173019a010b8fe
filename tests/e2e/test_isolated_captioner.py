"""kill -9 of a captioner's own process in mid-caption, and what the clients of the server see of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.conftest import RunningServer, start_server
from tests.e2e.drawing import circle, picture, user
from tests.e2e.test_serving_together import COUNT, streamed

PATIENCE_S = 120.0
CONFIG = """\
models:
  - name: marking
    local_path: embedded:text
    preload: true
    capabilities: {vision_mode: proxy, vision_proxy: {model: eyes}}
  - name: refusing
    local_path: embedded:text
    preload: true
    capabilities: {vision_mode: proxy, vision_proxy: {model: eyes, on_error: error}}
  - name: eyes
    local_path: embedded:captioner
    isolated: true
    preload: true
"""
#: Hundreds of tokens, the same every time.
LONG = {"messages": [COUNT], "temperature": 2, "seed": 3, "max_tokens": 600, "logit_bias": {"0": 1}, "stream": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with an isolated captioner; when it has left, so has the captioner."""
    folder = tmp_path_factory.mktemp("isolated")
    (folder / "models.yaml").write_text(CONFIG)
    running = start_server(folder / "models.yaml", log=folder / "server.log")
    yield running
    captioners = psutil.Process(running.process.pid).children()
    assert running.stop() == 0
    assert captioners
    assert not any(captioner.is_running() for captioner in captioners)


@pytest.fixture(scope="module")
def alone(server: RunningServer) -> list[str]:
    """What the long stream says while nothing else runs."""

    async def run() -> list[str]:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:
            return await streamed(client, LONG)

    return asyncio.run(run())


def captioner_of(server: RunningServer) -> psutil.Process:
    (captioner,) = psutil.Process(server.process.pid).children()
    return captioner


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def looking_at(colours: list[str], model: str) -> dict[str, Any]:
    shown = [picture(circle(colour, 200 + i)) for i, colour in enumerate(colours)]
    return {"model": model, "messages": [user(*shown, "What colour is the circle?")], "temperature": 0}


def test_a_picture_is_described_by_the_other_process(server: RunningServer) -> None:
    """To a client nothing is different; the work is done in a child of the server."""
    captioner = captioner_of(server)
    before = cpu_s(captioner)
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=looking_at(["red"], "marking"), timeout=PATIENCE_S)
    assert "red" in reply.json()["choices"][0]["message"]["content"]
    assert cpu_s(captioner) > before


@pytest.mark.parametrize(("model", "status"), [("marking", 200), ("refusing", 503)])
def test_a_captioner_killed_in_mid_caption_costs_that_caption_alone(
    server: RunningServer, alone: list[str], model: str, status: int
) -> None:
    """That request gets the marker or a 503 as is set, a text stream runs on unchanged, the next picture is seen."""

    async def run() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client, asyncio.timeout(PATIENCE_S):
            beside = asyncio.create_task(streamed(client, LONG))
            captioner = captioner_of(server)
            idle_s = cpu_s(captioner)
            many = looking_at([f"#{status % 256:02x}{shade:02x}40" for shade in range(0, 160, 20)], model)
            asking = asyncio.create_task(client.post("/v1/chat/completions", json=many))
            while cpu_s(captioner) < idle_s + 0.05:  # eight pictures take it many times as long
                await asyncio.sleep(0)
            assert not beside.done()
            os.kill(captioner.pid, signal.SIGKILL)

            reply = await asking
            assert reply.status_code == status
            if status == 200:
                assert reply.json()["periscope"]["vision"]["num_failed"] > 0
            else:
                assert "could not be described" in reply.json()["error"]["message"]
            assert await beside == alone

            while not await is_seen(client, model):
                await asyncio.sleep(0)
            assert captioner_of(server).pid != captioner.pid
            assert (await client.get("/health")).json()["status"] == "ready"

    asyncio.run(run())


async def is_seen(client: httpx.AsyncClient, model: str) -> bool:
    """A picture that the server knows no description of, until it is described."""
    body = looking_at([{"marking": "blue", "refusing": "green"}[model]], model)
    reply = await client.post("/v1/chat/completions", json=body)
    return reply.status_code == 200 and reply.json()["periscope"]["vision"]["num_failed"] == 0
