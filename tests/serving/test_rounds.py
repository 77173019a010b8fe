"""Rounds: which calls the server runs, what the client sees of them, and when the answer ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from periscope.core import (
    Finished,
    FinishReason,
    GenerationParams,
    GenerationRequest,
    Message,
    OutputEvent,
    OutputSpec,
    ReasoningDelta,
    ResponseFormat,
    Role,
    Tell,
    TextDelta,
    TextPart,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolChoice,
    ToolChoiceMode,
    Usage,
    VisionUsage,
)
from periscope.serving.generators import GeneratorFacts
from periscope.serving.rounds import Rounds, may_offer_tools
from tests.serving.rooms import request, user

FACTS = GeneratorFacts(context_length=4096, has_tools=True, has_reasoning=True, is_batched=True)
USAGE = Usage(num_prompt_tokens=10, num_completion_tokens=4, num_cached_tokens=1)
CALLED = Finished(FinishReason.TOOL_CALLS, USAGE)
STOPPED = Finished(FinishReason.STOP, USAGE)
WEATHER = Tool("weather")


class Clock:
    """A server's tool that tells how often it was called."""

    tool = Tool("clock")

    def __init__(self, max_calls: int = 2) -> None:
        self.max_calls = max_calls
        self.called: list[str] = []

    async def call(self, arguments: str, tell: Tell) -> str:  # noqa: ARG002
        self.called.append(arguments)
        return f"{len(self.called)} o'clock"


def asked(max_tokens: int | None = None, **output: object) -> GenerationRequest:
    params, spec = GenerationParams(max_tokens=max_tokens), OutputSpec(tools=(WEATHER,), **output)  # type: ignore[arg-type]
    return replace(request(user("What time is it?")), params=params, output=spec)


def call(name: str, index: int = 0, arguments: str = "{}") -> list[OutputEvent]:
    return [ToolCallStart(index, f"call_{index}", name), ToolCallDelta(index, arguments)]


def told(rounds: Rounds, *events: OutputEvent) -> list[OutputEvent]:
    """What the client gets of one round."""
    return [shown for event in events if (shown := rounds.take(event)) is not None]


def run_calls(rounds: Rounds) -> tuple[Message, ...]:
    """The messages of the next round."""
    asyncio.run(rounds.run_calls(lambda _: None))
    return rounds.request_for(FACTS).messages


def test_a_call_of_the_servers_tool_is_run_and_its_result_read() -> None:
    """The client sees one answer; the model goes on behind its own words, its call and the result."""
    clock = Clock()
    rounds = Rounds(asked(), [clock])
    first: list[OutputEvent] = [ReasoningDelta("Hm."), TextDelta("Let me "), TextDelta("see.")]
    assert (
        told(rounds, *first, ToolCallStart(0, "c", "clock"), ToolCallDelta(0, '{"a"'), ToolCallDelta(0, ":1}"), CALLED)
        == first
    )
    assert (rounds.has_calls, rounds.finished) == (True, None)
    assert run_calls(rounds)[1:] == (
        Message(Role.ASSISTANT, (TextPart("Let me see."),), (ToolCall("c", "clock", '{"a":1}'),), reasoning="Hm."),
        Message(Role.TOOL, (TextPart("1 o'clock", is_data=True),), tool_call_id="c", name="clock"),
    )
    assert clock.called == ['{"a":1}']
    assert told(rounds, ReasoningDelta("So."), TextDelta("It is"), TextDelta(" one."), STOPPED) == [
        ReasoningDelta("\n\nSo."),
        TextDelta("\n\nIt is"),
        TextDelta(" one."),
    ]
    assert not rounds.has_calls
    assert rounds.finished == Finished(FinishReason.STOP, Usage(20, 8, 2))


def test_a_call_of_the_clients_tool_ends_the_answer() -> None:
    """It is numbered as if it were alone; a call of the server's beside it is dropped, for its result has no place."""
    clock = Clock()
    for calls in (
        [*call("clock"), *call("weather", 1, '{"at":"x"}')],
        [*call("weather", 0, '{"at":"x"}'), *call("clock", 1)],
    ):
        rounds = Rounds(asked(), [clock])
        start, arguments = told(rounds, *calls, CALLED)
        assert isinstance(start, ToolCallStart)
        assert (start.index, start.name, arguments) == (0, "weather", ToolCallDelta(0, '{"at":"x"}'))
        assert rounds.finished == CALLED
        assert not rounds.has_calls
    assert not clock.called


