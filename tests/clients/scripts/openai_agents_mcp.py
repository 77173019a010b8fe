"""An agent of OpenAI's Agents SDK that is blind and has `/mcp` for eyes. Its model is played: it calls the tools."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
from agents.mcp import MCPServerStreamableHttp
from checks import ABOUT_PICTURE, KEY, PICTURE_URL, URL, names_red, run
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

#: For a busy machine: the SDK's own 5 s are for one at rest.
PATIENCE_S = 120
TOOLS = ["ask_about_image", "describe_image", "read_text"]

set_tracing_disabled(disabled=True)


class Played(Model):
    """Asks for the picture to be described and about its colour, side by side; then says what it was told."""

    async def get_response(self, *_: Any, **request: Any) -> ModelResponse:
        told = [item["output"] for item in request["input"] if item.get("type") == "function_call_output"]
        if told:
            text = ResponseOutputText(type="output_text", text=json.dumps(told), annotations=[])
            message = ResponseOutputMessage(
                id="m", type="message", role="assistant", status="completed", content=[text]
            )
            return ModelResponse([message], Usage(), None)
        assert sorted(tool.name for tool in request["tools"]) == TOOLS
        asked = {
            "describe_image": {"image": PICTURE_URL},
            "ask_about_image": {"image": PICTURE_URL, "question": ABOUT_PICTURE},
        }
        calls = [
            ResponseFunctionToolCall(type="function_call", call_id=name, name=name, arguments=json.dumps(arguments))
            for name, arguments in asked.items()
        ]
        return ModelResponse([*calls], Usage(), None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise AssertionError("no check streams")


def mcp() -> None:
    async def answer() -> Any:
        params = {"url": f"{URL}/mcp", "headers": {"Authorization": f"Bearer {KEY}"}, "timeout": PATIENCE_S}
        async with MCPServerStreamableHttp(params, client_session_timeout_seconds=PATIENCE_S) as eyes:
            helper = Agent("helper", model=Played(), mcp_servers=[eyes])
            return (await Runner.run(helper, "What is in the picture?")).final_output

    told = asyncio.run(answer())
    assert "red circle" in told, told
    assert "answer" in told, told
    names_red(told)


run(mcp=mcp)
