"""Whatever a client keeps the server waiting for has a deadline, over real sockets, and its request ends with it."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from periscope.api.dialects import DIALECTS, DialectTable
from periscope.cli.http_protocol import Patience
from periscope.core import GenerationRequest, OutputEvent, TextDelta
from tests.api.driving import FINISHED, HELLO, FakeBackend, in_loop
from tests.api.gates import Gate
from tests.cli.raw_http import CHAT, LONG, parsed, request, served
from tests.remote.certificates import self_signed

#: A request whose chunked body does not begin with the size of a chunk.
UNCHUNKED = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n"


async def unread_connection(host: str, port: int) -> socket.socket:
    """A client that takes next to nothing before it must read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, (host, port))
    return client


class Talkative(FakeBackend):
    """Writes without end, as fast as it is read."""

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[OutputEvent, None]:
        self.requests.append(request)
        self.num_open += 1
        try:
            while True:
                yield TextDelta("x" * 65_536)
                await asyncio.sleep(0)
        finally:
            self.num_open -= 1
            self.closed.set()


@pytest.mark.parametrize("before", [b"", request(CHAT)], ids=["first", "later"])
@in_loop
async def test_headers_that_do_not_end_are_a_408(before: bytes) -> None:
    """On the first request of a connection and on later ones, in OpenAI's form; the connection is closed."""
    async with served(FakeBackend(), Patience(0.05, 1, 60.0)) as (host, port, _):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(before + b"GET /health HTTP/1.1\r\nhost: local")
        answers = await reader.read()
        status, body = parsed(answers[answers.rindex(b"HTTP/1.1") :])
        assert (status, body["error"]["code"]) == (408, "request_timeout")
        assert "server.limits.receive_timeout_s" in body["error"]["message"]
        assert b"connection: close" in answers
        writer.close()


@in_loop
async def test_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    """Browsers open connections ahead of need: they are kept as long as idle ones, and no longer."""
    async with served(FakeBackend(), LONG, keep_alive_s=1) as (host, port, _):
        reader, writer = await asyncio.open_connection(host, port)
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        (b"GET /health HTTP/1.1\r\nno header\r\n\r\n", "headers are malformed"),
        (request(CHAT) + b"no method\r\n\r\n", "headers are malformed"),
        (UNCHUNKED, "body is not in valid chunks"),
    ],
    ids=["headers", "later headers", "chunks"],
)
@in_loop
async def test_what_is_no_http_is_a_400_in_the_form_of_all_errors(sent: bytes, fault: str) -> None:
    """Not uvicorn's plain text, and it says where the fault is."""
    async with served(FakeBackend(), LONG) as (host, port, _):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(sent)
        answers = await reader.read()
        status, body = parsed(answers[answers.rindex(b"HTTP/1.1") :])
        assert (status, body["error"]["type"], body["error"]["code"]) == (400, "invalid_request_error", "invalid_http")
        assert fault in body["error"]["message"]
        writer.close()


@in_loop
async def test_a_request_that_is_not_http_is_refused_in_the_dialect_of_its_path() -> None:
    """The table of dialects that the protocol is given decides in which form it tells its own errors."""
    dialects: DialectTable = {**DIALECTS, "/v1/chat": lambda facts: {"fault": facts.row.code}}
    async with served(FakeBackend(), LONG, dialects=dialects) as (host, port, _):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(UNCHUNKED)
        assert parsed(await reader.read()) == (400, {"fault": "invalid_http"})
        writer.close()


@in_loop
async def test_a_request_that_is_not_http_has_an_id_as_every_other_one() -> None:
    """In the header, and in the error where its dialect has a place for it."""
    async with served(FakeBackend(), LONG) as (host, port, _):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(UNCHUNKED.replace(b"/v1/chat/completions", b"/v1/messages"))
        answer = await reader.read()
        _, body = parsed(answer)
        assert body["type"] == "error"
        assert b"\r\nrequest-id: " + body["request_id"].encode() + b"\r\n" in answer
        writer.close()


@in_loop
async def test_the_rest_of_a_refused_body_has_a_deadline() -> None:
    """The client has its answer long ago, but sends neither the rest nor another request."""
    async with served(FakeBackend(), Patience(0.05, 1, 60.0)) as (host, port, _):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request(b"{", length=10**12))
        assert b"413" in await reader.readline()
        await reader.read()
        writer.close()


