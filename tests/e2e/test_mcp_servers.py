"""Requests to `/v1/responses` with tools on MCP servers: demo pair, real servers, and OpenAI's SDK as the client."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from mcp.server.mcpserver import Image, MCPServer
from openai.types import responses as shapes

from periscope.runtime import Runtime
from tests.api.driving import in_loop
from tests.conversations import stdio_server
from tests.conversations.driving import HttpHost, hosting
from tests.e2e.drawing import circle, data_url
from tests.e2e.in_process import served

MODELS = """
models:
  - name: demo
    local_path: embedded:text
    preload: true
    params: {temperature: 0, max_tokens: 300}
    capabilities: {vision_mode: proxy, vision_proxy: {model: eyes}}
  - name: eyes
    local_path: embedded:captioner
"""
STDIO = json.dumps({"name": "local", "command": sys.executable, "args": [stdio_server.__file__]})


def tools_here() -> MCPServer:
    server = MCPServer("here")

    @server.tool()
    def code() -> str:
        """A code word."""
        return "tango"

    @server.tool()
    def screenshot() -> Image:
        """What is on the screen."""
        return Image(data=base64.b64decode(data_url(circle("red")).partition(",")[2]), format="png")

    return server


@asynccontextmanager
async def asking(
    folder: Path, host: HttpHost, *, stdio: str = STDIO, here: str = ""
) -> AsyncIterator[tuple[openai.AsyncOpenAI, Runtime, Path]]:
    """OpenAI's SDK over a server with two MCP servers: `here` by HTTP, and `local` over stdio."""
    path = folder / "models.yaml"
    path.write_text(f"{MODELS}mcp_servers:\n  - {stdio}\n  - {{name: here, url: '{host.at('here').url}'{here}}}\n")
    others = set(psutil.Process().children())  # servers of other tests
    async with served(path) as (runtime, port):
        url = f"http://127.0.0.1:{port}/v1"
        async with openai.AsyncOpenAI(api_key="key", base_url=url, max_retries=0) as sdk:
            yield sdk, runtime, path
    assert set(psutil.Process().children()) <= others


def entry(label: str, **fields: Any) -> Any:
    return {"type": "mcp", "server_label": label, "require_approval": "never"} | fields


def forced(label: str, name: str, text: str = "What is 2 and 3?", **fields: Any) -> Any:
    """A request in which the model must call this tool."""
    choice = {"type": "mcp", "server_label": label, "name": name}
    return {"model": "demo", "input": text, "tools": [entry(label)], "tool_choice": choice} | fields


async def streamed(sdk: openai.AsyncOpenAI, **asked: Any) -> tuple[list[Any], Any]:
    """The events of a stream in the SDK's types, and the response that the last one holds."""
    events = [event async for event in await sdk.responses.create(**asked, stream=True)]
    assert events[-1].type == "response.completed"
    return events, events[-1].response


def listed_in(response: shapes.Response) -> Any:
    return response.output[0]


def kinds(response: shapes.Response) -> list[str]:
    return [item.type for item in response.output]


def call_of(response: shapes.Response) -> Any:
    return next(item for item in response.output if item.type == "mcp_call")


