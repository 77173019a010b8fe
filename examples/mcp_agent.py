"""An agent with an MCP server of its own, which takes screenshots: python examples/mcp_agent.py.

Needs mlx-periscope[mcp]. The model sees no pixels: what the tool shows is described to it.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys

from mcp.server.mcpserver import Image, MCPServer
from PIL import Image as Pillow
from PIL import ImageDraw

from periscope import (
    ConversationOptions,
    Periscope,
    ResponsesSession,
    StdioServer,
    ToolChoice,
    ToolChoiceMode,
)


def serve() -> None:
    """The server, in a process of its own: this file with --serve. Any other program that speaks MCP does as well."""
    server = MCPServer("screen")

    @server.tool()
    def screenshot() -> Image:
        """What is on the screen now."""
        screen, file = Pillow.new("RGB", (240, 240), "white"), io.BytesIO()
        ImageDraw.Draw(screen).rectangle([60, 60, 180, 180], fill="green")
        screen.save(file, "PNG")
        return Image(data=file.getvalue(), format="png")

    server.run()


async def main() -> None:
    """Lets the model look at the screen, and answer."""
    servers = [StdioServer("screen", sys.executable, (__file__, "--serve"))]
    # The demo model would chat instead: it must look in the first turn. Better models are left their choice.
    look = ToolChoice(ToolChoiceMode.REQUIRED, "screenshot")
    options = ConversationOptions(
        max_turns=5,
        allowed_tools=["screenshot"],
        timeout_s=300,
        tool_choice=lambda turn: look if turn == 1 else ToolChoice(),
    )
    async with Periscope() as periscope, ResponsesSession(periscope, servers) as session:
        told = await session.run_conversation("What colour is the square?", options)
    for each in told.tool_calls:
        print(f"{each.source}: {each.call.name} -> {each.outcome} in {each.duration_s:.1f} s")
    print(told.message.text)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--serve", action="store_true", help="be the MCP server of the agent")
    if arguments.parse_args().serve:
        serve()
    else:
        asyncio.run(main())
