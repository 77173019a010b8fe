"""What a client sent is let go once it is words: looked for in the server's own memory, in the middle of an answer."""

from __future__ import annotations

import asyncio
import json
import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.e2e.drawing import picture, user
from tests.e2e.in_process import served

PATIENCE_S = 100
#: Of pixels in each picture; its base64 is a third more.
PICTURE_BYTES = 3 * 1200 * 1200


def request_of(body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def look_at_one(port: int) -> None:
    """Whatever describes and reads pictures is loaded with the first one."""
    body = {"messages": [user("What is this?", picture(Image.new("RGB", (1200, 1200), "red"), "BMP"))], "max_tokens": 1}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200


@contextmanager
def traced() -> Iterator[None]:
    """Python counts the bytes of every object made in here; what loads the models would be slow with it."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("is_stream", [True, False], ids=["streaming", "whole"])
def test_pictures_are_gone_from_memory_while_the_answer_is_generated(is_stream: bool) -> None:
    """Neither base64 nor bytes nor pixels of two large pictures are held by anything once they are described."""

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), served() as (runtime, port):
            await look_at_one(port)
            with traced():
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                shown = [
                    picture(Image.frombytes("RGB", (1200, 1200), os.urandom(PICTURE_BYTES)), "BMP") for _ in range(2)
                ]
                endless = {"temperature": 1.0, "seed": 1, "max_tokens": 3000, "logit_bias": {"0": -100, "2": -100}}
                content = request_of(endless | {"stream": is_stream, "messages": [user("Tell me a story.", *shown)]})
                num_before = tracemalloc.get_traced_memory()[0] - len(content)
                num_before -= sum(len(each["image_url"]["url"]) for each in shown)
                writer.write(content)
                del shown, content
                await writer.drain()
                tracemalloc.reset_peak()
                while not any(row.status == "generating" for row in runtime.control.requests()):
                    await asyncio.sleep(0.01)
                assert tracemalloc.get_traced_memory()[1] - num_before > 2 * PICTURE_BYTES, "they were never there"
                while tracemalloc.get_traced_memory()[0] - num_before > PICTURE_BYTES // 2:
                    assert runtime.control.requests(), "held to the end of the answer"
                    await asyncio.sleep(0.01)  # a thread that worked on them may hold them for a moment longer
                (row,) = runtime.control.requests()
                assert (row.status, row.num_images) == ("generating", 2)
                writer.close()
                await writer.wait_closed()
                while runtime.control.requests():
                    await asyncio.sleep(0.01)

    asyncio.run(run())
