"""The tools over HTTP, by the SDK's transport: both of its protocols, and nothing kept from one request to the next."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from periscope.core import McpProgress, McpReply, McpRequest
from periscope.mcp_server import AllowedFolders, HttpTools
from tests.api.driving import in_loop
from tests.mcp_server.test_tools import DATA, PlayedSight

VERSION = "2026-07-28"
MODERN = ((b"mcp-protocol-version", VERSION.encode()), (b"mcp-method", b"tools/call"), (b"mcp-name", b"read_text"))
META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientCapabilities": {"roots": {}},
}


def called(tool: str, **arguments: Any) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "id": 3,
        "method": "tools/call",
        "params": {"name": tool, "arguments": {"image": "data:,", **arguments}},
    }


async def answered(events: AsyncGenerator[McpProgress | McpReply, None]) -> tuple[int, dict[str, Any]]:
    """The status and the message of the answer."""
    *told, reply = [event async for event in events]
    assert isinstance(reply, McpReply)
    assert all(isinstance(each, McpProgress) for each in told)
    return reply.status, json.loads(reply.body)


async def structured(tools: HttpTools, request: McpRequest) -> Any:
    _, message = await answered(tools.answer(request))
    result = message["result"]
    return result["content"][0]["text"] if result["isError"] else result["structuredContent"]


@pytest.mark.parametrize("is_modern", [False, True])
@in_loop
async def test_a_tool_sees_the_image_that_came_beside_the_message(is_modern: bool) -> None:
    """By the protocols with a handshake, of which none is needed here, and by the one without."""
    sight = PlayedSight()
    message = called("read_text")
    if is_modern:
        message["params"]["_meta"] = META
    told = await structured(HttpTools(sight, AllowedFolders()), McpRequest(message, DATA, MODERN if is_modern else ()))
    assert (told, sight.images) == ({"text": "STOP"}, [DATA])


@in_loop
async def test_the_handshake_and_the_list_need_no_session() -> None:
    """In any order; what is not known is told so."""
    tools = HttpTools(PlayedSight(), AllowedFolders())
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}
    _, message = await answered(tools.answer(McpRequest(request("tools/list"))))
    assert [tool["name"] for tool in message["result"]["tools"]] == ["describe_image", "read_text", "ask_about_image"]
    _, message = await answered(tools.answer(McpRequest(request("initialize", hello))))
    assert message["result"]["protocolVersion"] == "2025-06-18"
    assert message["result"]["serverInfo"]["name"] == "periscope"
    status, message = await answered(tools.answer(McpRequest(request("no/such"))))
    assert (status, message["error"]["code"]) == (200, -32601)
    _, message = await answered(tools.answer(McpRequest(request("tools/call", {"name": 5}))))
    assert message["error"]["code"] == -32602


def request(method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}


@in_loop
async def test_a_subscription_is_no_method_here() -> None:
    """Of the protocol without a handshake, whose clients may ask for one; the answer is JSON like any other."""
    headers = ((b"mcp-protocol-version", VERSION.encode()), (b"mcp-method", b"subscriptions/listen"))
    message = request("subscriptions/listen", {"_meta": META, "notifications": {}})
    status, told = await answered(HttpTools(PlayedSight(), AllowedFolders()).answer(McpRequest(message, None, headers)))
    assert (status, told["id"], told["error"]["code"]) == (404, 1, -32601)


@in_loop
async def test_only_folders_of_the_setting_are_read(tmp_path: Path) -> None:
    """Whatever roots a client says that it shares: it may be on another machine."""
    (tmp_path / "a.png").write_bytes(b"picture")
    way = "name a folder in `server.mcp_endpoint.allow`"
    message = called("read_text")
    message["params"]["_meta"] = META
    for folders, said in (((), way), ((tmp_path,), {"text": "STOP"})):
        tools = HttpTools(PlayedSight(), AllowedFolders(folders, way))
        told = await structured(tools, McpRequest(message, str(tmp_path / "a.png"), MODERN))
        assert told == said or said in told


@in_loop
async def test_progress_is_told_until_the_call_is_given_up() -> None:
    """When closing returns, the work has stopped."""
    sight = PlayedSight(answer=None)
    events = HttpTools(sight, AllowedFolders()).answer(McpRequest(called("ask_about_image", question="What?"), DATA))
    assert await anext(events) == McpProgress(ANY, "Loading eyes, 40%.")
    await sight.asking.wait()
    await events.aclose()
    assert sight.stopped.is_set()
