"""Chat completions as core events, and whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from periscope.core import (
    Finished,
    FinishReason,
    OutputEvent,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    VisionUsage,
    Waiting,
    WaitStatus,
)
from periscope.errors import RemoteAnswerBroken, RemoteRefused
from periscope.remote.chat_answers import ChatStreamDecoder, read_answer

USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 2,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 1},
}


def chunk(delta: Any = None, *, finish: str | None = None, index: int = 0, **more: object) -> str:
    choices = [] if delta is None else [{"index": index, "delta": delta, "finish_reason": finish}]
    return json.dumps({"choices": choices, **more})


def call(index: int | None, *, id: str | None = None, name: str | None = None, arguments: str | None = None) -> Any:  # noqa: A002
    return {"tool_calls": [{"index": index, "id": id, "function": {"name": name, "arguments": arguments}}]}


def events_of(*chunks: str) -> list[OutputEvent]:
    decoder = ChatStreamDecoder("peer")
    return [*(event for one in chunks for event in decoder.feed(one)), decoder.finish()]


def test_a_stream_is_read_as_core_events() -> None:
    """Waiting, reasoning, text and the end come out as the service itself would have yielded them."""
    assert events_of(
        chunk({"role": "assistant", "content": ""}),
        chunk({}, periscope={"status": "loading", "model": "m", "position": 1, "progress": 0.5, "eta_s": 2}),
        chunk({}, periscope={"status": "captioning", "done": 2, "total": 3}),
        chunk({"reasoning_content": "hm"}),
        chunk({"reasoning": "so"}),
        chunk({"content": "Re"}),
        chunk({"content": "d."}),
        chunk({}, finish="stop", periscope={"vision": {"num_images": 1, "num_cache_hits": 1, "num_of_later": 9}}),
        chunk(usage=USAGE),
    ) == [
        Waiting(WaitStatus.LOADING, "m", 1, 0.5, 2),
        Waiting(WaitStatus.CAPTIONING, num_done=2, num_total=3),
        ReasoningDelta("hm"),
        ReasoningDelta("so"),
        TextDelta("Re"),
        TextDelta("d."),
        Finished(FinishReason.STOP, Usage(7, 2, 3, 1), VisionUsage(num_images=1, num_cache_hits=1)),
    ]


def test_choices_end_each_for_itself() -> None:
    """Deltas know their choice, and the end has a reason for each, whatever the order they ended in."""
    events = events_of(
        chunk({"content": "a"}, index=1),
        chunk({"content": "b"}),
        chunk({}, finish="length", index=1),
        chunk({}, finish="stop"),
    )
    assert events[:2] == [TextDelta("a", choice=1), TextDelta("b")]
    assert events[2] == Finished(FinishReason.STOP, Usage(), None, (FinishReason.LENGTH,))


CALLS: dict[str, tuple[list[Any], list[OutputEvent]]] = {
    "as OpenAI streams them": (
        [
            call(0, id="a", name="f"),
            call(0, arguments="{"),
            call(0, arguments="}"),
            call(1, id="b", name="g", arguments="{}"),
        ],
        [
            ToolCallStart(0, "a", "f"),
            ToolCallDelta(0, "{"),
            ToolCallDelta(0, "}"),
            ToolCallStart(1, "b", "g"),
            ToolCallDelta(1, "{}"),
        ],
    ),
    "all under index 0": (
        [call(0, id="a", name="f", arguments="{}"), call(0, id="b", name="g", arguments="{}")],
        [ToolCallStart(0, "a", "f"), ToolCallDelta(0, "{}"), ToolCallStart(1, "b", "g"), ToolCallDelta(1, "{}")],
    ),
    "without an index": (
        [call(None, id="a", name="f"), call(None, arguments="{}"), call(None, id="b", name="g")],
        [ToolCallStart(0, "a", "f"), ToolCallDelta(0, "{}"), ToolCallStart(1, "b", "g")],
    ),
    "a name in every piece": (
        [call(0, id="a", name="f", arguments="{"), call(0, id="a", name="f", arguments="}")],
        [ToolCallStart(0, "a", "f"), ToolCallDelta(0, "{"), ToolCallDelta(0, "}")],
    ),
    "a new id in every piece": (
        [call(3, id="a", name="f", arguments="{"), call(3, id="b", arguments="}")],
        [ToolCallStart(0, "a", "f"), ToolCallDelta(0, "{"), ToolCallDelta(0, "}")],
    ),
}


@pytest.mark.parametrize(("deltas", "events"), CALLS.values(), ids=CALLS)
def test_tool_calls_are_counted_from_0(deltas: list[Any], events: list[OutputEvent]) -> None:
    """However a server numbers their pieces."""
    told = events_of(*(chunk(delta) for delta in deltas), chunk({}, finish="tool_calls"))
    assert told == [*events, Finished(FinishReason.TOOL_CALLS, Usage())]


def test_a_call_without_an_id_gets_one() -> None:
    """The client has to answer to something."""
    start = events_of(chunk(call(0, name="f")), chunk({}, finish="tool_calls"))[0]
    assert isinstance(start, ToolCallStart)
    assert start.id


def test_a_status_of_a_later_server_is_passed_over() -> None:
    """A wait state that this client does not know is no error."""
    assert ChatStreamDecoder("peer").feed(chunk({}, periscope={"status": "dreaming", "position": 3})) == []


def test_what_is_null_or_unknown_is_no_fault() -> None:
    """Servers fill in every field, and have fields of their own."""
    nothing = dict.fromkeys(("content", "reasoning", "reasoning_content", "tool_calls", "refusal"))
    assert events_of(
        chunk({"content": "a"} | {"tool_calls": None}, usage=None, timings={"n": 1}, error=None),
        json.dumps({"choices": None}),
        chunk(nothing, finish="stop"),
        chunk(usage={"prompt_tokens": None, "prompt_tokens_details": None}),
    ) == [TextDelta("a"), Finished(FinishReason.STOP, Usage())]


def test_an_error_in_the_stream_is_raised() -> None:
    """What went wrong after the first token reaches the caller, with its code and without a status."""
    told = {"message": "the model is gone", "code": "engine_closed", "retry_after": 2}
    with pytest.raises(RemoteRefused, match="the model is gone") as refused:
        ChatStreamDecoder("peer").feed(json.dumps({"error": told}))
    assert (refused.value.code, refused.value.status, refused.value.retry_after_s) == ("engine_closed", None, 2)


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "{",
        "[]",
        "7",
        "null",
        '{"choices": 7}',
        '{"choices": [7]}',
        '{"choices": [{"index": -1}]}',
        '{"choices": [{"index": 1000000000}]}',
        '{"choices": [{"delta": {"content": ["a"]}}]}',
        '{"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "{}"}}]}}]}',
        '{"choices": [{"delta": {}, "finish_reason": "abort"}]}',
        '{"usage": {"prompt_tokens": -1}}',
        "[" * 50_000,
    ],
)
def test_what_is_no_chunk_is_a_typed_error(garbage: str) -> None:
    """Whatever a server sends, its name comes with the complaint."""
    with pytest.raises(RemoteAnswerBroken, match="peer"):
        ChatStreamDecoder("peer").feed(garbage)


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [chunk({"content": "a"})],
        [chunk({}, finish="stop"), chunk({"content": "b"}, index=1)],
        [chunk({}, finish="stop", index=1)],
    ],
)
def test_half_an_answer_is_none(chunks: list[str]) -> None:
    """Every choice has to have ended."""
    with pytest.raises(RemoteAnswerBroken, match="before it was complete"):
        events_of(*chunks)


def test_a_whole_answer_is_read() -> None:
    """Text, reasoning, calls, reason, counts."""
    message = {
        "content": None,
        "reasoning_content": "hm",
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }
    choices = [{"index": 1, "message": {"content": "b"}, "finish_reason": "stop"}]
    choices += [{"index": 0, "message": message, "finish_reason": "tool_calls"}]
    told = {"choices": choices, "usage": USAGE, "periscope": {"vision": {"num_images": 2}}}
    answer = read_answer(json.dumps(told).encode(), "peer")
    first, second = answer.choices
    assert (first.text, first.reasoning, first.tool_calls) == ("", "hm", (ToolCall("a", "f", "{}"),))
    assert (first.finish_reason, second.text) == (FinishReason.TOOL_CALLS, "b")
    assert (answer.usage, answer.vision) == (Usage(7, 2, 3, 1), VisionUsage(num_images=2))


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"<html>",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": {"content": "a"}}]}',
        b'{"choices": [{"message": {"tool_calls": [{}]}, "finish_reason": "stop"}]}',
    ],
)
def test_what_is_no_answer_is_a_typed_error(garbage: bytes) -> None:
    """As in a stream."""
    with pytest.raises(RemoteAnswerBroken, match="peer"):
        read_answer(garbage, "peer")
