"""`/mcp` as agents' SDKs call it: JSON-RPC in, JSON or events out; calls end when nobody waits for them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from periscope.core import McpProgress, McpReply
from tests.api.driving import LONG_S, SHORT_S, FakeBackend, FakeTools, app_over, client_of, in_loop
from tests.api.exchange import Exchange, frames_of
from tests.api.gates import Gate

BOTH = {"accept": "application/json, text/event-stream"}
LIST = {"jsonrpc": "2.0", "id": 7, "method": "tools/list"}
CALL: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": "a",
    "method": "tools/call",
    "params": {"name": "describe_image", "arguments": {"image": "data:image/png;base64,AA"}},
}


#: A call whose client wants to hear of its progress.
WATCHED = CALL | {"params": CALL["params"] | {"_meta": {"progressToken": "t"}}}


def cancelling(request_id: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}


def exchange(tools: FakeTools, body: Any, *, session: str | None = None, **settings: Any) -> Exchange:
    headers = [(b"host", b"localhost:7374"), (b"accept", BOTH["accept"].encode())]
    headers += [] if session is None else [(b"mcp-session-id", session.encode())]
    return Exchange(app_over(FakeBackend(), mcp=tools, **settings), body, path="/mcp", headers=headers)


def messages_of(text: str) -> list[dict[str, Any]]:
    """The JSON-RPC messages of a stream."""
    assert all(frame.startswith(("event: message\ndata: ", ": ")) for frame in text.split("\n\n")[:-1])
    return [json.loads(frame) for frame in frames_of(text.replace("event: message\n", ""))]


@in_loop
async def test_a_quick_answer_is_plain_json() -> None:
    """The image is handed on beside the message, and the protocol's own headers with it."""
    tools = FakeTools(McpProgress(0, "Describing."))
    async with client_of(FakeBackend(), mcp=tools) as client:
        reply = await client.post("/mcp", json=CALL, headers=BOTH | {"MCP-Protocol-Version": "2025-11-25"})
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json() == {"jsonrpc": "2.0", "id": "a", "result": {}}
    (asked,) = tools.requests
    assert asked.image == "data:image/png;base64,AA"
    assert asked.message["params"]["arguments"] == {"image": "data:,"}
    assert asked.headers == ((b"mcp-protocol-version", b"2025-11-25"),)


@in_loop
async def test_the_status_of_the_reply_is_the_answers() -> None:
    """Of the protocol of 2026, in which an unknown method is a 404."""
    fault = {"jsonrpc": "2.0", "id": 7, "error": {"code": -32601, "message": "Method not found"}}
    async with client_of(FakeBackend(), mcp=FakeTools(McpReply(404, json.dumps(fault).encode()))) as client:
        reply = await client.post("/mcp", json=LIST, headers=BOTH)
    assert (reply.status_code, reply.json()) == (404, fault)


@in_loop
async def test_a_slow_answer_is_a_stream() -> None:
    """Progress for who asked for it, else signs of life; the answer ends it."""
    for body in (WATCHED, CALL):
        gate, last = Gate(), Gate()
        call = exchange(
            FakeTools(McpProgress(0.5, "Describing."), gate, McpProgress(2, "Loading\u2028eyes."), last),
            body,
            heartbeat_s=SHORT_S,
        )
        assert await call.status() == 200
        first = await call.frame()
        gate.opened.set()
        await last.reached.wait()
        last.opened.set()
        *told, answer = messages_of(first + await call.rest())
        assert answer == {"jsonrpc": "2.0", "id": "a", "result": {}}
        assert [each["method"] for each in told] == ["notifications/progress"] * (2 if body is not CALL else 0)
        if told:
            assert told[1]["params"] == {"progressToken": "t", "progress": 2, "message": "Loading\u2028eyes."}
        else:
            assert first == ": keep-alive\n\n"


@in_loop
async def test_who_takes_no_events_waits_for_json() -> None:
    """As curl does without a header of its own."""
    gate = Gate()
    tools = FakeTools(McpProgress(0, "Describing."), gate)
    async with client_of(FakeBackend(), mcp=tools, heartbeat_s=SHORT_S) as client:
        asking = asyncio.create_task(client.post("/mcp", json=WATCHED))
        await gate.reached.wait()
        await asyncio.wait([asking], timeout=10 * SHORT_S)
        gate.opened.set()
        assert (await asking).json()["result"] == {}