@in_loop
async def test_a_tool_is_listed_called_and_answered_from_streamed_or_not(tmp_path: Path) -> None:
    """Over stdio and HTTP, in OpenAI's items and events; the next turn goes on without asking the server again."""
    async with hosting(tools_here) as (host,), asking(tmp_path, host) as (sdk, runtime, _):
        assert [server.state for server in runtime.tool_servers.statuses] == ["idle", "idle"]
        whole = await sdk.responses.create(**forced("local", "add"))
        assert kinds(whole) == ["mcp_list_tools", "mcp_call", "message"]
        listed, called, _ = whole.output
        assert isinstance(listed, shapes.response_output_item.McpListTools)
        assert {tool.name for tool in listed.tools} == {"pid", "add", "sleep", "die"}
        assert isinstance(called, shapes.response_output_item.McpCall)
        assert (called.name, called.server_label, called.status, called.error) == ("add", "local", "completed", None)
        assert called.output == str(sum(json.loads(called.arguments).values()))
        assert called.output in whole.output_text
        assert whole.usage is not None
        assert whole.usage.output_tokens > 0

        asked = forced("here", "code", tools=[entry("here", allowed_tools=["code"])])
        events, final = await streamed(sdk, **asked)
        assert kinds(final) == kinds(whole)
        assert [tool.name for tool in listed_in(final).tools] == ["code"]
        told = [event.type for event in events]
        assert [each for each in dict.fromkeys(told) if "mcp" in each] == [
            "response.mcp_list_tools.in_progress",
            "response.mcp_list_tools.completed",
            "response.mcp_call.in_progress",
            "response.mcp_call_arguments.delta",
            "response.mcp_call_arguments.done",
            "response.mcp_call.completed",
        ]
        pieces = "".join(event.delta for event in events if event.type == "response.mcp_call_arguments.delta")
        assert pieces == call_of(final).arguments
        numbers = [event.sequence_number for event in events]
        assert numbers == list(range(len(numbers)))

        again = await sdk.responses.create(**forced("local", "add", previous_response_id=whole.id))
        assert kinds(again) == ["mcp_call", "message"]
        items = await sdk.responses.input_items.list(whole.id)
        assert [item.type for item in items.data] == ["message"]
        carried = [item.to_dict() for item in whole.output]
        alone = await sdk.responses.create(**forced("local", "add", input=[*carried, {"role": "user", "content": "?"}]))
        assert kinds(alone) == ["mcp_call", "message"]
        assert [server.state for server in runtime.tool_servers.statuses] == ["ready", "ready"]


@in_loop
async def test_a_call_waits_for_the_clients_approval(tmp_path: Path) -> None:
    """Over two requests: what is approved is run before the model goes on, what is refused is told to it."""
    async with hosting(tools_here) as (host,), asking(tmp_path, host) as (sdk, _, _):
        tools = [entry("local", require_approval={"always": {"tool_names": ["add"]}, "never": {"tool_names": ["pid"]}})]
        free = await sdk.responses.create(**forced("local", "pid", tools=tools))
        assert kinds(free) == ["mcp_list_tools", "mcp_call", "message"]
        first = await sdk.responses.create(**forced("local", "add", tools=tools))
        assert kinds(first) == ["mcp_list_tools", "mcp_approval_request"]
        assert first.status == "completed"
        wanted = first.output[1]
        assert isinstance(wanted, shapes.response_output_item.McpApprovalRequest)
        assert (wanted.name, wanted.server_label) == ("add", "local")

        def answer(**fields: Any) -> Any:
            told = {"type": "mcp_approval_response", "approval_request_id": wanted.id} | fields
            return {"model": "demo", "tools": tools, "input": [told], "previous_response_id": first.id}

        events, agreed = await streamed(sdk, **answer(approve=True))
        assert kinds(agreed) == ["mcp_call", "message"]
        assert "response.mcp_call.completed" in [event.type for event in events]
        called = call_of(agreed)
        assert (called.approval_request_id, called.arguments) == (wanted.id, wanted.arguments)
        assert called.output == str(sum(json.loads(wanted.arguments).values()))
        later = await sdk.responses.create(model="demo", input="Hello!", tools=tools, previous_response_id=agreed.id)
        assert kinds(later) == ["message"]  # it is not run once more

        refused = await sdk.responses.create(**answer(approve=False, reason="not today"))
        assert kinds(refused) == ["message"]
        silent = await sdk.responses.create(model="demo", input="Hello!", tools=tools, previous_response_id=first.id)
        assert kinds(silent) == ["message"]
        with pytest.raises(openai.BadRequestError, match="tools"):
            await sdk.responses.create(**answer(approve=True) | {"tools": []})
        with pytest.raises(openai.BadRequestError, match="approval_request_id"):
            await sdk.responses.create(**answer(approve=True, approval_request_id="mcpr_none"))


