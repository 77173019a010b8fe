"""Rounds: which calls the server runs, what the client sees of them, and when the answer ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from periscope.core import (
    AnswerEvent,
    ApprovalWanted,
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
    ServerCallDelta,
    ServerCallResult,
    ServerCallRun,
    ServerCallStart,
    Tell,
    TextDelta,
    TextPart,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolChoice,
    ToolChoiceMode,
    ToolResult,
    Usage,
    VisionUsage,
    Waiting,
)
from periscope.serving.generators import GeneratorFacts
from periscope.serving.rounds import Rounds, may_offer_tools
from periscope.serving.server_tools import ApprovedCall, ServerTools
from tests.serving.rooms import request, user

FACTS = GeneratorFacts(context_length=4096, has_tools=True, has_reasoning=True, is_batched=True)
USAGE = Usage(num_prompt_tokens=10, num_completion_tokens=4, num_cached_tokens=1)
CALLED = Finished(FinishReason.TOOL_CALLS, USAGE)
STOPPED = Finished(FinishReason.STOP, USAGE)
WEATHER = Tool("weather")


class Clock:
    """A server's tool that tells how often it was called."""

    tool = Tool("clock")
    is_shown = needs_approval = False

    def __init__(self, max_calls: int = 2) -> None:
        self.max_calls = max_calls
        self.called: list[str] = []

    async def call(self, arguments: str, tell: Tell) -> ToolResult:  # noqa: ARG002
        self.called.append(arguments)
        return ToolResult((TextPart(f"{len(self.called)} o'clock", is_data=True),))


def asked(max_tokens: int | None = None, **output: object) -> GenerationRequest:
    params, spec = GenerationParams(max_tokens=max_tokens), OutputSpec(tools=(WEATHER,), **output)  # type: ignore[arg-type]
    return replace(request(user("What time is it?")), params=params, output=spec)


def call(name: str, index: int = 0, arguments: str = "{}") -> list[OutputEvent]:
    return [ToolCallStart(index, f"call_{index}", name), ToolCallDelta(index, arguments)]


def told(rounds: Rounds, *events: OutputEvent) -> list[AnswerEvent]:
    """What the client gets of one round."""
    return [shown for event in events if (shown := rounds.take(event)) is not None]


def run_calls(rounds: Rounds) -> tuple[Message, ...]:
    """The messages of the next round."""
    asyncio.run(rounds.run_calls(lambda _: None))
    return rounds.request_for(FACTS).messages


def test_a_call_of_the_servers_tool_is_run_and_its_result_read() -> None:
    """The client sees one answer; the model goes on behind its own words, its call and the result."""
    clock = Clock()
    rounds = Rounds(asked(), ServerTools((clock,)))
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
        rounds = Rounds(asked(), ServerTools((clock,)))
        start, arguments = told(rounds, *calls, CALLED)
        assert isinstance(start, ToolCallStart)
        assert (start.index, start.name, arguments) == (0, "weather", ToolCallDelta(0, '{"at":"x"}'))
        assert rounds.finished == CALLED
        assert not rounds.has_calls
    assert not clock.called


def test_max_tokens_bounds_all_rounds_together() -> None:
    """The next round has what is left; with nothing left, or where the model was cut off, the answer ends: `length`."""
    rounds = Rounds(asked(max_tokens=6), ServerTools((Clock(),)))
    told(rounds, *call("clock"), CALLED)
    run_calls(rounds)
    assert rounds.request_for(FACTS).params.max_tokens == 2
    for max_tokens, end in ((4, CALLED), (None, Finished(FinishReason.LENGTH, USAGE))):
        rounds = Rounds(asked(max_tokens=max_tokens), ServerTools((Clock(),)))
        told(rounds, *call("clock"), end)
        assert not rounds.has_calls
        assert rounds.finished == Finished(FinishReason.LENGTH, USAGE)


