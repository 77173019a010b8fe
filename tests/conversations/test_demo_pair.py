"""A task of five turns on the demo pair, with tools of three MCP servers and an image that only a captioner sees."""

from __future__ import annotations

import psutil
from mcp.server.mcpserver import MCPServer

from periscope.config import load
from periscope.conversations import CallOutcome, ConversationOptions, ResponsesSession, StopReason
from periscope.core import Finished, GenerationParams, ImagePart, ToolChoice, ToolChoiceMode, VisionUsage
from periscope.runtime import Runtime
from tests.api.driving import in_loop
from tests.conversations.driving import LOCAL, asked, camera, hosting


def codes() -> MCPServer:
    server = MCPServer("codes")

    @server.tool()
    def code() -> str:
        """A code word."""
        return "tango"

    @server.tool()
    def pid() -> str:
        """Stands on another server, too."""
        return "no process"

    return server


#: The tool that each turn must call; none in the last.
TASK = ("code", "codes__pid", "local__pid", "screenshot", None)


def choice(turn: int) -> ToolChoice:
    name = TASK[turn - 1]
    return ToolChoice(ToolChoiceMode.NONE) if name is None else ToolChoice(ToolChoiceMode.REQUIRED, name)


@in_loop
async def test_a_task_of_five_turns_over_three_servers() -> None:
    """Calls are routed by name, a screenshot reaches the text model as its caption, one server dies, none is left."""
    ends: list[VisionUsage | None] = []
    others = set(psutil.Process().children())  # servers of other tests

    async with hosting(codes, camera) as (first, second), Runtime(load()) as runtime:
        servers = (first.at("codes"), second.at("camera"), LOCAL)
        params = GenerationParams(temperature=0, max_tokens=300)

        def hear(event: object) -> None:
            if isinstance(event, Finished):
                ends.append(event.vision)

        async with ResponsesSession(runtime.service, servers, params=params) as session:
            question = asked("What colour is the circle?")
            options = ConversationOptions(tool_choice=choice, on_event=hear)
            told = await session.run_conversation([question], options)
            assert (told.turns, told.stop_reason) == (5, StopReason.ANSWERED)
            assert [call.call.name for call in told.tool_calls] == list(TASK[:-1])
            assert {call.outcome for call in told.tool_calls} == {CallOutcome.DONE}
            assert [call.source for call in told.tool_calls] == ["codes", "codes", "local", "camera"]
            assert isinstance(told.tool_calls[3].parts[0], ImagePart)
            assert ends[:4] == [None] * 4
            assert ends[4] is not None
            assert (ends[4].num_images, ends[4].num_failed) == (1, 0)
            assert "red" in told.message.text

            await first.stop()
            told = await session.run_conversation([question], options)
            assert [call.outcome for call in told.tool_calls] == [
                CallOutcome.UNREACHABLE,
                CallOutcome.UNREACHABLE,
                CallOutcome.DONE,
                CallOutcome.DONE,
            ]
            assert "red" in told.message.text
    assert set(psutil.Process().children()) <= others
