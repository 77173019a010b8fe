"""ResponsesSession as programs use it: over a `Periscope` or an engine, with conversations of every shape."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from periscope import (
    CallOutcome,
    ConversationEvent,
    ConversationOptions,
    ExecutedCall,
    GenerationParams,
    InferenceEngine,
    Message,
    Periscope,
    RequestError,
    ResponsesSession,
    Role,
    StopReason,
    TextPart,
    ToolChoice,
    ToolChoiceMode,
)
from periscope.config import Config
from tests.api.driving import in_loop


def weather(city: Literal["Paris", "Rome"]) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


FORCED = ToolChoice(ToolChoiceMode.REQUIRED, "weather")


def first_turn(turn: int) -> ToolChoice:
    return FORCED if turn == 1 else ToolChoice(ToolChoiceMode.NONE)


@in_loop
async def test_a_conversation_may_be_given_as_to_chat(demo_config: Config) -> None:
    """A question, messages or dicts; events are told apart by their public classes; the Periscope stays open."""
    question = "Is it sunny in Paris?"
    async with Periscope(demo_config) as periscope:
        async with ResponsesSession(periscope, functions=[weather]) as session:
            for asked in (
                question,
                [Message(Role.USER, (TextPart(question),))],
                [{"role": "user", "content": question}],
            ):
                heard: list[ConversationEvent] = []
                options = ConversationOptions(tool_choice=first_turn, on_event=heard.append)
                told = await session.run_conversation(asked, options)
                assert told.stop_reason is StopReason.ANSWERED
                assert [call.outcome for call in told.tool_calls] == [CallOutcome.DONE]
                assert [each for each in heard if isinstance(each, ExecutedCall)] == list(told.tool_calls)
            with pytest.raises(RequestError, match="It must be a question"):
                await session.run_conversation(None)  # type: ignore[arg-type]
        assert (await periscope.chat("Hi")).text
    with pytest.raises(RuntimeError, match="does not run"):
        ResponsesSession(periscope)


@in_loop
async def test_an_engine_has_conversations_too(tiny_text_model: Path) -> None:
    """Without a models.yaml."""
    async with await InferenceEngine.load(str(tiny_text_model)) as engine:
        params = GenerationParams(temperature=0, max_tokens=400)
        async with ResponsesSession(engine, functions=[weather], params=params) as session:
            told = await session.run_conversation("Go on.", ConversationOptions(max_turns=2, tool_choice=first_turn))
    assert [call.call.name for call in told.tool_calls] == ["weather"]