@in_loop
async def test_notifications_and_answers_are_taken_without_a_word() -> None:
    """No tool hears of them."""
    tools = FakeTools()
    async with client_of(FakeBackend(), mcp=tools) as client:
        for body in (
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
            {"jsonrpc": "2.0", "id": 1, "result": {"roots": []}},
            cancelling(1),
            cancelling([1]),
        ):
            reply = await client.post("/mcp", json=body, headers=BOTH)
            assert (reply.status_code, reply.content) == (202, b"")
    assert not tools.requests


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b"{", -32700, "not JSON"),
        (b"[" * 300 + b"]" * 300, -32700, "nested"),
        (json.dumps([LIST]).encode(), -32600, "one JSON-RPC message"),
        (b"5", -32600, "must be an object"),
        (b"{}", -32600, "`jsonrpc` is missing"),
        (json.dumps(LIST | {"jsonrpc": "1.0"}).encode(), -32600, "`jsonrpc`"),
        (json.dumps({"jsonrpc": "2.0"}).encode(), -32600, "`method` is missing"),
        (json.dumps(LIST | {"method": 5}).encode(), -32600, "`method`"),
        (json.dumps(LIST | {"id": None}).encode(), -32600, "`id` is null"),
        (json.dumps(LIST | {"id": {}}).encode(), -32600, "`id` must be a string of at most"),
        (json.dumps(LIST | {"id": 10**400}).encode(), -32600, "`id` must be a string of at most"),
        (json.dumps(LIST | {"id": "x" * 10_000}).encode(), -32600, "`id` must be a string of at most"),
        (json.dumps(LIST | {"params": [1]}).encode(), -32600, "`params` must be an object"),
    ],
)
@in_loop
async def test_what_is_no_message_is_told_in_json_rpc(body: bytes, code: int, said: str) -> None:
    """A 400 that says what is wrong, and no tool is asked."""
    tools = FakeTools()
    async with client_of(FakeBackend(), mcp=tools) as client:
        reply = await client.post("/mcp", content=body, headers=BOTH)
    error = refusal(reply, 400)
    assert error["code"] == code
    assert said in error["message"]
    assert not tools.requests


