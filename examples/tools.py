"""A conversation with tools: python examples/tools.py [URL of an MCP server]. URLs need mlx-periscope[mcp]."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import Literal

from periscope import (
    ConversationOptions,
    HttpServer,
    Periscope,
    ResponsesSession,
    ToolChoice,
    ToolChoiceMode,
)


def weather(city: Literal["Paris", "Rome"]) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


async def main(urls: Sequence[str]) -> None:
    """Has the model call a tool, and answer."""
    servers = [HttpServer(f"server{number}", url) for number, url in enumerate(urls, 1)]
    # The demo model would chat instead: it must call in the first turn. Better models are left their choice.
    forced = ToolChoice(ToolChoiceMode.REQUIRED, "weather")
    options = ConversationOptions(max_turns=5, tool_choice=lambda turn: forced if turn == 1 else ToolChoice())
    async with Periscope() as periscope, ResponsesSession(periscope, servers, [weather]) as session:
        told = await session.run_conversation("Is it sunny in Paris?", options)
    for each in told.tool_calls:
        print(each.call.name, each.call.arguments, "->", each.outcome)
    print(told.message.text, f"({told.stop_reason} after {told.turns} turns)")


arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("urls", nargs="*", metavar="URL", help="an MCP server, whose tools the model gets, too")
asyncio.run(main(arguments.parse_args().urls))