def test_max_tokens_bounds_all_rounds_together() -> None:
    """The next round has what is left; with nothing left, or where the model was cut off, the answer ends: `length`."""
    rounds = Rounds(asked(max_tokens=6), [Clock()])
    told(rounds, *call("clock"), CALLED)
    run_calls(rounds)
    assert rounds.request_for(FACTS).params.max_tokens == 2
    for max_tokens, end in ((4, CALLED), (None, Finished(FinishReason.LENGTH, USAGE))):
        rounds = Rounds(asked(max_tokens=max_tokens), [Clock()])
        told(rounds, *call("clock"), end)
        assert not rounds.has_calls
        assert rounds.finished == Finished(FinishReason.LENGTH, USAGE)


def test_a_model_that_calls_too_often_is_told_and_then_ended() -> None:
    """Calls beyond the bound are refused in a result that it reads; one round later there is no further one."""
    clock = Clock(max_calls=2)
    rounds = Rounds(asked(), [clock])
    told(rounds, *call("clock"), *call("clock", 1), *call("clock", 2), CALLED)
    results = [message.text for message in run_calls(rounds) if message.role is Role.TOOL]
    assert results[:2] == ["1 o'clock", "2 o'clock"]
    assert "cannot be called again" in results[2]
    assert told(rounds, *call("clock"), CALLED) == []
    assert not rounds.has_calls
    assert rounds.finished == Finished(FinishReason.STOP, Usage(20, 8, 2))


def test_an_answer_in_json_comes_in_the_last_round() -> None:
    """There is no tool left that the model could call instead; in text it may keep its prompt's beginning."""
    for response_format, last in ((ResponseFormat({"type": "object"}), (WEATHER,)), (None, (WEATHER, Clock.tool))):
        rounds = Rounds(asked(response_format=response_format), [Clock(max_calls=1)])
        for tools in ((WEATHER, Clock.tool), (WEATHER, Clock.tool), last):
            assert rounds.request_for(FACTS).output.tools == tools
            told(rounds, *call("clock"), CALLED)
            if rounds.has_calls:
                run_calls(rounds)
        assert rounds.finished is not None


def test_a_client_without_tools_gets_no_call() -> None:
    """The model is told that there is no such tool; a client that has tools gets the call, as it does everywhere."""
    plain = replace(asked(), output=OutputSpec())
    rounds = Rounds(plain, [Clock()])
    assert told(rounds, *call("wether"), CALLED) == []
    assert "no such tool" in run_calls(rounds)[-1].text
    assert told(rounds, *call("wether"), CALLED) == []
    assert (rounds.has_calls, rounds.finished) == (False, Finished(FinishReason.STOP, Usage(20, 8, 2)))
    rounds = Rounds(asked(), [Clock()])
    assert told(rounds, *call("wether"), CALLED) == call("wether")


def test_tools_are_offered_to_models_that_can_call() -> None:
    """They stand behind the client's, the same in every round; a model without tools gets the request as it is."""
    plain = asked()
    rounds = Rounds(plain, [Clock()])
    assert rounds.request_for(replace(FACTS, has_tools=False)) == plain
    assert rounds.request_for(FACTS).output.tools == (WEATHER, Clock.tool)
    told(rounds, *call("clock"), CALLED)
    run_calls(rounds)
    assert rounds.request_for(FACTS).output.tools == (WEATHER, Clock.tool)


def test_the_servers_tools_are_allowed_beside_the_clients() -> None:
    """`allowed_tools` names some of the client's tools; the server's stay callable in every round."""
    rounds = Rounds(asked(tool_choice=ToolChoice(allowed=frozenset({"weather"}))), [Clock()])
    assert rounds.request_for(FACTS).output.tool_choice.allowed == frozenset({"weather", "clock"})
    assert rounds.request_for(replace(FACTS, has_tools=False)).output.tool_choice.allowed == frozenset({"weather"})


def test_without_tools_of_the_server_events_pass() -> None:
    """Calls, several choices and their ends come as the model gives them."""
    events = [*call("weather"), *call("clock", 1), TextDelta("b", choice=1)]
    end = Finished(FinishReason.TOOL_CALLS, USAGE, VisionUsage(1), (FinishReason.STOP,))
    rounds = Rounds(asked())
    assert told(rounds, *events, end) == events
    assert rounds.finished == end


@pytest.mark.parametrize(
    ("mode", "num_choices", "may"),
    [
        (ToolChoiceMode.AUTO, 1, True),
        (ToolChoiceMode.NONE, 1, False),
        (ToolChoiceMode.REQUIRED, 1, False),
        (ToolChoiceMode.AUTO, 2, False),
    ],
)
def test_the_clients_tool_choice_is_respected(mode: ToolChoiceMode, num_choices: int, may: bool) -> None:
    """No call means none of the server's either, and a call that is demanded is one of the client's tools."""
    assert may_offer_tools(replace(asked(tool_choice=ToolChoice(mode)), num_choices=num_choices)) is may
    assert not may_offer_tools(replace(asked(tool_choice=ToolChoice(mode)), continues=True))
