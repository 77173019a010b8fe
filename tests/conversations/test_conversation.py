"""The loop of a conversation, with Python functions as tools and a model that plays a script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from periscope.conversations import (
    CallOutcome,
    CallStarted,
    ConversationOptions,
    ConversationResult,
    ExecutedCall,
    ResponsesSession,
    StopReason,
    TurnStarted,
)
from periscope.core import GenerationParams, ImagePart, Role, TextDelta, ToolChoice, ToolChoiceMode
from periscope.errors import ConfigError, GenerationFailed, ImageInvalid, InvalidRequest
from periscope.serving.generation import LocalGenerator
from tests.api.driving import in_loop
from tests.conversations.driving import ScriptedModel, asked, call


def double(number: Annotated[int, Field(description="What is doubled.", ge=0)]) -> int:
    """Twice a number."""
    return 2 * number


def shout(word: str, times: int = 1) -> str:
    """Says a word aloud."""
    return f"{word.upper()}!" * times


def draw() -> ImagePart:
    """Draws."""
    return ImagePart("data:image/png;base64,AAAA", "the result of draw")


def fail() -> None:
    """Fails."""
    raise RuntimeError("no luck")


async def talk(
    script: list[Any], *functions: Callable[..., Any], options: ConversationOptions = ConversationOptions()
) -> tuple[ConversationResult, ScriptedModel]:
    model = ScriptedModel(script)
    async with ResponsesSession(model, functions=functions) as session:
        return await session.run_conversation([asked()], options), model


@in_loop
async def test_functions_are_offered_by_their_signatures_and_run() -> None:
    """Name, docstring and annotations become the tool; results follow their calls, in order."""
    told, model = await talk([[call("double", number=4), call("shout", word="hey", times=2)]], double, shout)
    offered = model.requests[0].output.tools
    assert [(tool.name, tool.description) for tool in offered] == [
        ("double", "Twice a number."),
        ("shout", "Says a word aloud."),
    ]
    assert offered[0].parameters["properties"]["number"]["minimum"] == 0
    assert offered[1].parameters["required"] == ["word"]
    _, assistant, first, second = model.requests[1].messages
    assert (first.role, first.text, second.text) == (Role.TOOL, "8", "HEY!HEY!")
    assert [first.tool_call_id, second.tool_call_id] == [each.id for each in assistant.tool_calls]
    assert (told.message.text, told.turns, told.stop_reason) == ("done", 2, StopReason.ANSWERED)
    assert told.messages == (assistant, first, second, told.message)
    assert told.usage.num_prompt_tokens == 20


@in_loop
async def test_what_is_wrong_with_a_call_is_told_to_the_model() -> None:
    """Nothing of it ends the conversation."""
    calls = [
        call("double", number=-1),
        ("double", "[1]"),
        ("double", "{"),
        call("double", numbre=1),
        call("nowhere"),
        call("fail"),
        call("shout", word="no"),
    ]
    options = ConversationOptions(allowed_tools=["double", "fail", "nowhere"])
    told, model = await talk([calls], double, fail, shout, options=options)
    assert [each.outcome for each in told.tool_calls] == [
        *[CallOutcome.BAD_ARGUMENTS] * 4,
        CallOutcome.UNKNOWN_TOOL,
        CallOutcome.TOOL_ERROR,
        CallOutcome.BLOCKED,
    ]
    texts = [message.text for message in told.messages[1:-1]]
    assert "greater than or equal to 0" in texts[0]
    assert "numbre" in texts[3]
    assert "no luck" in texts[5]
    assert "may not be called" in texts[6]
    assert [tool.name for tool in model.requests[0].output.tools] == ["double", "fail"]


@in_loop
async def test_it_stops_at_max_turns_with_what_it_has() -> None:
    """The calls of the last turn are not run."""
    calls = [[call("double", number=1)]] * 9
    told, model = await talk(calls, double, options=ConversationOptions(max_turns=3))
    assert (told.turns, told.stop_reason, len(model.requests)) == (3, StopReason.MAX_TURNS, 3)
    assert len(told.tool_calls) == 2
    assert [each.name for each in told.message.tool_calls] == ["double"]


@in_loop
async def test_calls_of_one_answer_run_side_by_side_and_hold_nothing_of_the_model() -> None:
    """Each waits for the other; the stream of the answer is closed by then."""
    both = asyncio.Barrier(2)

    async def meet() -> str:
        """Waits for another call."""
        assert model.num_open == 0
        await both.wait()
        return "met"

    model = ScriptedModel([[call("meet"), call("meet")]])
    async with ResponsesSession(model, functions=(meet,)) as session:
        told = await session.run_conversation([asked()])
    assert [message.text for message in told.messages[1:3]] == ["met", "met"]


@in_loop
async def test_events_tell_what_happens() -> None:
    """Turns, calls, results and the model's own events, in order."""
    heard: list[Any] = []
    told, _ = await talk([[call("double", number=1)]], double, options=ConversationOptions(on_event=heard.append))
    assert [each.turn for each in heard if isinstance(each, TurnStarted)] == [1, 2]
    kinds = [type(each) for each in heard]
    assert kinds.index(CallStarted) < kinds.index(ExecutedCall) < kinds.index(TextDelta)
    assert told.tool_calls == tuple(each for each in heard if isinstance(each, ExecutedCall))
    assert told.tool_calls[0].duration_s >= 0


