"""When the tool to look again is offered to the model."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from periscope.core import (
    FinishReason,
    GenerationRequest,
    OutputSpec,
    Tool,
    ToolCallStart,
    ToolChoice,
    ToolChoiceMode,
)
from periscope.serving.generators import GeneratorFacts
from tests.serving.looking import CAN_CALL, Rooms, call, round_of, with_rooms
from tests.serving.rooms import CIRCLE, finished, request, user
from tests.serving.test_look import ANSWER, LEFT_HALF


def asks(
    *parts: str, num_choices: int = 1, tools: tuple[Tool, ...] = (), mode: ToolChoiceMode = ToolChoiceMode.AUTO
) -> GenerationRequest:
    output = OutputSpec(tools=tools, tool_choice=ToolChoice(mode))
    return replace(request(user(*parts)), num_choices=num_choices, output=output)


@pytest.mark.parametrize(
    ("asked", "max_looks", "facts"),
    [
        (asks("Hi"), 2, CAN_CALL),
        (asks("Hi", CIRCLE), 0, CAN_CALL),
        (asks("Hi", CIRCLE), 2, replace(CAN_CALL, has_tools=False)),
        (asks("Hi", CIRCLE, num_choices=2), 2, CAN_CALL),
        (asks("Hi", CIRCLE, tools=(Tool("t"),), mode=ToolChoiceMode.REQUIRED), 2, CAN_CALL),
        (asks("Hi", CIRCLE, mode=ToolChoiceMode.NONE), 2, CAN_CALL),
    ],
    ids=["no image", "off", "no tools", "choices", "demanded", "forbidden"],
)
def test_the_tool_is_offered_only_where_it_can_be_used(
    asked: GenerationRequest, max_looks: int, facts: GeneratorFacts
) -> None:
    """Everyone else's prompt is as it was, and no image is kept while the answer is generated.

    Whether a model can call is known only once it is there, so its images are kept until then and the end.
    """

    async def use(rooms: Rooms) -> None:
        rooms.generator.gate.clear()
        answering = asyncio.create_task(rooms.answer(asked))
        while not rooms.generator.asked:
            await asyncio.sleep(0)
        assert rooms.generator.asked[0].output == asked.output
        assert rooms.in_flight.held_bytes == 0 or not facts.has_tools
        rooms.generator.gate.set()
        await answering

    with_rooms(use, ANSWER, max_looks=max_looks, facts=facts)


def test_a_clients_tool_of_the_same_name_stays_the_clients() -> None:
    """The server's tool gets another name; a call of the client's goes to the client."""

    async def use(rooms: Rooms) -> None:
        mine = (Tool("look"), Tool("look_2"))
        events = await rooms.answer(asks("What is this?", CIRCLE, tools=mine))
        first, second = rooms.generator.asked
        assert [tool.name for tool in first.output.tools] == ["look", "look_2", "look_3"]
        assert second.output == first.output
        assert "a thing of 16 px" in rooms.results()[0]
        assert [event.name for event in events if isinstance(event, ToolCallStart)] == ["look"]
        assert finished(events).finish_reason is FinishReason.TOOL_CALLS

    with_rooms(use, round_of(*call(LEFT_HALF, "look_3")), round_of(*call({}, "look")))
