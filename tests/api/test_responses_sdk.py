"""OpenAI's SDK as the client of `/v1/responses`: it parses our responses, events and errors into its own types."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
import pytest
from pydantic import BaseModel

from periscope.api import ApiSettings, create_app
from periscope.core import (
    Finished,
    FinishReason,
    ImagePart,
    ReasoningDelta,
    Role,
    TextDelta,
    TokenLogprob,
    TokenText,
    ToolCall,
    Usage,
    VisionUsage,
    Waiting,
    WaitStatus,
)
from periscope.errors import ContextLengthExceeded, GenerationFailed, ImageRejected, PeriscopeError, ServerBusy
from periscope.turns import TurnStore
from tests.api.driving import (
    FINISHED,
    SHORT_S,
    Exchange,
    FakeBackend,
    FakeControl,
    Gate,
    app_over,
    called,
    in_loop,
)

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


@in_loop
async def test_a_response_and_a_stream_hold_the_same_items() -> None:
    """Reasoning, a message and two calls, in the order in which the model wrote them."""
    async with sdk_over(FakeBackend(*SCRIPT)) as sdk:
        whole = await sdk.responses.create(**HELLO)
        stream, _ = await streamed(sdk)
    assert without_ids(stream.to_dict()["output"]) == without_ids(whole.to_dict()["output"])
    assert without_ids(whole.to_dict()["output"]) == [
        {
            "type": "reasoning",
            "status": "completed",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "Let me see."}],
        },
        {
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I will look.", "annotations": []}],
        },
        *(
            {"type": "function_call", "status": "completed", "call_id": call, "name": "weather", "arguments": arguments}
            for call, arguments in (("call_a", '{"city":"Oslo"}'), ("call_b", '{"city":"Rome"}'))
        ),
    ]
    for response in (whole, stream):
        assert (response.object, response.status, response.model) == ("response", "completed", "small")
        usage = response.usage
        assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (11, 6, 17)
        assert (usage.input_tokens_details.cached_tokens, usage.output_tokens_details.reasoning_tokens) == (3, 2)
        assert response.id.startswith("resp_")


@in_loop
async def test_every_field_of_a_response_is_there_and_says_what_was_asked() -> None:
    """SDKs in strict languages refuse an object that lacks one."""
    asked: Any = {
        "instructions": "Be brief.",
        "max_output_tokens": 50,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low"},
        "temperature": 0.5,
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        "tool_choice": {"type": "function", "name": "weather"},
        "tools": [WEATHER],
        "top_logprobs": 2,
        "top_p": 0.9,
        "truncation": "auto",
        "prompt_cache_key": "key",
        "safety_identifier": "me",
        "user": "you",
    }
    async with sdk_over(FakeBackend(*SCRIPT)) as sdk:
        plain = (await sdk.responses.create(**HELLO)).to_dict()
        full = (await sdk.responses.create(**HELLO | asked)).to_dict()
    extensions = {"moderation", "tool_usage", "image", "input_transformations", "prompt_cache_diagnostics"}
    optional = {"prompt_cache_options", "prompt_cache_retention", "access_programs"}
    assert set(openai.types.responses.Response.model_fields) - extensions - optional <= set(plain)
    assert plain["text"] == {"format": {"type": "text"}, "verbosity": "medium"}
    assert (plain["tool_choice"], plain["tools"], plain["truncation"]) == ("auto", [], "disabled")
    for name, value in asked.items():
        expected = {
            "reasoning": {"effort": "low", "summary": None},
            "tools": [WEATHER | {"description": None}],
        }.get(name, value)
        assert full[name] == expected, name


@in_loop
async def test_the_events_of_a_stream_come_in_openai_s_order_and_are_numbered() -> None:
    """Each item is opened, filled and closed before the next one."""
    async with sdk_over(FakeBackend(*SCRIPT)) as sdk:
        _, events = await streamed(sdk)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    told = [(event.type.removeprefix("response."), getattr(event, "output_index", None)) for event in events]
    added, done = "output_item.added", "output_item.done"
    part = "content_part.added", "content_part.done"
    assert told == [
        ("created", None),
        ("in_progress", None),
        *((kind, 0) for kind in (added, part[0], *["reasoning_text.delta"] * 2, "reasoning_text.done", part[1], done)),
        *((kind, 1) for kind in (added, part[0], *["output_text.delta"] * 2, "output_text.done", part[1], done)),
        *(
            (kind, index)
            for index in (2, 3)
            for kind in (
                added,
                *["function_call_arguments.delta"] * 2,
                "function_call_arguments.done",
                done,
            )
        ),
        ("completed", None),
    ]
    by_item = itertools.groupby((event for event in events if hasattr(event, "item_id")), key=lambda e: e.output_index)
    items = {event.output_index: event.item.id for event in events if event.type == "response.output_item.done"}
    assert all(event.item_id == items[index] for index, group in by_item for event in group)


@in_loop
async def test_reasoning_is_a_summary_where_one_is_asked_for() -> None:
    """Codex shows summaries alone. It is the whole reasoning: nothing here makes a shorter one."""
    async with sdk_over(FakeBackend(*SCRIPT)) as sdk:
        whole = await sdk.responses.create(**HELLO, reasoning={"summary": "auto"})
        stream, events = await streamed(sdk, reasoning={"summary": "auto"})
    for response in (whole, stream):
        assert response.output[0].summary[0].text == "Let me see."
        assert response.output[0].content is None
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[3:8] == [
        "reasoning_summary_part.added",
        *["reasoning_summary_text.delta"] * 2,
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
    ]


@in_loop
async def test_sealed_reasoning_comes_back_and_reaches_the_model() -> None:
    """Clients that store nothing carry it, as Codex does; what another server sealed is left out and noted."""
    backend = FakeBackend(*SCRIPT)
    async with sdk_over(backend) as sdk:
        asked: Any = {"include": ["reasoning.encrypted_content"], "store": False}
        response = await sdk.responses.create(**HELLO, **asked)
        sealed = response.output[0].to_dict()
        assert "see" not in str(sealed["encrypted_content"])
        carried = {"type": "reasoning", "summary": [], "encrypted_content": sealed["encrypted_content"]}
        foreign = carried | {"encrypted_content": "gAAAAABo"}
        for reasoning in (carried, foreign):
            turns: Any = [
                reasoning,
                {"role": "assistant", "content": "I will look."},
                {"role": "user", "content": "And?"},
            ]
            await sdk.responses.create(model="small", input=turns, store=False)
    with_it, without = (request.messages[0] for request in backend.requests[1:])
    assert (with_it.reasoning, with_it.text) == ("Let me see.", "I will look.")
    assert (without.reasoning, without.text) == (None, "I will look.")


@in_loop
async def test_the_next_request_goes_on_from_a_response_by_its_id() -> None:
    """The model reads what it read and wrote before, pictures included, without anything sent again."""
    picture = "data:image/png;base64,AAAA"
    backend = FakeBackend(TextDelta("A circle."), FINISHED)
    shown: Any = [{"role": "user", "content": [{"type": "input_image", "image_url": picture, "detail": "auto"}]}]
    async with sdk_over(backend) as sdk:
        first = await sdk.responses.create(model="small", input=shown, instructions="Be brief.")
        second = await sdk.responses.create(model="small", input="And now?", previous_response_id=first.id)
        await sdk.responses.create(model="small", input="Well?", previous_response_id=second.id)
        listed = [item async for item in sdk.responses.input_items.list(second.id, order="asc", limit=1)]
        assert (await sdk.responses.retrieve(second.id)).output_text == "A circle."
        assert second.previous_response_id == first.id
        await sdk.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(first.id)
        with pytest.raises(openai.BadRequestError, match=first.id) as gone:
            await sdk.responses.create(model="small", input="Hm", previous_response_id=second.id)
    assert (gone.value.code, gone.value.param) == ("previous_response_not_found", "previous_response_id")
    roles = [message.role for message in backend.requests[-1].messages]
    assert roles == [Role.USER, Role.ASSISTANT, Role.USER, Role.ASSISTANT, Role.USER]  # instructions hold for one turn
    assert backend.requests[-1].messages[0].parts[0] == ImagePart(picture, "previous_response_id.items[0].content[0]")
    assert [item.type for item in listed] == ["message"] * 3
    assert [getattr(item, "role", None) for item in listed] == ["user", "assistant", "user"]


@in_loop
async def test_items_that_were_sent_twice_are_listed_once() -> None:
    """Pages follow ids: a client that sends the same item again would get the same page for ever."""
    said: Any = [{"type": "message", "id": "msg_1", "role": "user", "content": "Hello"}]
    async with sdk_over(FakeBackend(TextDelta("Hi."), FINISHED)) as sdk:
        first = await sdk.responses.create(model="small", input=said)
        again = [*said, {"role": "user", "content": "And?"}]
        second = await sdk.responses.create(model="small", input=again, previous_response_id=first.id)
        listed = [item.id async for item in sdk.responses.input_items.list(second.id, order="asc", limit=1)]
    assert (len(listed), listed[0]) == (3, "msg_1")


@in_loop
async def test_items_of_stored_responses_may_be_named() -> None:
    """The AI SDK names what it got, instead of sending it; a name that is not there is told with its place."""
    backend = FakeBackend(*SCRIPT)
    async with sdk_over(backend) as sdk:
        first = await sdk.responses.create(**HELLO)
        named: Any = [{"type": "item_reference", "id": item.id} for item in first.output[:2]]
        await sdk.responses.create(model="small", input=[*named, {"role": "user", "content": "Go on"}])
        with pytest.raises(openai.BadRequestError, match="not stored here") as missing:
            await sdk.responses.create(model="small", input=[{"type": "item_reference", "id": "msg_0"}])
    assert missing.value.param == "input[0].id"
    answer = backend.requests[1].messages[0]
    assert (answer.reasoning, answer.text) == ("Let me see.", "I will look.")


@in_loop
async def test_what_is_not_to_be_stored_is_not() -> None:
    """`store: false`, an error, and an answer whose client has left."""
    async with sdk_over(FakeBackend()) as sdk:
        unstored = await sdk.responses.create(**HELLO, store=False)
        assert (unstored.model_extra or {})["store"] is False
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(unstored.id)
    async with sdk_over(FakeBackend(TextDelta("Hi"), GenerationFailed("It broke."))) as sdk:
        stream = await sdk.responses.create(**HELLO, stream=True)
        failed = await anext(event async for event in stream if event.type == "response.failed")
        with pytest.raises(openai.APIError, match="It broke"):
            await anext(aiter(stream))
        assert (failed.type, failed.response.status) == ("response.failed", "failed")
        assert failed.response.error.code == "generation_failed"
        assert failed.response.output[0].status == "incomplete"
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(failed.response.id)


@in_loop
async def test_an_answer_that_is_cut_off_is_incomplete() -> None:
    """The response and its last item, streamed or not."""
    backend = FakeBackend(TextDelta("Hi"), Finished(FinishReason.LENGTH, USAGE))
    async with sdk_over(backend) as sdk:
        whole = await sdk.responses.create(**HELLO)
        events = [event async for event in await sdk.responses.create(**HELLO, stream=True)]
    assert events[-1].type == "response.incomplete"
    for response in (whole, events[-1].response):
        assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        assert (response.output[0].status, response.completed_at) == ("incomplete", None)


@in_loop
async def test_an_answer_without_words_is_an_empty_message() -> None:
    """Code that reads the answer's text finds one."""
    async with sdk_over(FakeBackend(ReasoningDelta("Hm."), FINISHED)) as sdk:
        whole = await sdk.responses.create(**HELLO)
        stream, _ = await streamed(sdk)
    for response in (whole, stream):
        assert [item.type for item in response.output] == ["reasoning", "message"]
        assert response.output_text == ""


