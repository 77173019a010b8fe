"""`/mcp` of a real server, as agents use it: by the SDK's client over HTTP, in both of its protocols."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import httpx
import httpx2
import pytest
from mcp import Client, MCPError, types
from mcp.client.streamable_http import streamable_http_client

from tests.api.driving import LONG_S, in_loop
from tests.cli.process import ServeProcess
from tests.e2e.drawing import circle, data_url, square
from tests.library.conftest import DEMO

Mode: TypeAlias = Literal["legacy", "auto"]
KEY = "a-key"
QUESTION = {"image": data_url(circle("red")), "question": "What?"}


def config_of(folder: Path, server: str, text: str = DEMO) -> str:
    file = folder / "models.yaml"
    file.write_text(f"server: {server}\n{text}")
    return str(file)


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory, endless_model: Path) -> str:
    """The demo pair, but its text model goes on and on."""
    entry = f"name: demo\n    local_path: {endless_model}\n"
    text = DEMO.replace("name: demo\n    local_path: embedded:text\n", entry)
    return config_of(tmp_path_factory.mktemp("endless"), "{port: 1, mcp_endpoint: {allow: [.]}}", text)


@pytest.fixture(scope="module")
def talking(endless: str) -> Iterator[ServeProcess]:
    """A server with that pair, for tests that leave it as it was."""
    with ServeProcess("--config", endless, "--port", "0") as server:
        server.wait_until_ready()
        yield server


@asynccontextmanager
async def connected(url: str, mode: Mode, **headers: str) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers=headers, timeout=LONG_S) as http,  # `in_loop` bounds each test
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    assert isinstance(result.content[0], types.TextContent)
    return result.content[0].text if result.is_error else result.structured_content


async def wait_until_answering(http: httpx.AsyncClient, *, is_answering: bool) -> None:
    while bool((await http.get("/api/requests")).json()["requests"]) is not is_answering:
        await asyncio.sleep(0.01)


@in_loop
async def test_agents_see_by_the_running_server(tmp_path: Path) -> None:
    """With a key in either header; pictures in the message or of an allowed folder."""
    (tmp_path / "shots").mkdir()
    square("blue").save(tmp_path / "shots" / "a.png")
    config = config_of(tmp_path, f"{{port: 1, api_key: {KEY}, mcp_endpoint: {{allow: [shots]}}}}")
    with ServeProcess("--config", config, "--port", "0") as server:
        server.wait_until_ready()
        async with connected(server.url, "legacy", authorization=f"Bearer {KEY}") as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == [
                "describe_image",
                "read_text",
                "ask_about_image",
            ]
            assert "red circle" in (await call(client, "describe_image", image=data_url(circle("red"))))["description"]
            assert "is outside of the folders" in await call(client, "read_text", image=config)
        async with connected(server.url, "auto", **{"x-api-key": KEY}) as client:
            assert "blue square" in (await call(client, "describe_image", image="a.png"))["description"]
            answer = await call(client, "ask_about_image", image=data_url(circle("red")), question="What colour is it?")
            assert "red" in answer["answer"]
        async with httpx.AsyncClient() as http:
            asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            assert (await http.post(f"{server.url}/mcp", json=asked)).status_code == 401
        assert server.terminate() == 0


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@in_loop
async def test_a_call_that_is_given_up_frees_its_place(talking: ServeProcess, mode: Mode) -> None:
    """A client that cancels, and one that is gone in the middle of an answer that would go on for minutes."""
    async with httpx.AsyncClient(base_url=talking.url, timeout=LONG_S) as http:
        for is_cancelled in (True, False):
            async with connected(talking.url, mode) as client:
                asking = asyncio.create_task(client.call_tool("ask_about_image", QUESTION))
                await wait_until_answering(http, is_answering=True)
                if is_cancelled:
                    asking.cancel()
                    await wait_until_answering(http, is_answering=False)
                    await client.list_tools()  # the SDK (2.3) breaks if the cancelled call is answered while it leaves
            await asyncio.gather(asking, return_exceptions=True)
            await wait_until_answering(http, is_answering=False)


@in_loop
async def test_a_request_that_an_operator_cancels_is_told_to_the_model(talking: ServeProcess) -> None:
    """Like any other of `/api/requests`, where the agent's question stands; until then the client hears progress."""
    told, is_told = list[str | None](), asyncio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001 - the SDK's shape
        told.append(message)
        is_told.set()

    async with (
        httpx.AsyncClient(base_url=talking.url, timeout=LONG_S) as http,
        connected(talking.url, "legacy") as client,
    ):
        asking = asyncio.create_task(client.call_tool("ask_about_image", QUESTION, progress_callback=hear))
        await wait_until_answering(http, is_answering=True)
        await is_told.wait()
        (row,) = (await http.get("/api/requests")).json()["requests"]
        await http.post(f"/api/requests/{row['id']}/cancel")
        assert "cancelled by a command" in str((await asking).content)
        assert all(told)


@in_loop
async def test_a_server_that_ends_tells_the_call_that_runs(endless: str) -> None:
    """It ends in order, with clients that are connected and with a stream that is open."""
    with ServeProcess("--config", endless, "--port", "0") as server:
        server.wait_until_ready()
        async with (
            httpx.AsyncClient(base_url=server.url, timeout=LONG_S) as http,
            connected(server.url, "legacy") as idle,
            connected(server.url, "legacy") as client,
        ):
            await idle.list_tools()
            asking = asyncio.create_task(client.call_tool("ask_about_image", QUESTION))
            await wait_until_answering(http, is_answering=True)
            server.signal(signal.SIGTERM)
            with pytest.raises(MCPError, match="The server stopped before the answer was complete"):
                await asking
            assert server.wait() == 0


@in_loop
async def test_a_client_goes_on_after_a_restart(tmp_path: Path) -> None:
    """Without a new handshake: most of them cannot begin one in the middle."""
    config = config_of(tmp_path, "{port: 1}")
    with ServeProcess("--config", config, "--port", "0") as first:
        first.wait_until_ready()
        async with connected(first.url, "legacy") as client:
            assert "red" in (await call(client, "describe_image", image=data_url(circle("red"))))["description"]
            assert first.terminate() == 0
            with ServeProcess("--config", config, "--port", first.url.rpartition(":")[2]) as second:
                second.wait_until_ready()
                assert "blue" in (await call(client, "describe_image", image=data_url(square("blue"))))["description"]