@in_loop
async def test_a_client_that_sends_before_it_reads_gets_its_refusal() -> None:
    """The rest of a body that is too large is read and dropped: the answer is not lost, the connection goes on."""
    async with served(FakeBackend(), LONG) as (host, port, _):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request(b" " * 30_000_000))
        await writer.drain()
        assert b"413" in await reader.readline()
        writer.write(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert b"HTTP/1.1 200" in await reader.read()
        writer.close()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@in_loop
async def test_a_client_that_does_not_read_is_cut_off_and_its_request_ends(stream: bool) -> None:
    """What the request has borrowed is given back, and the connection is gone, not waiting to be flushed."""
    backend = Talkative() if stream else FakeBackend(TextDelta("x" * 20_000_000), FINISHED)
    async with served(backend, Patience(60.0, 1, 0.1)) as (host, port, server):
        client = await unread_connection(host, port)
        body = json.dumps(HELLO | {"stream": stream}).encode()
        await asyncio.get_running_loop().sock_sendall(client, request(body))
        await backend.closed.wait()
        while server.server_state.connections:
            await asyncio.sleep(0)
        assert backend.num_open == 0
        client.close()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_client_that_does_not_read_over_tls_is_cut_off(stream: bool, tmp_path: Path) -> None:
    """TLS has buffers of its own, which hide nobody."""
    certificate = self_signed(tmp_path, "IP:127.0.0.1")
    trust = ssl.create_default_context(cafile=str(certificate))

    @in_loop
    async def run() -> None:
        backend = Talkative() if stream else FakeBackend(TextDelta("x" * 20_000_000), FINISHED)
        async with served(backend, Patience(60.0, 1, 0.1), certificate=certificate) as (host, port, server):
            _, writer = await asyncio.open_connection(host, port, ssl=trust, limit=1024)
            writer.write(request(json.dumps(HELLO | {"stream": stream}).encode()))
            await backend.closed.wait()
            while server.server_state.connections:
                await asyncio.sleep(0)
            assert backend.num_open == 0
            writer.close()

    run()


@in_loop
async def test_a_client_that_reads_slowly_is_not_cut_off() -> None:
    """It takes longer than the deadline for all, but some in each."""
    backend = FakeBackend(TextDelta("x" * 20_000_000), FINISHED)
    async with served(backend, Patience(60.0, 1000, 1.0)) as (host, port, _):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request(CHAT, b"connection: close"))
        began, num_bytes = asyncio.get_running_loop().time(), 0
        while data := await reader.read(80_000):
            num_bytes += len(data)
            await asyncio.sleep(0.01)  # the client's pace: 8 MB a second at most
        assert num_bytes > 20_000_000
        assert asyncio.get_running_loop().time() - began > 1.0
        writer.close()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@in_loop
async def test_a_client_that_does_not_read_does_not_hold_up_the_end(stream: bool) -> None:
    """The server stops long before its grace is over, however patient it is otherwise."""
    backend = Talkative() if stream else FakeBackend(TextDelta("x" * 20_000_000), FINISHED)
    async with served(backend, LONG) as (host, port, server):
        client = await unread_connection(host, port)
        body = json.dumps(HELLO | {"stream": stream}).encode()
        await asyncio.get_running_loop().sock_sendall(client, request(body))
        while not any(each.transport.get_write_buffer_size() for each in server.server_state.connections):
            await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        await server.shutdown()
        assert asyncio.get_running_loop().time() - began < 8
        assert not server.server_state.connections
        client.close()
    assert backend.num_open == 0


@in_loop
async def test_a_running_answer_that_is_read_is_finished_at_the_end() -> None:
    """A stop cuts nobody off who takes what is sent."""
    gate = Gate()
    async with served(FakeBackend(gate, TextDelta("all of it"), FINISHED), LONG) as (host, port, server):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request(CHAT))
        await gate.reached.wait()
        stopping = asyncio.create_task(server.shutdown())
        await asyncio.sleep(0)
        gate.opened.set()
        assert b"all of it" in await reader.read()
        await stopping
        writer.close()


@in_loop
async def test_a_body_without_room_is_answered_while_it_is_sent() -> None:
    """A client that sends before it listens gets its 503, and the same connection serves its next try."""
    large = json.dumps({**HELLO, "pad": "x" * (3 * 2**20)}).encode()
    room: dict[str, Any] = {"max_body_bytes": 4 * 2**20, "max_body_bytes_in_flight": 4 * 2**20}
    async with served(FakeBackend(), LONG, **room) as (host, port, _):
        first, second = [await asyncio.open_connection(host, port) for _ in range(2)]
        halfway = len(large) // 2
        first[1].write(request(large[:halfway], b"expect: 100-continue", length=len(large)))
        assert await first[0].readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"  # it is being read
        status, told = await _answer(second, request(large))
        assert (status, told["error"]["code"]) == (503, "server_busy")
        assert (await _answer(first, large[halfway:]))[0] == 200
        assert (await _answer(second, request(large)))[0] == 200
        for _, writer in (first, second):
            writer.close()


async def _answer(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], sent: bytes) -> tuple[int, Any]:
    """What comes back after all of it was sent."""
    reader, writer = connection
    writer.write(sent)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.splitlines() if line.startswith(b"content-length:"))
    return parsed(head + await reader.readexactly(length))
