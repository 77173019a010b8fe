"""A pydantic-ai agent that is blind and has `periscope mcp` or, by the argument, `/mcp` for eyes.

Its model is played: it calls the tools.
"""

import asyncio
import os
import sys

from checks import ABOUT_PICTURE, KEY, PICTURE, PICTURE_URL, URL, names_red, run
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

IS_HTTP = sys.argv[1] == "http"
IMAGE = PICTURE_URL if IS_HTTP else str(PICTURE)
#: For a start on a busy machine: pydantic-ai's own 5 s are for one at rest.
PATIENCE_S = 120
TOOLS = ["ask_about_image", "describe_image", "read_text"]


def played(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Asks for the picture to be described and about its colour, side by side; then says what it was told."""
    told = [part for part in messages[-1].parts if isinstance(part, ToolReturnPart)]
    if told:
        return ModelResponse([TextPart("\n".join(part.model_response_str() for part in told))])
    assert sorted(tool.name for tool in info.function_tools) == TOOLS
    describe = ToolCallPart("describe_image", {"image": IMAGE})
    ask = ToolCallPart("ask_about_image", {"image": IMAGE, "question": ABOUT_PICTURE})
    return ModelResponse([describe, ask])


def transport() -> StdioTransport | StreamableHttpTransport:
    if IS_HTTP:
        return StreamableHttpTransport(f"{URL}/mcp", headers={"Authorization": f"Bearer {KEY}"})
    arguments = ["-m", "periscope", "mcp", "--url", URL, "--allow", str(PICTURE.parent)]
    others = {name: value for name, value in os.environ.items() if not name.startswith("PERISCOPE_")}
    variables = {**others, "PERISCOPE_HOME": os.environ["PERISCOPE_HOME"], "PERISCOPE_SERVER__API_KEY": KEY}
    return StdioTransport(os.environ["PERISCOPE_PYTHON"], arguments, env=variables)


def mcp() -> None:
    async def answer() -> str:
        agent = Agent(FunctionModel(played), toolsets=[MCPToolset(transport(), init_timeout=PATIENCE_S)])
        async with agent:
            return (await agent.run("What is in the picture?")).output

    told = asyncio.run(answer())
    assert "red circle" in told, told
    assert "answer" in told, told
    names_red(told)


run(mcp=mcp)
