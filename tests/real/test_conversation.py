"""A task of five turns on a real model, forced to call tools of two MCP servers over HTTP and one over stdio."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import psutil
from mcp.server.mcpserver import MCPServer
from pydantic import Field

from periscope.conversations import CallOutcome, ConversationOptions, ResponsesSession, StopReason
from periscope.conversations.conversation import ConversationEvent
from periscope.core import Finished, GenerationParams, ImagePart, ToolChoice, ToolChoiceMode, VisionUsage
from periscope.runtime import Runtime
from tests.config.files import load_text
from tests.conversations.driving import LOCAL, asked, camera, hosting
from tests.real.conftest import YAML

#: The tool that each turn must call; none in the last. `die` ends the process of its server.
TASK = ("forecast", "die", "add", "screenshot", None)


def weather() -> MCPServer:
    server = MCPServer("weather")

    @server.tool()
    def forecast(city: Annotated[str, Field(max_length=20)]) -> str:
        """The weather in a city."""
        return f"Sunny in {city}."

    return server


def forced(name: str | None) -> ToolChoice:
    """One call: a small model that may make several makes them without end."""
    return ToolChoice(ToolChoiceMode.REQUIRED, name, is_parallel=False)


def choice(turn: int) -> ToolChoice:
    name = TASK[turn - 1]
    return ToolChoice(ToolChoiceMode.NONE) if name is None else forced(name)


def test_a_task_of_five_turns_over_three_servers(real_model: Path) -> None:
    """Forced calls fit their tools; a server dies and comes back; allowed tools and turns hold; no process is left."""
    others = set(psutil.Process().children())
    asyncio.run(_task(real_model))
    assert set(psutil.Process().children()) <= others


async def _task(folder: Path) -> None:
    ends: list[VisionUsage | None] = []

    def hear(event: ConversationEvent) -> None:
        if isinstance(event, Finished):
            ends.append(event.vision)

    async with hosting(weather, camera) as (first, second), Runtime(load_text(YAML.format(folder=folder))) as runtime:
        servers = (first.at("weather"), second.at("camera"), LOCAL)
        params = GenerationParams(temperature=0, max_tokens=200)
        async with ResponsesSession(runtime.service, servers, params=params) as session:
            question = asked("What is the weather in Paris, what is 2 plus 3, and what colour is the circle?")
            told = await session.run_conversation([question], ConversationOptions(tool_choice=choice, on_event=hear))
            assert (told.turns, told.stop_reason) == (5, StopReason.ANSWERED)
            assert [(each.call.name, each.source, each.outcome) for each in told.tool_calls] == [
                ("forecast", "weather", CallOutcome.DONE),
                ("die", "local", CallOutcome.UNREACHABLE),
                ("add", "local", CallOutcome.DONE),
                ("screenshot", "camera", CallOutcome.DONE),
            ]
            assert set(json.loads(told.tool_calls[0].call.arguments)) == {"city"}
            assert {type(n) for n in json.loads(told.tool_calls[2].call.arguments).values()} == {int}
            assert isinstance(told.tool_calls[3].parts[0], ImagePart)
            assert ends[4] is not None
            assert (ends[4].num_images, ends[4].num_failed) == (1, 0)
            print(told.message.text)  # noqa: T201

            await first.stop()
            options = ConversationOptions(max_turns=2, tool_choice=forced("forecast"))
            told = await session.run_conversation([question], options)
            assert (told.turns, told.stop_reason) == (2, StopReason.MAX_TURNS)
            assert [each.outcome for each in told.tool_calls] == [CallOutcome.UNREACHABLE]

            options = ConversationOptions(max_turns=2, allowed_tools=["screenshot"], tool_choice=forced(None))
            told = await session.run_conversation([question], options)
            assert {each.call.name for each in told.tool_calls} == {"screenshot"}
            assert {each.name for each in told.message.tool_calls} == {"screenshot"}
