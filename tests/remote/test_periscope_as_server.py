"""The client against a real Periscope: what this server sends, this client reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from periscope.core import Finished, TextDelta, VisionUsage
from periscope.errors import RemoteRefused
from periscope.remote import OpenAIClient, caption
from tests.e2e.conftest import RunningServer
from tests.e2e.drawing import circle, data_url
from tests.remote.asking import HELLO, endpoint_of, read
from tests.remote.hostile import PATIENCE_S


def served(periscope: RunningServer, use: Callable[[OpenAIClient], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), OpenAIClient(endpoint_of(periscope.url)) as client:
            await use(client)

    asyncio.run(run())


def test_periscope_streams_what_it_answers_whole(periscope: RunningServer) -> None:
    """Text, reason and counts are the same, of several choices, too."""

    async def use(client: OpenAIClient) -> None:
        body = HELLO | {"temperature": 0, "n": 2}
        whole = await client.chat(body)
        *deltas, finished = await read(client, body)
        assert isinstance(finished, Finished)
        for number, choice in enumerate(whole.choices):
            texts = [delta.text for delta in deltas if isinstance(delta, TextDelta) and delta.choice == number]
            assert "".join(texts) == choice.text != ""
        assert finished.finish_reasons == tuple(choice.finish_reason for choice in whole.choices)
        assert finished.usage.num_completion_tokens == whole.usage.num_completion_tokens > 0
        assert finished.usage.num_prompt_tokens == whole.usage.num_prompt_tokens > 0
        assert finished.vision is None

    served(periscope, use)


def test_periscope_tells_what_pictures_took(periscope: RunningServer) -> None:
    """The vision usage comes along, streamed and whole, and captions are read on their own."""
    url = data_url(circle("green"))
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    body = {"messages": [{"role": "user", "content": parts}]}

    async def use(client: OpenAIClient) -> None:
        finished = (await read(client, body))[-1]
        assert isinstance(finished, Finished)
        assert finished.vision is not None
        assert finished.vision.num_images == 1
        assert (await client.chat(body)).vision == VisionUsage(num_images=1, num_cache_hits=1)
        (captioned,) = await caption(client, None, [url])
        assert "green" in (captioned.text or "")
        assert (captioned.width, captioned.height) == (240, 240)

    served(periscope, use)


def test_periscopes_models_and_refusals_are_read(periscope: RunningServer) -> None:
    """The listing's names can be asked for; others are refused with status, code and reason."""

    async def use(client: OpenAIClient) -> None:
        model, *_ = await client.list_models()
        assert model.context_length
        assert (await client.chat(HELLO | {"model": model.name})).choices[0].text
        for asked in (read(client, HELLO | {"model": "nobody"}), client.chat(HELLO | {"model": "nobody"})):
            with pytest.raises(RemoteRefused, match="nobody") as refused:
                await asked
            assert (refused.value.status, refused.value.code) == (404, "model_not_found")

    served(periscope, use)
