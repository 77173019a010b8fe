"""Several choices and their log-probabilities: each in its own place, streamed or whole."""

from __future__ import annotations

import math
from typing import Any

import pytest

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
from tests.api.driving import FINISHED, HELLO, USAGE, FakeBackend, called, in_loop, post_chat
from tests.api.exchange import chunks_of, frames_of

LO, OH = TokenText(7, "lo", b"lo"), TokenText(8, "\ufffd", b"\xf0\x9f")
LOGPROBS = (TokenLogprob(LO, -0.25, ((LO, -0.25), (OH, -math.inf))), TokenLogprob(OH, -math.inf))
LO_WIRE = {"token": "lo", "logprob": -0.25, "bytes": [108, 111]}
OH_WIRE = {"token": "\ufffd", "logprob": -9999.0, "bytes": [0xF0, 0x9F]}
CONTENT_WIRE = [LO_WIRE | {"top_logprobs": [LO_WIRE, OH_WIRE]}, OH_WIRE | {"top_logprobs": []}]
CALLS = [ToolCall(f"call_{name}", name, '{"a":1}') for name in "abc"]
ENDINGS = Finished(FinishReason.STOP, USAGE, VisionUsage(1), (FinishReason.TOOL_CALLS,))
#: Two choices whose deltas alternate, the first with log-probabilities ahead of, beside and after its text.
TWO: tuple[OutputEvent, ...] = (
    Waiting(WaitStatus.LOADING),
    TextDelta("", LOGPROBS[:1], choice=0),
    ReasoningDelta("hm", choice=1),
    TextDelta("lo ", choice=0),
    TextDelta("I call", LOGPROBS[1:], choice=1),
    *called(0, CALLS[0], choice=1),
    TextDelta("there", LOGPROBS, choice=0),
    *called(1, CALLS[1], choice=1),
    TextDelta("", choice=0),
    ENDINGS,
)
STREAM = HELLO | {"stream": True, "stream_options": {"include_usage": True}}


async def whole(events: tuple[OutputEvent, ...], **fields: Any) -> dict[str, Any]:
    return dict((await post_chat(FakeBackend(*events), HELLO | fields)).json())


async def chunks(events: tuple[OutputEvent, ...], **fields: Any) -> list[dict[str, Any]]:
    response = await post_chat(FakeBackend(*events), STREAM | fields)
    assert frames_of(response.text).count("[DONE]") == 1
    return chunks_of(response.text)