@in_loop
async def test_a_result_that_cannot_be_shown_is_told_to_the_model_instead() -> None:
    """An image that no captioner can read, or a result that is too long, ends no conversation; a second error does."""
    told, model = await talk([[call("draw")], ImageInvalid("It is no image.")], draw)
    assert told.message.text == "done"
    assert "It is no image." in told.messages[1].text
    assert isinstance(model.requests[1].messages[-1].parts[0], ImagePart)
    with pytest.raises(InvalidRequest):
        await talk([[call("draw")], InvalidRequest("no"), InvalidRequest("no")], draw)
    with pytest.raises(GenerationFailed):
        await talk([[call("draw")], GenerationFailed("broken")], draw)


@pytest.mark.parametrize("place", ["answer", "call"])
@in_loop
async def test_time_that_is_over_ends_it_with_what_there_is(place: str) -> None:
    """In an answer that is what was said so far, in a call the answer that made it. Nothing runs on."""
    ended = asyncio.Event()

    async def wait() -> None:
        """Waits for ever."""
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    script = [[call("wait")]] if place == "call" else [asyncio.Event()]
    told, model = await talk(script, wait, options=ConversationOptions(timeout_s=0.05))
    assert told.stop_reason is StopReason.TIMED_OUT
    assert model.num_open == 0
    assert told.messages[-1] == told.message
    if place == "call":
        assert ended.is_set()
        assert told.message.tool_calls
    else:
        assert told.message.text == "so far"


@pytest.mark.parametrize("place", ["answer", "call"])
@in_loop
async def test_a_cancelled_conversation_leaves_nothing(place: str) -> None:
    """Neither an answer nor a call; `in_loop` sees to the tasks."""
    begun = asyncio.Event()

    async def wait() -> None:
        """Waits for ever."""
        begun.set()
        await asyncio.Event().wait()

    model = ScriptedModel([[call("wait"), call("wait")]] if place == "call" else [asyncio.Event()])
    options = ConversationOptions(on_event=lambda event: begun.set() if isinstance(event, TextDelta) else None)

    async def run() -> None:
        async with ResponsesSession(model, functions=(wait,)) as session:
            await session.run_conversation([asked()], options)

    running = asyncio.create_task(run())
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert model.num_open == 0


def test_what_cannot_be_a_tool_or_an_option_is_refused() -> None:
    """When it is made, with the reason."""

    def spread(*numbers: int) -> None:
        """Takes any number."""

    def odd(thing: Callable[[], object]) -> None:
        """Takes what no JSON can hold."""

    model = ScriptedModel([])
    for function in (spread, odd):
        with pytest.raises(ConfigError, match=function.__name__):
            ResponsesSession(model, functions=(function,))
    with pytest.raises(ConfigError, match="double"):
        ResponsesSession(model, functions=(double, double))
    for wrong in ({"max_turns": 0}, {"timeout_s": 0.0}, {"allowed_tools": "double"}):
        with pytest.raises(InvalidRequest, match=next(iter(wrong))):
            ConversationOptions(**wrong)


@in_loop
async def test_a_session_leads_conversations_inside_its_block_alone() -> None:
    """Before and after it there are no servers, which nobody would notice."""
    session = ResponsesSession(ScriptedModel([]), functions=(double,))
    with pytest.raises(RuntimeError, match="is new"):
        await session.run_conversation([asked()])
    async with session:
        pass
    with pytest.raises(RuntimeError, match="is closed"):
        await session.run_conversation([asked()])
    with pytest.raises(RuntimeError, match="make another one"):
        async with session:
            pass


@in_loop
async def test_a_bare_generator_is_told_what_it_cannot_see(tiny_text_model: Path) -> None:
    """It refuses the image, and the model reads that in its place."""
    engine = await LocalGenerator.load(str(tiny_text_model))
    params = GenerationParams(temperature=0, max_tokens=400)
    choice = {1: ToolChoice(ToolChoiceMode.REQUIRED)}
    options = ConversationOptions(
        max_turns=2, tool_choice=lambda turn: choice.get(turn, ToolChoice(ToolChoiceMode.NONE))
    )
    async with engine, ResponsesSession(engine, functions=(draw,), params=params) as session:
        told = await session.run_conversation([asked()], options)
    assert told.tool_calls[0].outcome is CallOutcome.DONE
    assert "takes no images" in told.messages[1].text
