"""`periscope mcp` as agents start it: a process that the SDK's client talks to over its stdin and stdout."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client, StdioServerParameters, stdio_client, types

from tests.api.driving import in_loop
from tests.cli.process import ServeProcess, environment, new_home, run_command
from tests.e2e.drawing import circle, data_url, square
from tests.library.conftest import DEMO


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The demo pair; the port in it is one where nobody listens."""
    file = tmp_path / "models.yaml"
    file.write_text(f"server: {{port: 1}}\n{DEMO}")
    return file


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    folder = tmp_path / "shots"
    folder.mkdir()
    circle("red").save(folder / "a.png")
    return folder


@asynccontextmanager
async def started(*arguments: str) -> AsyncIterator[Client]:
    command = ["-m", "periscope", "mcp", *arguments]
    changes = environment({"PERISCOPE_HOME": new_home()})
    async with Client(stdio_client(StdioServerParameters(command=sys.executable, args=command, env=changes))) as client:
        yield client


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    assert isinstance(result.content[0], types.TextContent)
    return result.content[0].text if result.is_error else result.structured_content


@in_loop
async def test_an_agent_has_images_seen_without_a_server(config: Path, shots: Path) -> None:
    """Models are loaded by the first call; files only from the allowed folder; garbage is told to the model."""
    (shots / "bad.png").write_bytes(b"no picture")
    async with started("--allow", str(shots), "--config", str(config)) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == [
            "describe_image",
            "read_text",
            "ask_about_image",
        ]
        told = await call(client, "describe_image", image=str(shots / "a.png"))
        assert "red circle" in told["description"]
        assert (told["width"], told["height"]) == (240, 240)
        told = await call(client, "ask_about_image", image="a.png", question="What colour is the circle?")
        assert "red" in told["answer"]
        assert "outside of the folders" in await call(client, "read_text", image=str(config))
        assert "could not be read as an image" in await call(client, "read_text", image=str(shots / "bad.png"))
        assert "remote_images" in await call(client, "describe_image", image="https://example.com/a.png")


@in_loop
async def test_the_running_server_does_the_work(config: Path) -> None:
    """By its address; when it is gone, the model is told so."""
    with ServeProcess("--config", str(config), "--port", "0") as server:
        server.wait_until_ready()
        async with started("--url", server.url, "--config", str(config)) as client:
            told = await call(client, "describe_image", image=data_url(square("blue")))
            assert "blue square" in told["description"]
            assert server.terminate() == 0
            told = await call(client, "describe_image", image=data_url(circle("green")))
            assert "No Periscope answers" in told


@in_loop
async def test_a_call_that_is_given_up_ends_on_the_server_too(tmp_path: Path, endless_model: Path) -> None:
    """A client that cancels, and one that closes its end in the middle of an answer that would go on for minutes."""
    file = tmp_path / "endless.yaml"
    entry = f"name: demo\n    local_path: {endless_model}\n"
    file.write_text("server: {port: 1}\n" + DEMO.replace("name: demo\n    local_path: embedded:text\n", entry))
    question = {"image": data_url(circle("red")), "question": "What?"}
    with ServeProcess("--config", str(file), "--port", "0") as server:
        server.wait_until_ready()
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:

            async def wait_until_answering(*, is_answering: bool) -> None:
                while bool((await http.get("/api/requests")).json()["requests"]) is not is_answering:
                    await asyncio.sleep(0.01)

            for is_cancelled in (True, False):
                async with started("--url", server.url, "--config", str(file)) as client:
                    call = asyncio.create_task(client.call_tool("ask_about_image", question))
                    await wait_until_answering(is_answering=True)
                    if is_cancelled:
                        call.cancel()
                        await wait_until_answering(is_answering=False)
                await asyncio.gather(call, return_exceptions=True)
                await wait_until_answering(is_answering=False)


def test_a_folder_that_is_not_there_is_told_at_once(config: Path) -> None:
    """On stderr: stdout is the protocol's."""
    ended = run_command("mcp", "--allow", "/no/such/folder", "--config", str(config))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "--allow /no/such/folder: there is no such folder.\n"
