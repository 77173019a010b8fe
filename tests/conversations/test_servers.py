"""Sessions with real MCP servers over HTTP and stdio."""

from __future__ import annotations

import asyncio
import base64
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.types import ResourceLink

from periscope.conversations import (
    CallOutcome,
    CallStarted,
    ConversationOptions,
    HttpServer,
    ResponsesSession,
    StdioServer,
    StopReason,
)
from periscope.conversations.connection import ServerState
from periscope.core import ImagePart
from periscope.errors import ConfigError
from tests.api.driving import in_loop
from tests.conversations.driving import LOCAL, HttpHost, ScriptedModel, asked, call, hosting
from tests.e2e.drawing import circle, data_url
from tests.remote.certificates import self_signed


def weather() -> MCPServer:
    server = MCPServer("weather")

    @server.tool()
    def forecast(city: str) -> str:
        """The weather in a city."""
        return f"Sunny in {city}."

    @server.tool()
    def add(a: int, b: int) -> str:
        """Joins two numbers."""
        return f"{a}{b}"

    return server


def pictures() -> MCPServer:
    server = MCPServer("pictures")

    @server.tool()
    def screenshot() -> Image:
        """What is on the screen."""
        return Image(data=base64.b64decode(data_url(circle("red", 32)).partition(",")[2]), format="png")

    return server


def linking() -> MCPServer:
    server = MCPServer("linking")
    drawn = base64.b64decode(data_url(circle("red", 32)).partition(",")[2])

    @server.resource("shot://1", mime_type="image/png")
    def shot() -> bytes:
        return drawn

    @server.resource("log://1", mime_type="text/plain")
    def log() -> str:
        return "All is well."

    @server.tool()
    def found() -> list[ResourceLink]:
        """Links to what it has, to what is gone, and to what is too large to be read."""
        return [
            ResourceLink(name="shot", uri="shot://1", mime_type="image/png"),
            ResourceLink(name="log", uri="log://1", mime_type="text/plain"),
            ResourceLink(name="gone", uri="log://2", mime_type="text/plain"),
            ResourceLink(name="large", uri="log://3", mime_type="text/plain", size=2**40),
        ]

    return server


@in_loop
async def test_what_a_result_links_to_is_read_from_its_server() -> None:
    """Texts and images by the same session, behind their links; of others the model reads the link."""
    model = ScriptedModel([[call("found")]])
    async with hosting(linking) as (host,), ResponsesSession(model, (host.at("linking"),)) as session:
        told = await session.run_conversation([asked()])
    parts = told.messages[1].parts
    assert told.tool_calls[0].outcome is CallOutcome.DONE
    assert [type(part).__name__ for part in parts[:3]] == ["TextPart", "ImagePart", "TextPart"]
    assert "All is well." in told.messages[1].text
    assert "log://2" in told.messages[1].text


@in_loop
async def test_tools_of_three_servers_are_called_side_by_side_and_nothing_is_left() -> None:
    """Each call goes to the server that has the tool; names that collide stand behind their server's."""
    model = ScriptedModel(
        [
            [
                call("forecast", city="Paris"),
                call("screenshot"),
                call("local__add", a=2, b=3),
                call("weather__add", a=2, b=3),
            ],
            [call("pid")],
        ]
    )
    async with hosting(weather, pictures) as (first, second):
        weather_server = first.at("weather", auth_token="secret")  # noqa: S106 - nobody's
        servers = (weather_server, second.at("pictures"), LOCAL)
        async with ResponsesSession(model, servers) as session:
            told = await session.run_conversation([asked()])
        assert any(headers.get(b"authorization") == b"Bearer secret" for headers in first.headers)
    assert told.stop_reason is StopReason.ANSWERED
    assert [(each.source, each.outcome) for each in told.tool_calls] == [
        ("weather", CallOutcome.DONE),
        ("pictures", CallOutcome.DONE),
        ("local", CallOutcome.DONE),
        ("weather", CallOutcome.DONE),
        ("local", CallOutcome.DONE),
    ]
    assert [message.text for message in told.messages[1:5]] == ["Sunny in Paris.", "", "5", "23"]
    (shown,) = told.messages[2].parts
    assert isinstance(shown, ImagePart)
    assert shown.url.startswith("data:image/png;base64,")
    assert not psutil.pid_exists(int(told.messages[-2].text))


