"""The demo text model looks again at a picture while it answers, asked by the official SDK, streamed and not."""

from __future__ import annotations

import asyncio
from typing import Any

import openai

from tests.config.files import load_text
from tests.e2e.drawing import circle, picture, user
from tests.e2e.in_process import served

PATIENCE_S = 100
PAIR = """\
models:
- name: demo
  local_path: embedded:text
  params: {temperature: 0}
  capabilities: {vision_mode: proxy, vision_proxy: {model: eyes, reader: none, max_looks: 1}}
- {name: eyes, local_path: 'embedded:captioner'}
"""


def test_the_demo_model_looks_again() -> None:
    """It calls the server's tool, reads what the captioner says, and answers; SDKs see an answer like any other."""

    async def test() -> None:
        async with (
            asyncio.timeout(PATIENCE_S),
            served(load_text(PAIR)) as (_, port),
            openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none") as sdk,
        ):
            messages: Any = [user(picture(circle("red")), "Use look for image 1")]
            whole = await sdk.chat.completions.create(model="demo", messages=messages, max_tokens=80)
            (choice,) = whole.choices
            assert "red circle" in (choice.message.content or "")
            assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)
            assert whole.model_extra is not None
            vision = whole.model_extra["periscope"]["vision"]
            assert (vision["num_images"], vision["num_looks"]) == (1, 1)
            assert whole.usage is not None
            assert whole.usage.prompt_tokens_details is not None
            # Of two rounds: most of the second prompt was computed in the first.
            assert (whole.usage.prompt_tokens_details.cached_tokens or 0) > whole.usage.prompt_tokens * 0.4
            stream = await sdk.chat.completions.create(
                model="demo", messages=messages, max_tokens=80, stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
            assert text == choice.message.content
            assert not any(chunk.choices and chunk.choices[0].delta.tool_calls for chunk in chunks)
            reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
            assert list(filter(None, reasons)) == ["stop"]
            assert chunks[-1].usage is not None
            assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
            assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens

    asyncio.run(test())