@in_loop
async def test_what_the_file_demands_no_request_can_waive(tmp_path: Path) -> None:
    """Approvals and allowed tools of models.yaml; without a word in the request all calls wait, as with OpenAI."""
    here = ", require_approval: never, approval_for: [screenshot], allowed_tools: [screenshot, code]"
    stdio = STDIO.replace("}", ', "allowed_tools": ["add"]}')
    async with hosting(tools_here) as (host,), asking(tmp_path, host, stdio=stdio, here=here) as (sdk, _, _):
        silent = await sdk.responses.create(**forced("local", "add", tools=[{"type": "mcp", "server_label": "local"}]))
        assert kinds(silent) == ["mcp_list_tools", "mcp_approval_request"]
        assert [tool.name for tool in listed_in(silent).tools] == ["add"]
        by_file = await sdk.responses.create(**forced("here", "code", tools=[{"type": "mcp", "server_label": "here"}]))
        assert kinds(by_file) == ["mcp_list_tools", "mcp_call", "message"]
        waits = await sdk.responses.create(**forced("here", "screenshot"))
        assert kinds(waits) == ["mcp_list_tools", "mcp_approval_request"]
        with pytest.raises(openai.BadRequestError, match="tool_choice"):
            await sdk.responses.create(**forced("local", "die"))


@in_loop
async def test_a_picture_in_a_result_is_seen_by_the_text_model(tmp_path: Path) -> None:
    """As its caption, now and in the next turn, beside pictures of the user's."""
    async with hosting(tools_here) as (host,), asking(tmp_path, host) as (sdk, _, _):
        first = await sdk.responses.create(**forced("here", "screenshot", "What colour is the circle?"))
        assert "red" in first.output_text
        vision = first.to_dict()["periscope"]["vision"]
        assert (vision["num_images"], vision["num_failed"]) == (1, 0)
        assert "image/png" in call_of(first).output
        asked = "What colour is the circle?"
        again = await sdk.responses.create(model="demo", input=asked, previous_response_id=first.id)
        assert "red" in again.output_text
        vision = again.to_dict()["periscope"]["vision"]  # type: ignore[index]
        assert (vision["num_images"], vision["num_cache_hits"]) == (1, 1)


@in_loop
async def test_a_server_that_is_not_there_or_dies_is_told(tmp_path: Path) -> None:
    """No start and no answer is hindered by it: the list fails, or the call does, and the model reads why."""
    host = HttpHost(tools_here)
    await host.start()
    await host.stop()
    async with asking(tmp_path, host, here=", timeout_s: 20, connect_timeout_s: 5") as (sdk, runtime, _):
        asked: Any = {"model": "demo", "input": "Hello!", "tools": [entry("here")]}
        events, told = await streamed(sdk, **asked)
        assert kinds(told) == ["mcp_list_tools", "message"]
        assert "here cannot be reached" in listed_in(told).error
        assert "response.mcp_list_tools.failed" in [event.type for event in events]
        with pytest.raises(openai.InternalServerError, match="here cannot be reached") as demanded:
            await sdk.responses.create(**forced("here", "code"))
        assert demanded.value.status_code == 502
        down = runtime.control.status().tool_servers[1]
        assert (down.name, down.num_tools) == ("here", 0)
        assert down.problem
        health = runtime.service.health()
        assert (health.status, health.is_ready) == ("degraded", True)
        assert health.problems == (f"The MCP server here cannot be reached: {down.problem}.",)

        await host.start()
        works = await sdk.responses.create(**forced("here", "code", previous_response_id=told.id))
        assert runtime.service.health().problems == ()
        assert kinds(works) == ["mcp_list_tools", "mcp_call", "message"]
        await host.stop()
        gone = await sdk.responses.create(**forced("here", "code", previous_response_id=works.id))
        assert kinds(gone) == ["mcp_call", "message"]
        called = call_of(gone)
        assert (called.status, called.output, called.error.type) == ("failed", None, "mcp_protocol_error")

        died = call_of(await sdk.responses.create(**forced("local", "die")))
        assert died.status == "failed"
        alive = call_of(await sdk.responses.create(**forced("local", "pid")))
        assert alive.status == "completed"