class Colour(BaseModel):
    name: str


@in_loop
async def test_a_schema_is_asked_for_and_parsed() -> None:
    """`responses.parse` sends it as `text.format`."""
    backend = FakeBackend(TextDelta('{"name":'), TextDelta('"red"}'), FINISHED)
    async with sdk_over(backend) as sdk:
        parsed = await sdk.responses.parse(**HELLO, text_format=Colour)
    assert parsed.output_parsed == Colour(name="red")
    form = backend.requests[0].output.response_format
    assert form is not None
    assert form.param == "text.format.schema"


@in_loop
async def test_log_probabilities_stand_beside_the_text() -> None:
    """Where they are asked for; `top_logprobs` alone asks for them, too."""
    entry = TokenLogprob(TOKEN, -0.5, ((TOKEN, -0.5), (TokenText(6, "Yo", b"Yo"), float("-inf"))))
    backend = FakeBackend(TextDelta("Hi", (entry,)), FINISHED)
    for asked in ({"include": ["message.output_text.logprobs"]}, {"top_logprobs": 2}):
        async with sdk_over(backend) as sdk:
            whole: Any = await sdk.responses.create(**HELLO, **asked)
            stream, events = await streamed(sdk, **asked)
        for response in (whole, stream):
            (told,) = response.output[0].content[0].logprobs
            assert (told.token, told.logprob, told.top_logprobs[1].logprob) == ("Hi", -0.5, -9999.0)
        assert [event.logprobs[0].token for event in events if event.type.endswith("text.done")] == ["Hi"]