@in_loop
async def test_a_server_that_dies_is_told_to_the_model_and_used_again_when_it_is_back() -> None:
    """Both kinds: an HTTP server that is ended and started again, and a process that ends in the middle of a call."""
    model = ScriptedModel([])
    async with hosting(weather) as (host,), ResponsesSession(model, (host.at("weather"), LOCAL)) as session:

        async def outcome_of(name: str, **arguments: Any) -> tuple[CallOutcome, str]:
            model.script[:] = [[call(name, **arguments)]]
            told = await session.run_conversation([asked()])
            assert told.message.text == "done"
            return told.tool_calls[0].outcome, told.messages[1].text

        before = await outcome_of("pid")
        assert (await outcome_of("die"))[0] is CallOutcome.UNREACHABLE
        again = await outcome_of("pid")
        assert again[0] is CallOutcome.DONE
        assert again != before

        await host.stop()
        assert (await outcome_of("forecast", city="Rome"))[0] is CallOutcome.UNREACHABLE
        outcome, told = await outcome_of("forecast", city="Rome")
        assert outcome is CallOutcome.UNREACHABLE
        assert "cannot be reached" in told
        down = session.health[0]
        assert down.state is not ServerState.READY
        assert down.problem
        assert down.num_tools == 2
        await host.start()
        assert await outcome_of("forecast", city="Rome") == (CallOutcome.DONE, "Sunny in Rome.")
        assert session.health[0].state is ServerState.READY


@in_loop
async def test_a_session_begins_without_a_server_that_is_not_there() -> None:
    """Its tools are offered as soon as it is there; the others work meanwhile."""
    model = ScriptedModel([])
    host = HttpHost(weather)
    await host.start()
    await host.stop()
    async with ResponsesSession(model, (host.at("weather", timeout_s=5), LOCAL)) as session:
        assert session.health[0].problem
        assert "pid" in {tool.name for tool in session.tools}
        assert "forecast" not in {tool.name for tool in session.tools}
        await host.start()
        while session.health[0].state is not ServerState.READY:
            await asyncio.sleep(0.01)
        assert "forecast" in {tool.name for tool in session.tools}
    await host.stop()


