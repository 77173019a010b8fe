"""Bounds of headers and connections, over real sockets: each is named in the dialect of the path."""

from __future__ import annotations

import asyncio

import pytest

from periscope.cli.http_bounds import HTTPBounds
from periscope.cli.http_protocol import Patience
from tests.api.driving import FakeBackend, in_loop
from tests.cli.raw_http import CHAT, LONG, parsed, request, served

MANY = b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + b"x-n: 1\r\n" * 9 + b"\r\n"


LARGE = b"GET /health HTTP/1.1\r\nhost: localhost\r\ncookie: " + b"c" * 2048 + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "setting"),
    [
        (MANY, "max_headers"),
        (LARGE, "max_header_bytes"),
        (LARGE.rstrip(), "max_header_bytes"),
        (b"GET /" + b"p" * 2048 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", "max_header_bytes"),
    ],
    ids=["many", "large", "unfinished", "path"],
)
@pytest.mark.parametrize("before", [b"", request(CHAT)], ids=["first", "later"])
@in_loop
async def test_headers_over_a_limit_are_a_431_that_names_it(before: bytes, sent: bytes, setting: str) -> None:
    """Also when they come in one piece, and on later requests of a connection, which is closed."""
    bounds = HTTPBounds(max_header_bytes=1024, max_headers=8)
    async with served(FakeBackend(), LONG, bounds=bounds) as (host, port, _):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(before + sent)
        answers = await reader.read()
        status, body = parsed(answers[answers.rindex(b"HTTP/1.1") :])
        assert (status, body["error"]["code"]) == (431, "headers_too_large")
        assert f"server.limits.{setting}" in body["error"]["message"]
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        LARGE.replace(b"GET /health", b"POST /v1/messages?beta=true"),
        LARGE.replace(b"GET /health", b"POST /v1/messages").rstrip(),
        LARGE.replace(b"host:", b"Anthropic-Version: 2023-06-01\r\nhost:"),
        b"POST /v1/messages HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\n",
    ],
    ids=["large", "unfinished", "version", "malformed", "late"],
)
@in_loop
async def test_headers_that_cannot_be_used_are_told_in_the_dialect_of_their_request(sent: bytes) -> None:
    """As far as it came: its path, or the version header of Anthropic's clients."""
    bounds = HTTPBounds(max_header_bytes=1024)
    async with served(FakeBackend(), Patience(0.2, 1, 60.0), bounds=bounds) as (host, port, _):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request(CHAT) + sent)
        answers = await reader.read()
        status, body = parsed(answers[answers.rindex(b"HTTP/1.1") :])
        assert status in (400, 408, 431)
        assert body["type"] == "error"
        assert body["request_id"]
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [b"\r\n\r\n\r\n", b"x", b"OPTIONS * HTTP/1.1\r\nbad\r\n\r\n", b"GET a/v1/messages HTTP/1.1\r\nbad\r\n\r\n"],
)
@in_loop
async def test_what_names_no_path_is_told_in_the_dialect_of_all_others(sent: bytes) -> None:
    async with served(FakeBackend(), Patience(0.2, 1, 60.0)) as (host, port, _):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(sent)
        status, body = parsed(await reader.read())
        assert status in (400, 408)
        assert "type" not in body
        writer.close()


@pytest.mark.parametrize(
    ("bounds", "setting"),
    [
        (HTTPBounds(max_connections=2), "max_connections"),
        (HTTPBounds(max_connections_per_client=2), "max_connections_per_client"),
    ],
)
@in_loop
async def test_a_connection_too_many_is_told_and_closed(bounds: HTTPBounds, setting: str) -> None:
    """In the dialect of its path; as soon as another one ends there is room again."""
    ask = b"GET %s HTTP/1.1\r\nhost: localhost\r\n\r\n"
    async with served(FakeBackend(), LONG, bounds=bounds) as (host, port, server):
        held = [await asyncio.open_connection(host, port) for _ in range(2)]
        for path, kind in ((b"/health", "server_error"), (b"/v1/messages", "overloaded_error")):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(ask % path)
            answer = await reader.read()
            status, body = parsed(answer)
            assert status in (503, 529)
            assert body["error"]["type"] == kind
            assert f"`server.limits.{setting}`" in body["error"]["message"]
            assert b"retry-after: 1" in answer
            writer.close()
        held[0][1].close()
        while len(server.server_state.connections) > 1:
            await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(ask % b"/health")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        held[1][1].close()


@in_loop
async def test_connections_without_number_are_closed_without_a_word() -> None:
    """A client that opens them faster than they can be told takes no more of the process than so many."""
    async with served(FakeBackend(), LONG, bounds=HTTPBounds(max_connections=4)) as (host, port, server):
        opened = [await asyncio.open_connection(host, port) for _ in range(80)]
        closed = await asyncio.gather(*(reader.read() for reader, _ in opened[70:]), return_exceptions=True)
        assert all(answer == b"" or isinstance(answer, ConnectionResetError) for answer in closed)
        assert len(server.server_state.connections) <= 68
        for _, writer in opened:
            writer.close()
