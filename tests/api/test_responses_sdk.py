"""OpenAI's SDK as the client of `/v1/responses`: it parses our responses, events and errors into its own types."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from periscope.api import ApiSettings, create_app
from periscope.core import (
    Finished,
    FinishReason,
    OutputEvent,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    TokenText,
    ToolCall,
    VisionUsage,
    Waiting,
    WaitStatus,
)
from periscope.errors import ContextLengthExceeded, ImageRejected, PeriscopeError, ServerBusy
from periscope.turns import TurnStore
from tests.api.driving import FINISHED, SHORT_S, FakeBackend, app_over, called, in_loop
from tests.api.exchange import Exchange
from tests.api.fake_control import FakeControl
from tests.api.gates import Gate
from tests.api.responses_sdk import HELLO, SCRIPT, TOKEN, USAGE, WEATHER, sdk_over, streamed, without_ids


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


def bare(*tokens: str) -> TextDelta:
    """The log-probabilities of tokens that are no text yet, or never."""
    return TextDelta("", tuple(TokenLogprob(TokenText(7, token, token.encode()), -1.0) for token in tokens))


CALL = ToolCall("call_a", "weather", "{}")
START, *ARGUMENTS = called(0, CALL)
#: What the model writes with log-probabilities -> the types of the items, and the tokens that are told of each text.
WITHOUT_TEXT: dict[str, tuple[list[OutputEvent], list[str], list[list[str]]]] = {
    "a call": ([bare("<call>"), START, bare("{"), *ARGUMENTS, bare("}")], ["function_call"], []),
    "a call without arguments": ([bare("<call>"), START, bare("</call>")], ["function_call"], []),
    "reasoning": (
        [bare("a"), ReasoningDelta("a"), bare("b"), ReasoningDelta("b"), replace(bare("Hi"), text="Hi")],
        ["reasoning", "message"],
        [["Hi"]],
    ),
    "a text of whose first character there are two tokens": (
        [bare("first"), replace(bare("second"), text="Hi"), bare("third")],
        ["message"],
        [["first", "second", "third"]],
    ),
    "a call between texts": (
        [replace(bare("Hi"), text="Hi"), bare("{"), START, *ARGUMENTS, replace(bare("Yo"), text="Yo")],
        ["message", "function_call", "message"],
        [["Hi", "{"], ["Yo"]],
    ),
    "a call that is not told, and a text": (
        [START, *ARGUMENTS, bare("<call>"), *called(1, CALL), replace(bare("Yo"), text="Yo")],
        ["function_call", "message"],
        [["Yo"]],
    ),
}


@pytest.mark.parametrize(("script", "types", "tokens"), WITHOUT_TEXT.values(), ids=WITHOUT_TEXT)
@pytest.mark.parametrize(
    "finished", [Finished(FinishReason.STOP, USAGE), Finished(FinishReason.LENGTH, USAGE)], ids=["stop", "length"]
)
@in_loop
async def test_log_probabilities_without_text_are_no_item(
    script: list[OutputEvent], types: list[str], tokens: list[list[str]], finished: Finished
) -> None:
    """The items are those of the same answer without log-probabilities, whole and streamed."""
    plain = [replace(event, logprobs=()) if isinstance(event, TextDelta) else event for event in script]
    asked: Any = {"parallel_tool_calls": False, "include": ["message.output_text.logprobs"]}
    async with sdk_over(FakeBackend(*script, finished)) as sdk:
        whole = without_ids((await sdk.responses.create(**HELLO, **asked)).to_dict()["output"])
        *_, last = [event async for event in await sdk.responses.create(**HELLO, **asked, stream=True)]
        assert without_ids(last.response.to_dict()["output"]) == whole
    async with sdk_over(FakeBackend(*plain, finished)) as sdk:
        without = without_ids((await sdk.responses.create(**HELLO, **asked)).to_dict()["output"])
    assert [item["type"] for item in whole] == types
    parts = [item["content"][0] for item in whole if item["type"] == "message"]
    assert [[entry["token"] for entry in part.pop("logprobs")] for part in parts] == tokens
    for item in without:
        if item["type"] == "message":
            del item["content"][0]["logprobs"]
    assert whole == without


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