def test_a_model_that_calls_too_often_is_told_and_then_ended() -> None:
    """Calls beyond the bound are refused in a result that it reads; one round later there is no further one."""
    clock = Clock(max_calls=2)
    rounds = Rounds(asked(), ServerTools((clock,)))
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
        rounds = Rounds(asked(response_format=response_format), ServerTools((Clock(max_calls=1),)))
        for tools in ((WEATHER, Clock.tool), (WEATHER, Clock.tool), last):
            assert rounds.request_for(FACTS).output.tools == tools
            told(rounds, *call("clock"), CALLED)
            if rounds.has_calls:
                run_calls(rounds)
        assert rounds.finished is not None


def test_a_client_without_tools_gets_no_call() -> None:
    """The model is told that there is no such tool; a client that has tools gets the call, as it does everywhere."""
    plain = replace(asked(), output=OutputSpec())
    rounds = Rounds(plain, ServerTools((Clock(),)))
    assert told(rounds, *call("wether"), CALLED) == []
    assert "no such tool" in run_calls(rounds)[-1].text
    assert told(rounds, *call("wether"), CALLED) == []
    assert (rounds.has_calls, rounds.finished) == (False, Finished(FinishReason.STOP, Usage(20, 8, 2)))
    rounds = Rounds(asked(), ServerTools((Clock(),)))
    assert told(rounds, *call("wether"), CALLED) == call("wether")


def test_tools_are_offered_to_models_that_can_call() -> None:
    """They stand behind the client's, the same in every round; a model without tools gets the request as it is."""
    plain = asked()
    rounds = Rounds(plain, ServerTools((Clock(),)))
    assert rounds.request_for(replace(FACTS, has_tools=False)) == plain
    assert rounds.request_for(FACTS).output.tools == (WEATHER, Clock.tool)
    told(rounds, *call("clock"), CALLED)
    run_calls(rounds)
    assert rounds.request_for(FACTS).output.tools == (WEATHER, Clock.tool)


def test_the_servers_tools_are_allowed_beside_the_clients() -> None:
    """`allowed_tools` names some of the client's tools; the server's stay callable in every round."""
    rounds = Rounds(asked(tool_choice=ToolChoice(allowed=frozenset({"weather"}))), ServerTools((Clock(),)))
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


class Remote:
    """A tool on an MCP server. Its calls wait for each other: so many have to run at once."""

    max_calls = 9
    is_shown = True

    def __init__(self, name: str, num_at_once: int = 1, *, needs_approval: bool = False) -> None:
        self.tool = Tool(name)
        self.needs_approval = needs_approval
        self.called: list[str] = []
        self._num_at_once = num_at_once
        self._all_run = asyncio.Event()

    async def call(self, arguments: str, tell: Tell) -> ToolResult:  # noqa: ARG002
        self.called.append(arguments)
        if len(self.called) == self._num_at_once:
            self._all_run.set()
        await self._all_run.wait()
        return ToolResult((TextPart(f"result of {arguments}"),))


def events_of_calls(rounds: Rounds) -> list[AnswerEvent]:
    """What the client gets while the calls of a round are run, without what it waits for."""
    told: list[AnswerEvent] = []
    asyncio.run(rounds.run_calls(told.append))
    return [event for event in told if not isinstance(event, Waiting)]


def test_calls_that_the_client_hears_of_run_side_by_side() -> None:
    """It gets them as the model writes them, then that they run, and each result; the model reads all of them."""
    remote = Remote("docs__find", num_at_once=2)
    rounds = Rounds(asked(), ServerTools((remote,)))
    given = told(rounds, TextDelta("Hm."), *call("docs__find", 0, "1"), *call("docs__find", 1, "2"), CALLED)
    assert given == [
        TextDelta("Hm."),
        ServerCallStart("call_0", "docs__find"),
        ServerCallDelta("call_0", "1"),
        ServerCallStart("call_1", "docs__find"),
        ServerCallDelta("call_1", "2"),
    ]
    told_of = events_of_calls(rounds)
    assert told_of[:2] == [ServerCallRun("call_0"), ServerCallRun("call_1")]
    assert {event.id for event in told_of[2:] if isinstance(event, ServerCallResult)} == {"call_0", "call_1"}
    assert [message.text for message in rounds.request_for(FACTS).messages[-2:]] == ["result of 1", "result of 2"]
    # The calls stand between the words of the two rounds, so no gap is needed.
    assert told(rounds, TextDelta("Done."), STOPPED) == [TextDelta("Done.")]
    assert rounds.finished == Finished(FinishReason.STOP, Usage(20, 8, 2))