@in_loop
async def test_a_request_that_waits_is_told_why_by_repeating_in_progress() -> None:
    """The SDK takes the event any number of times, so that it may hold what the request waits for, and little else."""
    waiting = Waiting(WaitStatus.LOADING, "small", progress=0.5)
    async with sdk_over(FakeBackend(waiting, TextDelta("Hi"), waiting, TextDelta("!"), FINISHED)) as sdk:
        assert (await streamed(sdk))[0].output_text == "Hi!"
    for as_comments, told in ((False, '"periscope":{"status":"loading"'), (True, ": status loading")):
        gate = Gate()
        backend = FakeBackend(waiting, gate, FINISHED)
        app = app_over(backend, commit_grace_s=SHORT_S, heartbeat_s=SHORT_S, status_as_comments=as_comments)
        long = {"instructions": "Be brief. " * 5000, "tools": [WEATHER], "metadata": {"a": "b"}}
        exchange = Exchange(app, HELLO | long | {"stream": True, "store": False}, path="/v1/responses")
        assert await exchange.status() == 200
        assert "response.created" in await exchange.frame()
        frame = await exchange.frame()
        assert told in frame
        assert len(frame) < 1500
        assert frame.startswith(":") == as_comments
        gate.opened.set()
        await exchange.rest()