def accumulated(stream: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A stream's choices as a client puts them together: a plain join of what belongs to each index."""
    choices: dict[int, dict[str, Any]] = {}
    for told in (choice for chunk in stream for choice in chunk["choices"]):
        choice = choices.setdefault(
            told["index"], {"index": told["index"], "message": {"refusal": None}, "logprobs": None}
        )
        for key, value in told["delta"].items():
            if key == "tool_calls":
                calls = choice["message"].setdefault(key, [])
                for call in value:
                    index = call.pop("index")
                    if "id" in call:
                        assert index == len(calls)
                        calls.append(call)
                    else:
                        calls[index]["function"]["arguments"] += call["function"]["arguments"]
            else:
                choice["message"][key] = choice["message"].get(key, "") + value
        if told["logprobs"] is not None:
            assert told["logprobs"]["refusal"] is None
            held = choice["logprobs"] or {"content": [], "refusal": None}
            choice["logprobs"] = held | {"content": held["content"] + told["logprobs"]["content"]}
        if told["finish_reason"] is not None:
            assert "finish_reason" not in choice
            choice["finish_reason"] = told["finish_reason"]
    return [choices[index] for index in sorted(choices)]


@pytest.mark.parametrize("fields", [{}, {"parallel_tool_calls": False}])
@in_loop
async def test_a_stream_adds_up_to_the_whole_answer(fields: dict[str, Any]) -> None:
    """Text, reasoning, calls, log-probabilities, reasons and usage are the same, whatever the transport."""
    complete, stream = await whole(TWO, n=2, **fields), await chunks(TWO, n=2, **fields)
    assert accumulated(stream) == complete["choices"]
    assert stream[-1]["choices"] == []
    assert stream[-1]["usage"] == complete["usage"]
    (vision,) = [chunk["periscope"] for chunk in stream if "vision" in chunk.get("periscope", {})]
    assert vision == complete["periscope"]


@in_loop
async def test_each_choice_has_its_own_message_and_end() -> None:
    """Nothing of one choice is seen in another, and the request's usage is told once."""
    told = await whole(TWO, n=2)
    first, second = told["choices"]
    assert (first["index"], second["index"]) == (0, 1)
    assert first["message"] == {"role": "assistant", "content": "lo there", "refusal": None}
    assert second["message"]["content"] == "I call"
    assert second["message"]["reasoning_content"] == "hm"
    assert [call["id"] for call in second["message"]["tool_calls"]] == ["call_a", "call_b"]
    assert (first["finish_reason"], second["finish_reason"]) == ("stop", "tool_calls")
    assert told["usage"]["total_tokens"] == 15


@in_loop
async def test_a_stream_of_choices_opens_and_ends_each_once() -> None:
    """Every role before any delta, every finish reason after all deltas, then usage, in the order of the choices."""
    events = (
        TextDelta("b", choice=1),
        TextDelta("a"),
        Finished(FinishReason.LENGTH, USAGE, None, (FinishReason.STOP, FinishReason.LENGTH)),
    )
    *stream, usage = await chunks(events, n=3)
    told = [(c["index"], c["delta"], c["finish_reason"]) for chunk in stream for c in chunk["choices"]]
    role = {"role": "assistant", "content": ""}
    assert told == [
        *((index, role, None) for index in range(3)),
        (1, {"content": "b"}, None),
        (0, {"content": "a"}, None),
        (0, {}, "length"),
        (1, {}, "stop"),
        (2, {}, "length"),
    ]
    assert all(len(chunk["choices"]) == 1 for chunk in stream)
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 4


@in_loop
async def test_one_tool_call_at_most_for_each_choice() -> None:
    """`parallel_tool_calls: false` takes the first call of every choice, not of the request."""
    events = (
        *called(0, CALLS[0], choice=0),
        *called(0, CALLS[1], choice=1),
        *called(1, CALLS[2], choice=0),
        Finished(FinishReason.TOOL_CALLS, USAGE, None, (FinishReason.TOOL_CALLS,)),
    )
    told = await whole(events, n=2, parallel_tool_calls=False)
    calls = [[call["id"] for call in choice["message"]["tool_calls"]] for choice in told["choices"]]
    assert calls == [["call_a"], ["call_b"]]


@in_loop
async def test_logprobs_have_openais_shape() -> None:
    """Token, number, bytes and alternatives; an impossible token has OpenAI's -9999, for JSON has no infinity."""
    (choice,) = (await whole((TextDelta("lo", LOGPROBS), FINISHED)))["choices"]
    assert choice["logprobs"] == {"content": CONTENT_WIRE, "refusal": None}


@in_loop
async def test_logprobs_come_with_the_delta_they_came_with() -> None:
    """Also when no text is ready yet; chunks without any say null."""
    events = (TextDelta("", LOGPROBS[:1]), TextDelta("lo"), TextDelta("\U0001f600", LOGPROBS[1:]), FINISHED)
    stream = await chunks(events, logprobs=True, top_logprobs=2)
    told = [(c["delta"], c["logprobs"]) for chunk in stream for c in chunk["choices"]]
    assert told == [
        ({"role": "assistant", "content": ""}, None),
        ({"content": ""}, {"content": CONTENT_WIRE[:1], "refusal": None}),
        ({"content": "lo"}, None),
        ({"content": "\U0001f600"}, {"content": CONTENT_WIRE[1:], "refusal": None}),
        ({}, None),
    ]
