"""Anthropic's official SDK as the client: it parses our messages, events and errors into its own types."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anthropic
import httpx2
import pytest

from periscope.core import (
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    Usage,
    VisionUsage,
    Waiting,
    WaitStatus,
)
from periscope.errors import ContextLengthExceeded, GenerationFailed, ImageRejected, PeriscopeError, ServerBusy
from tests.api.driving import CARD, FINISHED, SHORT_S, USAGE, FakeBackend, app_over, called, in_loop
from tests.api.exchange import Exchange
from tests.api.gates import Gate

HELLO: Any = {"model": "small", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}
THINKING: Any = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
CALLS = (
    ReasoningDelta("Let me "),
    ReasoningDelta("see."),
    TextDelta("I will "),
    TextDelta("look."),
    *called(0, ToolCall("call_a", "weather", '{"city":"Oslo"}')),
    *called(1, ToolCall("call_b", "weather", '{"city":"Rome"}')),
    Finished(FinishReason.TOOL_CALLS, USAGE),
)


def sdk_over(backend: FakeBackend, **settings: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(
        api_key="key",
        base_url="http://localhost:7374",
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app_over(backend, **settings))),
    )


async def streamed(sdk: anthropic.AsyncAnthropic, **asked: Any) -> Any:
    """The message that the SDK's accumulator makes of a stream."""
    async with sdk.messages.stream(**HELLO | asked) as stream:
        return await stream.get_final_message()


@in_loop
async def test_a_message_and_a_stream_hold_the_same_blocks() -> None:
    """Thinking, text and two calls, in the order in which the model wrote them; usage splits off what a cache had."""
    async with sdk_over(FakeBackend(*CALLS)) as sdk:
        whole = await sdk.messages.create(**HELLO | THINKING)
        stream = await streamed(sdk, **THINKING)
    for message in (whole, stream):
        thinking, text, *calls = message.content
        assert (thinking.type, thinking.thinking) == ("thinking", "Let me see.")
        assert thinking.signature
        assert (text.type, text.text) == ("text", "I will look.")
        assert [(call.type, call.id, call.name, call.input) for call in calls] == [
            ("tool_use", "call_a", "weather", {"city": "Oslo"}),
            ("tool_use", "call_b", "weather", {"city": "Rome"}),
        ]
        assert (message.role, message.model, message.stop_reason) == ("assistant", "small", "tool_use")
        usage = message.usage
        assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (8, 3, 4)
    assert whole.id.startswith("msg_")


@in_loop
async def test_reasoning_is_told_only_to_clients_that_asked_for_it() -> None:
    """Code that reads `content[0].text` works with a model that always reasons."""
    async with sdk_over(FakeBackend(*CALLS)) as sdk:
        for asked in ({}, {"thinking": {"type": "disabled"}}, {"thinking": {"type": "adaptive", "display": "omitted"}}):
            message = await sdk.messages.create(**HELLO | asked)
            assert message.content[0].type == "text"
            assert (await streamed(sdk, **asked)).content[0].type == "text"