@in_loop
async def test_a_client_that_leaves_ends_the_work_and_nothing_is_stored() -> None:
    """Nothing of the request stays, in the backend or in the store."""
    gate, turns = Gate(), TurnStore()
    backend = FakeBackend(TextDelta("Hi"), gate, FINISHED)
    app = create_app(backend, FakeControl(), ApiSettings(), turns=turns)
    exchange = Exchange(app, HELLO | {"stream": True}, path="/v1/responses")
    await exchange.status()
    await gate.reached.wait()
    exchange.disconnect()
    await exchange.task
    assert backend.num_open == 0
    assert await turns.items([]) == {}
    opened = await exchange.frame()
    response_id = opened.partition('"id":"')[2].partition('"')[0]
    assert not await turns.delete(response_id)
    await turns.close()


@in_loop
async def test_what_the_images_cost_stands_beside_the_usage() -> None:
    """In the response, and in the stream's last event."""
    backend = FakeBackend(
        TextDelta("Red."), Finished(FinishReason.STOP, USAGE, VisionUsage(num_images=1, caption_ms=7))
    )
    async with sdk_over(backend) as sdk:
        for told in (await sdk.responses.create(**HELLO), (await streamed(sdk))[1][-1].response):
            assert (told.model_extra or {})["periscope"]["vision"]["caption_ms"] == 7


