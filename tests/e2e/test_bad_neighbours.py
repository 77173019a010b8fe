"""What other servers die of, sent to ours beside a running stream; and clients that leave in every phase."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import RunningServer
from tests.e2e.drawing import picture, square, user
from tests.e2e.test_serving_together import COUNT, running, streamed

HELLO = [{"role": "user", "content": "Hello!"}]
STREAM = {"messages": [COUNT], "temperature": 1, "seed": 7, "stream": True, "max_tokens": 60}
BAD: dict[str, tuple[bytes | dict[str, Any], str]] = {
    "stop is a number": ({"messages": HELLO, "stop": 5}, "stop"),
    "bias outside the vocabulary": ({"messages": HELLO, "logit_bias": {"99999999": 1}}, "logit_bias"),
    "schema that cannot be enforced": (
        {
            "messages": HELLO,
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}},
        },
        "response_format.json_schema.schema",
    ),
    "broken image": (
        {"messages": [user({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}})]},
        "messages[0].content[0]",
    ),
    "pictures where they are not read": ({"messages": [HELLO[0] | {"images": ["AAAA"]}]}, "messages[0].images"),
    "temperature is not a number": (b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}', ""),
    "max_tokens of a trillion": ({"messages": HELLO, "max_tokens": 10**12}, "max_tokens"),
    "prompt beyond the context": ({"messages": [{"role": "user", "content": "one two " * 20_000}]}, "messages"),
    "forced tool that is not offered": (
        {"messages": HELLO, "tool_choice": {"type": "function", "function": {"name": "nobody"}}},
        "tool_choice",
    ),
    "a hundred choices": ({"messages": HELLO, "n": 100}, "n"),
    "more alternatives than there are": ({"messages": HELLO, "logprobs": True, "top_logprobs": 500}, "top_logprobs"),
    "malformed JSON": (b"{not json", ""),
}


@pytest.fixture(scope="module")
def alone(server: RunningServer) -> list[str]:
    """What the neighbour's stream says while nothing else runs."""

    async def run() -> list[str]:
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
            return await streamed(client, STREAM)

    return asyncio.run(run())


async def statuses(client: httpx.AsyncClient) -> list[str]:
    """Of all requests, the oldest first."""
    return [row["status"] for row in (await client.get("/api/requests")).json()["requests"]]


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streaming"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_a_400_and_its_neighbour_never_knows(
    server: RunningServer, alone: list[str], name: str, is_stream: bool
) -> None:
    """The error names the field, the running stream's text is to the byte what it is alone, the server lives on."""
    body, param = BAD[name]
    content = body if isinstance(body, bytes) else json.dumps(body | {"stream": is_stream}).encode()

    async def run() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
            beside = asyncio.create_task(streamed(client, STREAM))
            while not await running(client):
                await asyncio.sleep(0)
            reply = await client.post("/v1/chat/completions", content=content)
            assert reply.status_code == 400, reply.text
            error = reply.json()["error"]
            assert error["type"] == "invalid_request_error"
            assert (error["param"] or "").startswith(param)
            assert await beside == alone
            health = (await client.get("/health")).json()
            assert health["status"] == "ready"

    asyncio.run(run())


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streaming"])
@pytest.mark.parametrize("phase", ["waiting for a row", "reading its prompt", "decoding", "captioning"])
def test_a_client_that_leaves_in_any_phase_leaves_nothing(server: RunningServer, phase: str, is_stream: bool) -> None:
    """Whatever a request was doing when its client went: soon afterwards nothing runs, and the next one is served."""
    long = {"messages": [COUNT], "temperature": 2, "seed": 3, "max_tokens": 1500, "logit_bias": {"0": 1}}
    by_phase: dict[str, dict[str, Any]] = {
        "waiting for a row": long,
        "reading its prompt": {"messages": [{"role": "user", "content": "one two three " * 1200}], "max_tokens": 50},
        "decoding": long,
        "captioning": {"messages": [user("What is this?", picture(square(f"#12{len(phase):02x}56", 700)))]},
    }
    leaving = by_phase[phase] | {"stream": is_stream}
    num_others = 16 if phase == "waiting for a row" else 0
    sought = {"waiting for a row": "queued", "captioning": "captioning"}.get(phase, "generating")

    async def run() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
            others = [asyncio.create_task(client.post("/v1/chat/completions", json=long)) for _ in range(num_others)]
            while (await statuses(client)).count("generating") < num_others:
                await asyncio.sleep(0)
            request = asyncio.create_task(client.post("/v1/chat/completions", json=leaving))
            while sought not in (await statuses(client))[num_others:] and not request.done():
                await asyncio.sleep(0)
            for task in (request, *others):
                task.cancel()
            async with asyncio.timeout(30):
                while await running(client) or await statuses(client):
                    await asyncio.sleep(0)
            again = await client.post("/v1/chat/completions", json={"messages": HELLO, "temperature": 0})
            assert again.status_code == 200

    asyncio.run(run())
