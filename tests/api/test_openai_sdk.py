"""The official SDK as the client: it parses our answers, streams and errors into its own types."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest

from periscope.core import (
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Waiting,
    WaitStatus,
)
from periscope.errors import GenerationFailed, ImageRejected, ServerBusy
from tests.api.driving import FINISHED, USAGE, FakeBackend, app_over, in_loop


def sdk_over(backend: FakeBackend, **settings: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        api_key="key",
        base_url="http://localhost:7374/v1",
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app_over(backend, **settings))),
    )


@in_loop
async def test_a_completion() -> None:
    """The SDK's own types, with usage, and our field as an extra."""
    async with sdk_over(FakeBackend(ReasoningDelta("hm"), TextDelta("Hello"), FINISHED)) as sdk:
        completion = await sdk.chat.completions.create(model="small", messages=[{"role": "user", "content": "Hi"}])
    (choice,) = completion.choices
    assert choice.message.content == "Hello"
    assert choice.message.model_extra == {"reasoning_content": "hm"}
    assert choice.finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.prompt_tokens_details is not None
    assert completion.usage.prompt_tokens_details.cached_tokens == 3


@in_loop
async def test_a_stream_with_helpers() -> None:
    """The SDK's strict stream accumulator makes the same completion of our chunks, heartbeats and waits included."""
    call = ToolCallDelta(0, ToolCall("call_a", "weather", '{"city":"Oslo"}'))
    backend = FakeBackend(
        Waiting(WaitStatus.LOADING),
        TextDelta("Let me "),
        TextDelta("look"),
        call,
        Finished(FinishReason.TOOL_CALLS, USAGE),
    )
    async with (
        sdk_over(backend) as sdk,
        sdk.chat.completions.stream(
            model="small",
            messages=[{"role": "user", "content": "Weather?"}],
            stream_options={"include_usage": True},
        ) as stream,
    ):
        completion = await stream.get_final_completion()
    (choice,) = completion.choices
    assert choice.message.content == "Let me look"
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].function.arguments == '{"city":"Oslo"}'
    assert completion.usage is not None
    assert completion.usage.total_tokens == 15


@in_loop
async def test_errors_become_the_sdks_exceptions() -> None:
    """400, 401, 404 and 503 are the classes an application catches, with code and param."""
    messages: Any = [{"role": "user", "content": "Hi"}]
    async with sdk_over(FakeBackend(ImageRejected("No.", param="messages[0].content[1]"))) as sdk:
        with pytest.raises(openai.BadRequestError) as bad:
            await sdk.chat.completions.create(model="small", messages=messages)
        assert (bad.value.code, bad.value.param) == ("image_input_unsupported", "messages[0].content[1]")
        with pytest.raises(openai.NotFoundError):
            await sdk.models.retrieve("nope")
    async with sdk_over(FakeBackend(ServerBusy("Full."))) as sdk:
        with pytest.raises(openai.InternalServerError) as busy:
            await sdk.chat.completions.create(model="small", messages=messages)
        assert busy.value.code == "server_busy"
    async with sdk_over(FakeBackend(), api_key="other") as sdk:
        with pytest.raises(openai.AuthenticationError):
            await sdk.models.list()


@in_loop
async def test_an_error_in_a_stream_is_raised() -> None:
    """What failed half-way is never taken for a whole answer."""
    async with sdk_over(FakeBackend(TextDelta("Hal"), GenerationFailed("The model broke."))) as sdk:
        stream = await sdk.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        assert [(await anext(stream)).choices[0].delta.content for _ in range(2)] == ["", "Hal"]
        with pytest.raises(openai.APIError, match="The model broke"):
            await anext(stream)


@in_loop
async def test_models() -> None:
    """The SDK lists and finds models, by alias too."""
    async with sdk_over(FakeBackend()) as sdk:
        assert [model.id async for model in sdk.models.list()] == ["org/text"]
        assert (await sdk.models.retrieve("tiny/alias")).id == "org/text"