@in_loop
async def test_what_a_program_wrote_before_it_ended_is_told_to_who_runs_it_alone(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Why it ended stands there; the model and its client learn that it has, and not which files there are."""
    ends = "import sys; print('starting', file=sys.stderr); sys.exit('\\33[31mno key in /home/me/key\\33[0m')"
    model = ScriptedModel([[call("pid")]])
    servers = (StdioServer("broken", sys.executable, ("-c", ends)), LOCAL)
    async with ResponsesSession(model, servers) as session:
        health = session.health[0]
        assert health.problem == "its program has ended; it wrote last: no key in /home/me/key"
        assert f"MCP server broken ({servers[0].place}): {health.problem}" in caplog.text
        assert "starting\n" in capfd.readouterr().err
        model.script[:] = [[call("die")]]
        told = await session.run_conversation([asked()])
        assert told.messages[1].text == "The tool failed: its program has ended."


@in_loop
async def test_tools_are_discovered_again_when_the_server_says_so() -> None:
    """A tool that another tool adds is offered in the next turn, without any waiting of ours."""

    def growing() -> MCPServer:
        server = MCPServer("growing")

        @server.tool()
        async def grow(ctx: Context[Any, Any]) -> str:
            """Adds a tool."""
            server.add_tool(lambda: "new", name="added", description="A new one.")
            await ctx.notify_tools_changed()
            return "grown"

        return server

    model = ScriptedModel([[call("grow")]])
    async with hosting(growing) as (host,), ResponsesSession(model, (host.at("growing"),)) as session:
        await session.run_conversation([asked()])
        while "added" not in {tool.name for tool in session.tools}:
            await asyncio.sleep(0.01)
        model.script[:] = [[call("added")]]
        told = await session.run_conversation([asked()])
        assert told.messages[1].text == "new"
        assert told.tool_calls[0].outcome is CallOutcome.DONE


@in_loop
async def test_a_call_takes_no_longer_than_its_servers_timeout() -> None:
    """The model is told, and the server still works."""
    model = ScriptedModel([[call("sleep")], [call("add", a=2, b=2)]])
    async with ResponsesSession(model, (replace(LOCAL, timeout_s=1),)) as session:
        told = await session.run_conversation([asked()])
    assert [each.outcome for each in told.tool_calls] == [CallOutcome.TIMED_OUT, CallOutcome.DONE]
    assert "1 seconds" in told.messages[1].text


@in_loop
async def test_a_conversation_cancelled_in_a_call_leaves_no_process() -> None:
    """The session is left by the cancellation itself."""
    others = set(psutil.Process().children())  # servers of other tests
    pids = []
    model = ScriptedModel([[call("pid")]])

    async def talk() -> None:
        async with ResponsesSession(model, (LOCAL,)) as session:
            pids.append((await session.run_conversation([asked()])).messages[1].text)
            model.script[:] = [[call("sleep")]]
            await session.run_conversation([asked()], ConversationOptions(on_event=sleeping))

    begun = asyncio.Event()

    def sleeping(event: object) -> None:
        if isinstance(event, CallStarted):
            begun.set()

    talking = asyncio.create_task(talk())
    await begun.wait()
    talking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await talking
    assert not psutil.pid_exists(int(pids[0]))
    assert set(psutil.Process().children()) <= others


@in_loop
async def test_a_certificate_is_checked_against_the_authority_that_is_named(tmp_path: Path) -> None:
    """With its `ca_file` a server is connected to; without it is not, unless nothing is to be checked."""
    certificate = self_signed(tmp_path, "IP:127.0.0.1")
    host = HttpHost(weather, certificate=certificate)
    await host.start()
    servers = (
        host.at("named", ca_file=certificate),
        host.at("unknown"),
        host.at("unchecked", checks_certificate=False),
    )
    async with ResponsesSession(ScriptedModel([]), servers) as session:
        assert [health.num_tools for health in session.health] == [2, 0, 2]
        assert "certificate" in (session.health[1].problem or "").lower()
    await host.stop()


def test_what_cannot_be_a_server_is_refused() -> None:
    """When it is made, with the field and the reason; so are two of one name."""
    for make, field in (
        (lambda: HttpServer("a b", "http://x"), "name"),
        (lambda: HttpServer("a", "ftp://x"), "url"),
        (lambda: HttpServer("a", "http://me:secret@x"), "auth_token"),
        (lambda: HttpServer("a", "http://x", timeout_s=0), "timeout_s"),
        (lambda: StdioServer("a", ""), "command"),
        (lambda: StdioServer("a", "npx", "-y server"), "args"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError, match=field):
            make()
    with pytest.raises(ConfigError, match="local"):
        ResponsesSession(ScriptedModel([]), (LOCAL, LOCAL))


@in_loop
async def test_a_server_that_refuses_the_token_says_what_to_check() -> None:
    """The SDK's own error names neither the status nor the fix."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listener:
        server = HttpServer("denied", f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/mcp")
        async with ResponsesSession(ScriptedModel([]), (server,)) as session:
            assert "HTTP 401: check its auth_token" in (session.health[0].problem or "")


@in_loop
async def test_a_function_keeps_its_name_beside_a_servers_tool() -> None:
    """What the program has named, it may also force or allow by that name, whatever a server has."""

    def add(a: int) -> int:
        """Ours."""
        return a

    model = ScriptedModel([[call("add", a=1), call("local__add", a=1, b=2)]])
    async with ResponsesSession(model, (LOCAL,), (add,)) as session:
        told = await session.run_conversation([asked()])
    assert [message.text for message in told.messages[1:3]] == ["1", "3"]