def refusal(reply: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer, which must be JSON-RPC's."""
    assert reply.status_code == status
    assert set(reply.json()) == {"jsonrpc", "id", "error"}
    assert reply.json()["id"] is None
    return dict(reply.json()["error"])


@in_loop
async def test_the_layers_of_every_route_are_before_it() -> None:
    """Key, Host, Origin, size and method, each in the words of JSON-RPC."""
    tools = FakeTools()
    async with client_of(FakeBackend(), mcp=tools, api_key="secret", max_body_bytes=2000) as client:
        assert refusal(await client.post("/mcp", json=LIST), 401)["data"] == {"code": "invalid_api_key"}
        key = {"authorization": "Bearer secret"}
        foreign = await client.post("/mcp", json=LIST, headers=key | {"host": "evil.example"})
        assert refusal(foreign, 403)["data"] == {"code": "host_refused"}
        page = await client.post("/mcp", json=LIST, headers=key | {"origin": "https://evil.example"})
        assert refusal(page, 403)["data"] == {"code": "origin_refused"}
        large = await client.post("/mcp", json=LIST | {"params": {"a": "x" * 2000}}, headers=key)
        assert "server.limits.max_body_bytes" in refusal(large, 413)["message"]
        assert not tools.requests
        for method in ("GET", "DELETE"):
            reply = await client.request(method, "/mcp", headers=key | {"accept": "text/event-stream"})
            assert (refusal(reply, 405)["data"]["code"], reply.headers["allow"]) == ("method_not_allowed", "POST")
        for headers in (key, {"x-api-key": "secret"}):
            assert (await client.post("/mcp", json=LIST, headers=headers)).status_code == 200


@in_loop
async def test_an_endpoint_that_is_not_there_says_why() -> None:
    """It is off by setting, or what it needs is not installed."""
    async with client_of(FakeBackend()) as client:
        assert "mlx-periscope[mcp]" in refusal(await client.post("/mcp", json=LIST), 404)["message"]
    async with client_of(FakeBackend(), has_mcp_endpoint=False) as client:
        assert "server.mcp_endpoint.enabled" in refusal(await client.post("/mcp", json=LIST), 404)["message"]
        assert "/mcp" in (await client.get("/sse")).json()["error"]["message"]


@in_loop
async def test_each_client_gets_a_session_of_its_own() -> None:
    """By the answer to `initialize` alone; one that the server does not know is as good, because nothing is kept."""
    hello = LIST | {"method": "initialize"}
    async with client_of(FakeBackend(), mcp=FakeTools()) as client:
        first, second = [(await client.post("/mcp", json=hello)).headers["mcp-session-id"] for _ in range(2)]
        assert first != second
        for session in (first, "of-before-a-restart"):
            reply = await client.post("/mcp", json=LIST, headers={"mcp-session-id": session})
            assert (reply.status_code, "mcp-session-id" in reply.headers) == (200, False)


@in_loop
async def test_a_cancelled_call_ends() -> None:
    """Only the one of this id in this session; its client is told, before and after its stream has begun."""
    for heartbeat_s in (SHORT_S, LONG_S):
        gate = Gate()
        tools = FakeTools(gate)
        app = app_over(FakeBackend(), mcp=tools, heartbeat_s=heartbeat_s, commit_grace_s=heartbeat_s)
        headers = [(b"host", b"localhost:7374"), (b"accept", BOTH["accept"].encode()), (b"mcp-session-id", b"mine")]
        call = Exchange(app, CALL, path="/mcp", headers=headers)
        await gate.reached.wait()
        if heartbeat_s == SHORT_S:
            assert await call.status() == 200
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as client:
            for session, asked in (("other", "a"), ("mine", "b"), ("", "a")):
                await client.post("/mcp", json=cancelling(asked), headers={"mcp-session-id": session})
            assert tools.num_open == 1
            await client.post("/mcp", json=cancelling("a"), headers={"mcp-session-id": "mine"})
        if heartbeat_s == LONG_S:
            assert await call.status() == 200
        told = await call.rest()
        answer = messages_of(told)[-1] if heartbeat_s == SHORT_S else json.loads(told)
        assert (answer["id"], answer["error"]["code"]) == ("a", -32800)
        assert tools.num_open == 0


@in_loop
async def test_a_client_that_has_gone_ends_its_call() -> None:
    """Before its stream has begun, and after."""
    for heartbeat_s in (SHORT_S, LONG_S):
        gate = Gate()
        tools = FakeTools(gate)
        call = exchange(tools, CALL, heartbeat_s=heartbeat_s, commit_grace_s=heartbeat_s)
        await gate.reached.wait()
        if heartbeat_s == SHORT_S:
            await call.status()
        call.disconnect()
        await call.task
        assert tools.num_open == 0


@in_loop
async def test_a_call_that_the_servers_end_cuts_off_is_told_so() -> None:
    """In its stream, or as its whole answer."""
    for heartbeat_s in (SHORT_S, LONG_S):
        gate = Gate()
        call = exchange(FakeTools(gate), CALL, heartbeat_s=heartbeat_s, commit_grace_s=heartbeat_s)
        await gate.reached.wait()
        if heartbeat_s == SHORT_S:
            await call.status()
        call.task.cancel()
        await asyncio.wait([call.task])
        assert call.task.cancelled()
        if heartbeat_s == LONG_S:
            assert await call.status() == 200
        text = "".join([m["body"].decode() for m in call.messages if m["type"] == "http.response.body"])
        answer = messages_of(text)[-1] if heartbeat_s == SHORT_S else json.loads(text)
        assert (answer["id"], answer["error"]["data"]["code"]) == ("a", "server_stopping")


@in_loop
async def test_a_fault_of_ours_is_an_error_with_a_trace_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets the id of its line, and not a word of what went wrong."""
    async with client_of(FakeBackend(), mcp=FakeTools(RuntimeError("secret"))) as client:
        reply = await client.post("/mcp", json=LIST)
    error = reply.json()["error"]
    assert (error["code"], error["data"]["code"]) == (-32603, "internal_error")
    assert "secret" not in reply.text
    assert "unexpected error in a call" in caplog.text