ERRORS: list[tuple[PeriscopeError, type[openai.APIStatusError], str | None]] = [
    (ImageRejected("No images.", param="input[0].content[1]"), openai.BadRequestError, "input[0].content[1]"),
    (ContextLengthExceeded(9000, 4096), openai.BadRequestError, "input"),
    (ServerBusy("Full.", retry_after_s=7), openai.InternalServerError, None),
]


@pytest.mark.parametrize(("error", "raised", "param"), ERRORS)
@in_loop
async def test_an_error_is_raised_as_the_sdk_s_own(
    error: PeriscopeError, raised: type[openai.APIStatusError], param: str | None
) -> None:
    """With the names that fields have in this API."""
    for is_stream in (False, True):
        async with sdk_over(FakeBackend(error)) as sdk:
            with pytest.raises(raised) as failure:
                await sdk.responses.create(**HELLO, stream=is_stream)
        assert failure.value.param == param
        assert error.message in str(failure.value)


@in_loop
async def test_the_oldest_turns_are_dropped_where_the_client_allows_it() -> None:
    """`truncation: auto`: turns go as a whole until the prompt fits. One that never fits is an error in the end."""
    turns: Any = [{"role": "system", "content": "Be brief."}]
    for number in range(10):
        call = {"type": "function_call", "call_id": f"c{number}", "name": "weather", "arguments": "{}"}
        result = {"type": "function_call_output", "call_id": f"c{number}", "output": "Sunny."}
        turns += [{"role": "user", "content": f"Question {number}"}, call, result]

    class Narrow(FakeBackend):
        async def stream(self, request: Any) -> Any:
            self.requests.append(request)
            if len(request.messages) > 10:
                raise ContextLengthExceeded(len(request.messages), 10)
            yield TextDelta("Hi")
            yield FINISHED

    backend = Narrow()
    async with sdk_over(backend) as sdk:
        with pytest.raises(openai.BadRequestError):
            await sdk.responses.create(model="small", input=turns)
        response = await sdk.responses.create(model="small", input=turns, truncation="auto")
        assert response.output_text == "Hi"
        kept = backend.requests[-1].messages
        with pytest.raises(openai.BadRequestError):
            await sdk.responses.create(model="small", input=[*turns, *turns[3:4] * 20], truncation="auto")
    assert [message.role for message in kept[:4]] == [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.TOOL]
    assert (len(kept), kept[-3].text) == (4, "Question 9")


@in_loop
async def test_stored_responses_say_what_they_cannot_do() -> None:
    """Each with the way out."""
    async with sdk_over(FakeBackend()) as sdk:
        response = await sdk.responses.create(**HELLO)
        with pytest.raises(openai.BadRequestError, match="/api/requests/"):
            await sdk.responses.cancel(response.id)
        with pytest.raises(openai.BadRequestError, match="events of a response are not kept"):
            await sdk.responses.retrieve(response.id, stream=True)
        with pytest.raises(openai.BadRequestError, match="no item of this list"):
            await sdk.responses.input_items.list(response.id, after="msg_0")
        with pytest.raises(openai.BadRequestError, match="from 1 to 100"):
            await sdk.responses.input_items.list(response.id, limit=0)
        counted = await sdk.responses.input_tokens.count(**HELLO)
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", 11)
