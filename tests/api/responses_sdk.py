"""OpenAI's SDK over `/v1/responses`, and an answer that it can be given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai

from periscope.api import ApiSettings, create_app
from periscope.core import (
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    TokenText,
    ToolCall,
    Usage,
)
from periscope.turns import TurnStore
from tests.api.driving import FakeBackend, called
from tests.api.fake_control import FakeControl

HELLO: Any = {"model": "small", "input": "Hello"}
USAGE = Usage(num_prompt_tokens=11, num_completion_tokens=6, num_cached_tokens=3, num_reasoning_tokens=2)
WEATHER: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}
TOKEN = TokenText(5, "Hi", b"Hi")
SCRIPT = (
    ReasoningDelta("Let me "),
    ReasoningDelta("see."),
    TextDelta("I will "),
    TextDelta("look."),
    *called(0, ToolCall("call_a", "weather", '{"city":"Oslo"}')),
    *called(1, ToolCall("call_b", "weather", '{"city":"Rome"}')),
    Finished(FinishReason.TOOL_CALLS, USAGE),
)


@asynccontextmanager
async def sdk_over(backend: FakeBackend, **settings: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    turns = TurnStore()
    app = create_app(backend, FakeControl(), ApiSettings(**settings), turns=turns)
    transport = httpx2.ASGITransport(app=app)
    try:
        async with openai.AsyncOpenAI(
            api_key="key",
            base_url="http://localhost:7374/v1",
            max_retries=0,
            http_client=httpx2.AsyncClient(transport=transport),
        ) as sdk:
            yield sdk
    finally:
        await turns.close()


async def streamed(sdk: openai.AsyncOpenAI, **asked: Any) -> tuple[Any, list[Any]]:
    """The response that the SDK's accumulator makes of a stream, and the events."""
    async with sdk.responses.stream(**HELLO | asked) as stream:
        events = [event async for event in stream]
        return await stream.get_final_response(), events


def without_ids(value: Any) -> Any:
    """Without what differs from request to request, and what the SDK adds."""
    if isinstance(value, list):
        return [without_ids(each) for each in value]
    if not isinstance(value, dict):
        return value
    left_out = ("id", "parsed", "parsed_arguments")
    return {key: without_ids(each) for key, each in value.items() if key not in left_out}
