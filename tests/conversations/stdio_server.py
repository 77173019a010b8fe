"""An MCP server over stdio, as a program: says which process it is, fails, sleeps, and ends itself."""

from __future__ import annotations

import os

import anyio
from mcp.server.mcpserver import MCPServer

server = MCPServer("local")


@server.tool()
def pid() -> str:
    """The id of this process."""
    return str(os.getpid())


@server.tool()
def add(a: int, b: int) -> int:
    """The sum of two numbers."""
    return a + b


@server.tool()
async def sleep() -> str:
    """Never ends."""
    await anyio.sleep_forever()
    return ""


@server.tool()
def die() -> str:
    """Ends the process in the middle of the call."""
    os._exit(3)


if __name__ == "__main__":
    server.run()
