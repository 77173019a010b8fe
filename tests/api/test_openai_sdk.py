"""The official SDK as the client: it parses our answers, streams and errors into its own types."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState

from periscope.core import (
    Finished,
    FinishReason,
    GenerationParams,
    ReasoningDelta,
    ResponseFormat,
    TextDelta,
    TokenLogprob,
    TokenText,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    Waiting,
    WaitStatus,
)
from periscope.errors import GenerationFailed, ImageRejected, RequestCancelled, ServerBusy
from tests.api.driving import FINISHED, USAGE, FakeBackend, app_over, called, in_loop


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
    call = called(0, ToolCall("call_a", "weather", '{"city":"Oslo"}'))
    backend = FakeBackend(
        Waiting(WaitStatus.WAITING_FOR_MODEL, "small", 2),
        TextDelta(""),
        Waiting(WaitStatus.LOADING, "small", 1, 0.5, 2.5),
        TextDelta("Let me "),
        TextDelta("look"),
        *call,
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
async def test_a_call_that_breaks_off_is_told_as_far_as_it_goes() -> None:
    """The SDK's accumulator gives the whole call and the broken one, and that the limit ended it; so does one reply."""
    calls = (
        *called(0, ToolCall("call_a", "weather", '{"city":"Oslo"}')),
        *called(1, ToolCall("call_b", "weather", '{"city":"Os')),
    )
    backend = FakeBackend(*calls, Finished(FinishReason.LENGTH, USAGE))
    asked: Any = {
        "model": "small",
        "messages": [{"role": "user", "content": "Weather?"}],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
    }
    async with sdk_over(backend) as sdk:
        whole = await sdk.chat.completions.create(**asked)
        chunks = [chunk async for chunk in await sdk.chat.completions.create(**asked, stream=True)]
    state: Any = ChatCompletionStreamState(input_tools=asked["tools"])
    for chunk in chunks:
        state.handle_chunk(chunk)
    for completion in (whole, state.current_completion_snapshot):
        (choice,) = completion.choices
        told = choice.message.tool_calls or []
        assert [(call.id, call.function.name, call.function.arguments) for call in told] == [
            ("call_a", "weather", '{"city":"Oslo"}'),
            ("call_b", "weather", '{"city":"Os'),
        ]
        assert choice.finish_reason == "length"
        assert not choice.message.content


@in_loop
async def test_choices_with_logprobs_and_a_schema() -> None:
    """What the SDK writes for n, logprobs, bias and a schema is taken; its accumulator gives back each choice whole."""
    ok = TokenText(3, "ok", b"ok")
    backend = FakeBackend(
        TextDelta('{"n"', (TokenLogprob(ok, -0.5, ((ok, -0.5),)),), choice=1),
        TextDelta("{}", (TokenLogprob(ok, -0.1),), choice=0),
        TextDelta(":1}", (TokenLogprob(ok, -0.2),), choice=1),
        Finished(FinishReason.STOP, USAGE, None, (FinishReason.STOP,)),
    )
    schema: dict[str, object] = {"type": "object", "properties": {"n": {"type": "integer"}}}
    asked: Any = {
        "model": "small",
        "messages": [{"role": "user", "content": "Count"}],
        "n": 2,
        "logprobs": True,
        "top_logprobs": 1,
        "logit_bias": {"3": -1},
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "count", "strict": True, "schema": schema}},
    }
    async with sdk_over(backend) as sdk:
        whole = await sdk.chat.completions.create(**asked)
        async with sdk.chat.completions.stream(**asked) as stream:
            streamed = await stream.get_final_completion()
    for completion in (whole, streamed):
        first, second = completion.choices
        assert (first.index, second.index) == (0, 1)
        assert (first.message.content, second.message.content) == ("{}", '{"n":1}')
        assert (first.finish_reason, second.finish_reason) == ("stop", "stop")
        assert second.logprobs is not None
        assert second.logprobs.content is not None
        assert [(t.token, t.logprob, t.bytes) for t in second.logprobs.content] == [
            ("ok", -0.5, [111, 107]),
            ("ok", -0.2, [111, 107]),
        ]
        assert [t.token for t in second.logprobs.content[0].top_logprobs] == ["ok"]
    (request, _) = backend.requests
    assert request.output.response_format == ResponseFormat(schema, "response_format.json_schema.schema")
    assert request.params == GenerationParams(
        logprobs=True, top_logprobs=1, logit_bias=((3, -1),), thinking_budget=1024
    )
    assert request.num_choices == 2


@in_loop
async def test_a_forced_call() -> None:
    """The SDK's named `tool_choice` reaches the backend, and an unknown name is its `BadRequestError`."""
    backend = FakeBackend(*called(0, ToolCall("call_a", "weather", "{}")), Finished(FinishReason.TOOL_CALLS, USAGE))
    asked: Any = {
        "model": "small",
        "messages": [{"role": "user", "content": "Weather?"}],
        "tools": [{"type": "function", "function": {"name": "weather"}}],
    }
    async with sdk_over(backend) as sdk:
        completion = await sdk.chat.completions.create(
            **asked, tool_choice={"type": "function", "function": {"name": "weather"}}
        )
        assert completion.choices[0].message.tool_calls is not None
        with pytest.raises(openai.BadRequestError) as bad:
            await sdk.chat.completions.create(**asked, tool_choice={"type": "function", "function": {"name": "f"}})
    assert bad.value.param == "tool_choice.function.name"
    (request,) = backend.requests
    assert request.output.tool_choice == ToolChoice(ToolChoiceMode.REQUIRED, "weather")


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
async def test_a_wait_is_an_empty_chunk_with_a_field_beside() -> None:
    """An application that prints deltas prints nothing of it; one that looks finds what is waited for."""
    waiting = Waiting(WaitStatus.QUEUED, "small", 3, eta_s=4.2)
    async with sdk_over(FakeBackend(waiting, TextDelta("Hi"), FINISHED)) as sdk:
        stream = await sdk.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hi"
    assert [chunk.model_extra for chunk in chunks if chunk.model_extra] == [
        {"periscope": {"status": "queued", "model": "small", "position": 3, "eta_s": 5}}
    ]


@in_loop
async def test_a_cancelled_request_is_not_sent_again() -> None:
    """The SDK retries 408, 409, 429 and 5xx, which would undo what the operator wanted."""
    backend = FakeBackend(RequestCancelled("Stopped."))
    async with sdk_over(backend) as sdk:
        with pytest.raises(openai.APIStatusError) as cancelled:
            await sdk.with_options(max_retries=2).chat.completions.create(
                model="small", messages=[{"role": "user", "content": "Hi"}]
            )
    assert (cancelled.value.status_code, cancelled.value.code) == (499, "request_cancelled")
    assert len(backend.requests) == 1


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