def test_beside_a_call_of_the_clients_they_are_run_before_the_answer_ends() -> None:
    """Their results are in the answer, so that the client's next request has them."""
    remote = Remote("docs__find")
    rounds = Rounds(asked(), ServerTools((remote,)))
    told(rounds, *call("docs__find", 0), *call("weather", 1), CALLED)
    assert (rounds.has_calls, rounds.ends_with_calls, rounds.finished) == (True, True, None)
    assert isinstance(events_of_calls(rounds)[-1], ServerCallResult)
    assert rounds.finished == CALLED


def test_a_call_that_needs_an_approval_ends_the_answer_and_runs_in_the_next() -> None:
    """The others of its round are run meanwhile. An approved one runs before the model is asked."""
    waits, free = Remote("docs__drop", needs_approval=True), Remote("docs__find")
    rounds = Rounds(asked(), ServerTools((waits, free)))
    assert told(rounds, *call("docs__drop", 0, "7"), CALLED) == []
    assert events_of_calls(rounds) == [ApprovalWanted(ToolCall("call_0", "docs__drop", "7"))]
    assert rounds.finished == STOPPED
    rounds = Rounds(asked(), ServerTools((waits, free)))
    told(rounds, *call("docs__drop", 0), *call("docs__find", 1), CALLED)
    assert len(events_of_calls(rounds)) == 3
    assert (len(waits.called), len(free.called)) == (0, 1)

    approved = ApprovedCall(ToolCall("mcpr_1", "docs__drop", "7"), "mcpr_1")
    forced = asked(tool_choice=ToolChoice(ToolChoiceMode.REQUIRED, "docs__drop"))
    rounds = Rounds(forced, ServerTools((waits,), (approved,)))
    assert (rounds.has_calls, rounds.ends_with_calls) == (True, False)
    assert events_of_calls(rounds) == [
        ServerCallStart("mcpr_1", "docs__drop", "mcpr_1"),
        ServerCallDelta("mcpr_1", "7"),
        ServerCallRun("mcpr_1"),
        ServerCallResult("mcpr_1", ToolResult((TextPart("result of 7"),))),
    ]
    assert rounds.request_for(FACTS).output.tool_choice.mode is ToolChoiceMode.AUTO
    assert waits.called == ["7"]


def test_calls_beyond_the_clients_bound_are_not_shown_and_not_run() -> None:
    """The model reads a refusal, and has one round more."""
    remote = Remote("docs__find")
    rounds = Rounds(asked(), ServerTools((remote,), max_calls=1))
    assert len(told(rounds, *call("docs__find", 0), *call("docs__find", 1), CALLED)) == 2
    events_of_calls(rounds)
    assert "cannot be called again" in rounds.request_for(FACTS).messages[-1].text
    assert told(rounds, *call("docs__find", 0), CALLED) == []
    assert rounds.finished == Finished(FinishReason.STOP, Usage(20, 8, 2))
    assert len(remote.called) == 1


def test_only_one_call_is_run_where_the_client_wants_one_at_a_time() -> None:
    """Of any kind: what the model writes behind the first is dropped."""
    remote = Remote("docs__find")
    rounds = Rounds(asked(tool_choice=ToolChoice(is_parallel=False)), ServerTools((remote,)))
    assert len(told(rounds, *call("docs__find", 0), *call("docs__find", 1), *call("weather", 2), CALLED)) == 2
    assert len([event for event in events_of_calls(rounds) if isinstance(event, ServerCallResult)]) == 1
    assert rounds.finished is None
