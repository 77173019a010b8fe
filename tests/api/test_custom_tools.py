"""Calls of custom tools: a text inside of JSON for the model, and a text for the client, however it is cut."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.api.custom_tools import CustomInput, as_custom_call, custom_arguments
from periscope.core import (
    Finished,
    FinishReason,
    OutputEvent,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
)
from tests.api.driving import FINISHED, HELLO, STREAM, USAGE, FakeBackend, called, client_of, in_loop

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
CUTS = st.lists(st.integers(0, 400))
CUSTOM = {"type": "custom", "custom": {"name": "say"}}


def in_pieces(arguments: str, cuts: list[int]) -> str:
    reader, bounds = CustomInput(), sorted({0, len(arguments), *(cut for cut in cuts if cut < len(arguments))})
    return "".join(reader.feed(arguments[start:end]) for start, end in itertools.pairwise(bounds))


@given(TEXTS, st.booleans(), CUTS)
def test_the_text_comes_out_as_it_was(text: str, escapes: bool, cuts: list[int]) -> None:
    """Quotes, newlines, escapes, pairs of surrogates, cut anywhere."""
    assert in_pieces(custom_arguments(text), []) == text
    assert in_pieces(json.dumps({"input": text}, ensure_ascii=escapes), cuts) == text


@given(st.text('{}": \\inputdD8cC0x\n', max_size=60), st.sampled_from(["", '{"input": "', '{"input":']), CUTS)
def test_what_is_no_such_json_is_the_same_for_any_cut(text: str, opening: str, cuts: list[int]) -> None:
    """A model may write anything; and what it writes can always be sent on, as UTF-8."""
    whole = in_pieces(opening + text, [])
    assert in_pieces(opening + text, cuts) == whole
    whole.encode()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("{}", "{}"),
        ("hello", "hello"),
        ('{"input": 5}', '{"input": 5}'),
        ('{ "input" :\n"x"} tail', "x"),
        ('{"input": "cut \\ud83d', "cut "),
        ('{"input": "\\ud83d\\ud83d\\ude00\\q"}', "\N{REPLACEMENT CHARACTER}\N{GRINNING FACE}\\q"),
    ],
)
def test_arguments_of_another_shape_are_passed_on(arguments: str, text: str) -> None:
    """The client checks the call, as it has to check every call."""
    assert in_pieces(arguments, []) == text


def pieces_of(sse: str) -> list[Any]:
    chunks = [json.loads(line.removeprefix("data: ")) for line in sse.split("\n\n") if line.startswith("data: {")]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return [piece for delta in deltas for piece in delta.get("tool_calls", [])]


@in_loop
async def test_a_call_of_a_custom_tool_has_its_text_streamed_and_whole() -> None:
    """A function's call beside it stays one; the pieces joined are the whole call."""
    script = (
        *called(0, ToolCall("call_0", "say", '{"input": "a \\"b\\"\\n"}')),
        *called(1, ToolCall("call_1", "walk", '{"input": "x"}')),
        Finished(FinishReason.TOOL_CALLS, USAGE),
    )
    fields = {"tools": [CUSTOM, {"type": "function", "function": {"name": "walk"}}, {"type": "web_search"}]}
    async with client_of(FakeBackend(*script)) as client:
        whole = (await client.post("/v1/chat/completions", json=HELLO | fields)).json()
        streamed = await client.post("/v1/chat/completions", json=STREAM | fields)
    say, walk = whole["choices"][0]["message"]["tool_calls"]
    assert say == {"id": "call_0", "type": "custom", "custom": {"name": "say", "input": 'a "b"\n'}}
    assert walk["function"] == {"name": "walk", "arguments": '{"input": "x"}'}
    first, *more = [piece for piece in pieces_of(streamed.text) if piece["index"] == 0]
    assert first == {"index": 0} | say | {"custom": {"name": "say", "input": ""}}
    assert all(piece.keys() == {"index", "custom"} for piece in more)
    assert "".join(piece["custom"]["input"] for piece in more) == 'a "b"\n'
    assert whole["periscope"] == {"left_out": ["tools[2] (web_search)"]}
    assert '"periscope":{"left_out":["tools[2] (web_search)"]}' in streamed.text


async def told(*events: OutputEvent) -> list[OutputEvent]:
    async def stream() -> AsyncGenerator[OutputEvent, None]:
        for event in events:
            yield event

    return [event async for event in as_custom_call(stream(), "say")]


@in_loop
async def test_an_answer_that_is_a_custom_call_is_told_as_one() -> None:
    """For each choice; reasoning stays what it is, and an answer that was cut off says so."""
    both = Finished(FinishReason.STOP, USAGE, other_finish_reasons=(FinishReason.LENGTH,))
    events = await told(
        ReasoningDelta("Hm"), TextDelta('a"'), TextDelta("x", choice=1), TextDelta("\n"), TextDelta(""), both
    )
    assert events[0] == ReasoningDelta("Hm")
    assert events[-1] == Finished(FinishReason.TOOL_CALLS, USAGE, other_finish_reasons=(FinishReason.LENGTH,))
    starts = [event for event in events if isinstance(event, ToolCallStart)]
    assert [(start.index, start.name, start.choice) for start in starts] == [(0, "say", 0), (0, "say", 1)]
    for choice, text in enumerate(('a"\n', "x")):
        pieces = [event for event in events if isinstance(event, ToolCallDelta) and event.choice == choice]
        assert json.loads("".join(piece.arguments for piece in pieces)) == {"input": text}


@in_loop
async def test_an_answer_without_text_is_no_call() -> None:
    """It was cut off while it was reasoning."""
    assert await told(ReasoningDelta("Hm"), FINISHED) == [ReasoningDelta("Hm"), FINISHED]


@in_loop
async def test_a_client_that_leaves_ends_the_work() -> None:
    """The answer that is told as a call is closed with the stream, wherever it is."""
    is_closed = asyncio.Event()

    async def answer() -> AsyncGenerator[OutputEvent, None]:
        try:
            while True:
                yield TextDelta("x")
        finally:
            is_closed.set()

    events = as_custom_call(answer(), "say")
    assert isinstance(await anext(events), ToolCallStart)
    await events.aclose()
    assert is_closed.is_set()