@in_loop
async def test_a_client_that_leaves_in_the_middle_of_a_call_leaves_nothing(tmp_path: Path) -> None:
    """The request is gone, the server works on, and a request that is cancelled by command ends, too."""
    async with hosting(tools_here) as (host,), asking(tmp_path, host) as (sdk, runtime, _):
        async with await sdk.responses.create(**forced("local", "sleep"), stream=True) as stream:
            async for event in stream:
                if event.type == "response.mcp_call_arguments.done":
                    break
            (running,) = runtime.control.requests()
            assert running.status in ("calling", "generating")
            assert all(model.num_running == 0 for model in runtime.service.statuses() if running.status == "calling")
        while runtime.control.requests():
            await asyncio.sleep(0.01)
        assert call_of(await sdk.responses.create(**forced("local", "pid"))).status == "completed"

        waiting = asyncio.create_task(sdk.responses.create(**forced("local", "sleep")))
        while not any(request.status == "calling" for request in runtime.control.requests()):
            await asyncio.sleep(0.01)
        runtime.control.cancel(runtime.control.requests()[0].id)
        with pytest.raises(openai.APIStatusError, match="cancelled"):
            await waiting


@in_loop
async def test_servers_come_and_go_with_models_yaml(tmp_path: Path) -> None:
    """A reload adds one and removes one, whose process ends; the others keep their connections."""
    async with hosting(tools_here) as (host,), asking(tmp_path, host) as (sdk, runtime, path):
        pid = int(call_of(await sdk.responses.create(**forced("local", "pid"))).output)
        await sdk.responses.create(**forced("here", "code"))
        path.write_text(
            f"{MODELS}mcp_servers:\n  - {{name: here, url: '{host.at('here').url}'}}\n  - "
            f"{STDIO.replace('local', 'new')}\n"
        )
        changes = await runtime.reload()
        assert set(changes.mcp_servers) == {"local", "new"}
        assert [(server.name, server.state) for server in runtime.tool_servers.statuses] == [
            ("here", "ready"),
            ("new", "idle"),
        ]
        while psutil.pid_exists(pid):
            await asyncio.sleep(0.01)
        with pytest.raises(openai.BadRequestError, match="Known are: here, new"):
            await sdk.responses.create(**forced("local", "pid"))
        assert call_of(await sdk.responses.create(**forced("new", "pid"))).output != str(pid)


@in_loop
async def test_calls_are_bounded_and_the_clients_functions_are_the_clients(tmp_path: Path) -> None:
    """`max_tool_calls` of 0 runs nothing; a forced function beside a server ends the response with its call."""
    function = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
    async with hosting(tools_here) as (host,), asking(tmp_path, host) as (sdk, _, _):
        none = await sdk.responses.create(**forced("local", "add", max_tool_calls=0))
        assert kinds(none) == ["mcp_list_tools", "message"]
        tools: Any = [entry("local"), function]
        choice = {"type": "function", "name": "weather"}
        mixed = await sdk.responses.create(**forced("local", "add", tools=tools, tool_choice=choice))
        assert kinds(mixed) == ["mcp_list_tools", "function_call"]
        called = mixed.output[1]
        assert isinstance(called, shapes.ResponseFunctionToolCall)
        given: Any = {"type": "function_call_output", "call_id": called.call_id, "output": "Sunny."}
        done = await sdk.responses.create(model="demo", tools=tools, input=[given], previous_response_id=mixed.id)
        assert kinds(done)[-1] == "message"
        counted = await sdk.responses.input_tokens.count(model="demo", input="Hello!", tools=[entry("local")])
        alone = await sdk.responses.input_tokens.count(model="demo", input="Hello!")
        assert counted.input_tokens > alone.input_tokens