@in_loop
async def test_without_parallel_calls_the_first_is_the_only_one() -> None:
    """`disable_parallel_tool_use` holds for models that make several calls all the same."""
    tools = [{"name": "weather", "input_schema": {"type": "object"}}]
    asked = {"tools": tools, "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
    async with sdk_over(FakeBackend(*CALLS)) as sdk:
        for message in (await sdk.messages.create(**HELLO | asked), await streamed(sdk, **asked)):
            assert [block.id for block in message.content if block.type == "tool_use"] == ["call_a"]


@pytest.mark.parametrize(
    ("finished", "reason", "sequence"),
    [
        (Finished(FinishReason.STOP, Usage()), "end_turn", None),
        (Finished(FinishReason.STOP, Usage(), stop_string="\n\n"), "stop_sequence", "\n\n"),
        (Finished(FinishReason.LENGTH, Usage()), "max_tokens", None),
        (Finished(FinishReason.TOOL_CALLS, Usage(), stop_string="\n\n"), "tool_use", None),
    ],
)
@in_loop
async def test_the_reason_of_the_end_is_told(finished: Finished, reason: str, sequence: str | None) -> None:
    """A stop sequence is named, streamed or not."""
    async with sdk_over(FakeBackend(TextDelta("Hi"), finished)) as sdk:
        for message in (await sdk.messages.create(**HELLO), await streamed(sdk)):
            assert (message.stop_reason, message.stop_sequence) == (reason, sequence)


@pytest.mark.parametrize("arguments", ['{"city":"Os', '["Oslo"]'])
@in_loop
async def test_arguments_that_are_no_object_are_not_taken_for_an_empty_one(arguments: str) -> None:
    """A tool that needs nothing would run if the input were `{}`."""
    backend = FakeBackend(*called(0, ToolCall("call_a", "weather", arguments)), FINISHED)
    async with sdk_over(backend) as sdk:
        message = await sdk.messages.create(**HELLO)
    assert message.content[0].type == "tool_use"
    assert message.content[0].input == {"_invalid_json": arguments}


@in_loop
async def test_a_text_block_says_nothing_of_citations() -> None:
    """The AI SDK takes a list of them or none, and refuses a whole answer with a null there."""
    async with sdk_over(FakeBackend(TextDelta("Hi"), FINISHED)) as sdk:
        whole = await sdk.messages.create(**HELLO)
        events = [event async for event in await sdk.messages.create(**HELLO, stream=True)]
    started = next(event.content_block for event in events if event.type == "content_block_start")
    for block in (whole.content[0], started):
        assert "citations" not in block.model_fields_set


@in_loop
async def test_what_the_images_cost_stands_beside_the_usage() -> None:
    """In the message, and in the stream's last but one event."""
    vision = VisionUsage(num_images=1, caption_ms=7)
    backend = FakeBackend(TextDelta("Red."), Finished(FinishReason.STOP, USAGE, vision))
    async with sdk_over(backend) as sdk:
        whole = await sdk.messages.create(**HELLO)
        events = [event async for event in await sdk.messages.create(**HELLO, stream=True)]
    for told in (whole, events[-2]):
        assert (told.model_extra or {})["periscope"]["vision"]["caption_ms"] == 7


@in_loop
async def test_tools_that_were_not_offered_stand_in_the_answer() -> None:
    """Those that Anthropic would run: the turn goes on without them, and whoever looks sees why none was used."""
    tools: Any = [{"type": "web_search_20250305", "name": "web_search"}, {"name": "read", "input_schema": {}}]
    async with sdk_over(FakeBackend()) as sdk:
        whole = await sdk.messages.create(**HELLO, tools=tools)
        events = [event async for event in await sdk.messages.create(**HELLO, tools=tools, stream=True)]
    for told in (whole, events[-2]):
        assert (told.model_extra or {})["periscope"] == {"left_out": ["tools[0] (web_search_20250305)"]}


@in_loop
async def test_the_events_of_a_stream_come_in_anthropic_s_order() -> None:
    """Each block is opened, filled and closed under its index before the next one; a thinking block ends signed."""
    async with sdk_over(FakeBackend(*CALLS)) as sdk:
        events = [event async for event in await sdk.messages.create(**HELLO | THINKING, stream=True)]
    deltas = [getattr(event, "delta", None) for event in events]
    told = [
        (event.type, getattr(event, "index", None), getattr(delta, "type", None))
        for event, delta in zip(events, deltas, strict=True)
    ]
    block = "content_block_start", "content_block_delta", "content_block_stop"
    assert told == [
        ("message_start", None, None),
        (block[0], 0, None),
        *[(block[1], 0, "thinking_delta")] * 2,
        (block[1], 0, "signature_delta"),
        (block[2], 0, None),
        (block[0], 1, None),
        *[(block[1], 1, "text_delta")] * 2,
        (block[2], 1, None),
        *(
            event
            for index in (2, 3)
            for event in (
                (block[0], index, None),
                *[(block[1], index, "input_json_delta")] * 2,
                (block[2], index, None),
            )
        ),
        ("message_delta", None, None),
        ("message_stop", None, None),
    ]


@in_loop
async def test_a_request_that_waits_is_told_why_in_pings() -> None:
    """The SDK passes over pings, so that they may hold what the request waits for; comments do by setting."""
    waiting = Waiting(WaitStatus.LOADING, "small", progress=0.5)
    async with sdk_over(FakeBackend(waiting, TextDelta("Hi"), FINISHED)) as sdk:
        assert (await streamed(sdk)).content[0].text == "Hi"
    for as_comments, told in ((False, '"periscope":{"status":"loading"'), (True, ": status loading")):
        gate = Gate()
        app = app_over(
            FakeBackend(waiting, gate, FINISHED),
            commit_grace_s=SHORT_S,
            heartbeat_s=SHORT_S,
            status_as_comments=as_comments,
        )
        exchange = Exchange(app, HELLO | {"stream": True}, path="/v1/messages")
        assert await exchange.status() == 200
        assert "message_start" in await exchange.frame()
        frame = await exchange.frame()
        assert told in frame
        assert frame.startswith(":") == as_comments
        gate.opened.set()
        await exchange.rest()


ERRORS: list[tuple[PeriscopeError, type[anthropic.APIStatusError], str]] = [
    (ImageRejected("No images.", param="messages[0].content[1]"), anthropic.BadRequestError, "invalid_request_error"),
    (ContextLengthExceeded(9000, 4096), anthropic.BadRequestError, "invalid_request_error"),
    (ServerBusy("Full.", retry_after_s=7), anthropic.ServiceUnavailableError, "overloaded_error"),
    (GenerationFailed("It broke."), anthropic.InternalServerError, "api_error"),
]


@pytest.mark.parametrize(("error", "raised", "kind"), ERRORS)
@in_loop
async def test_an_error_is_raised_as_the_sdk_s_own_with_the_request_s_id(
    error: PeriscopeError, raised: type[anthropic.APIStatusError], kind: str
) -> None:
    """Before the first event it has its status; later it is an `error` event, after which nothing comes."""
    async with sdk_over(FakeBackend(error)) as sdk:
        with pytest.raises(raised) as failure:
            await sdk.messages.create(**HELLO)
    body: Any = failure.value.body
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert error.message in body["error"]["message"]
    assert body["error"].get("param") == getattr(error, "param", None)
    assert body["request_id"] == failure.value.request_id == failure.value.response.headers["x-request-id"]

    async with sdk_over(FakeBackend(TextDelta("Hi"), error)) as sdk:
        with pytest.raises(anthropic.APIStatusError) as failure:
            await streamed(sdk)
    body = failure.value.body
    assert (body["type"], body["error"]["type"]) == ("error", kind)


@in_loop
async def test_a_prompt_that_is_too_long_is_told_in_the_words_that_claude_code_looks_for() -> None:
    """It shortens the conversation then; any other words end the session."""
    async with sdk_over(FakeBackend(ContextLengthExceeded(9000, 4096))) as sdk:
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long: The prompt has 9000 tokens"):
            await sdk.messages.create(**HELLO)


@in_loop
async def test_models_are_listed_in_anthropic_s_shape_and_claude_stands_for_one_of_them() -> None:
    """The list is for clients that send its version header; a name of Anthropic's is answered by the stand-in."""
    backend = FakeBackend()
    async with sdk_over(backend) as sdk:
        (listed,) = [model async for model in sdk.models.list()]
        claude = await sdk.models.retrieve("claude-opus-4-8")
        with pytest.raises(anthropic.NotFoundError):
            await sdk.models.retrieve("gpt-4")
    assert (listed.id, listed.max_input_tokens) == (CARD.name, CARD.context_length)
    assert listed.capabilities is not None
    assert listed.capabilities.image_input.supported
    assert (claude.id, claude.display_name) == ("claude-opus-4-8", CARD.name)


@in_loop
async def test_a_model_is_listed_under_its_claude_alias_too() -> None:
    """Claude Code and Claude Desktop show no other names."""
    backend = FakeBackend()
    backend.cards = (replace(CARD, aliases=("small", "claude-mine")),)
    async with sdk_over(backend) as sdk:
        listed = [(model.id, model.display_name) async for model in sdk.models.list()]
    assert listed == [("org/text", "org/text"), ("claude-mine", "org/text")]


@pytest.mark.parametrize(
    ("asked", "stand_in", "answers"),
    [
        ("claude-opus-4-8", None, "default"),
        ("claude-opus-4-8", "org/text", "org/text"),
        ("claude-mine", "other", "claude-mine"),
        ("small", "other", "small"),
        ("gpt-4", "other", "gpt-4"),
    ],
)
@in_loop
async def test_a_claude_model_is_answered_by_the_stand_in(asked: str, stand_in: str | None, answers: str) -> None:
    """Names and aliases of models.yaml go first; the answer has the name that the client asked for."""
    backend = FakeBackend()
    backend.cards = (CARD, replace(CARD, name="mine", aliases=("claude-mine",)))
    async with sdk_over(backend, anthropic_model=stand_in) as sdk:
        message = await sdk.messages.create(**HELLO | {"model": asked})
    assert message.model == asked
    assert backend.requests[0].model == answers
