"""How an answer is written: in few pieces, with exact framing, and after what was written before it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from periscope.cli.http_protocol import Patience, protocol_with
from periscope.cli.http_writes import JoinedWrites
from periscope.core import GenerationRequest, OutputEvent, TextDelta
from tests.api.driving import FINISHED, HELLO, STREAM, FakeBackend, app_over, in_loop
from tests.api.exchange import frames_of
from tests.api.gates import Gate


class Wire(asyncio.Transport):
    """Takes what is written, piece by piece."""

    def __init__(self) -> None:
        super().__init__({"socket": socket.socket(), "peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 7374)})
        self.pieces: list[bytes] = []
        self.is_closed = False

    def write(self, data: Any) -> None:
        assert not self.is_closed
        self.pieces.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def pause_reading(self) -> None:
        return

    resume_reading = pause_reading

    def get_write_buffer_size(self) -> int:
        return 0


def connected(backend: FakeBackend) -> tuple[Any, Wire]:
    """A connection of the protocol to an app over this backend."""
    config = uvicorn.Config(app_over(backend), lifespan="off", log_config=None)
    config.load()
    made: Any = protocol_with(Patience(60.0, 1, 60.0))
    wire = Wire()
    protocol = made(config=config, server_state=ServerState(), app_state={})
    protocol.connection_made(wire)
    return protocol, wire


def request(body: dict[str, Any], version: bytes = b"1.1") -> bytes:
    content = json.dumps(body).encode()
    return (
        b"POST /v1/chat/completions HTTP/%b\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (version, len(content))
    ) + content


async def ended(protocol: Any) -> None:
    """Wait until the connection's requests have ended."""
    await asyncio.gather(*protocol.tasks)
    await asyncio.sleep(0)  # the rest of this turn of the loop


def leave(protocol: Any, wire: Wire) -> None:
    protocol.connection_lost(None)
    wire.get_extra_info("socket").close()


def unchunked(body: bytes) -> bytes:
    """What was sent in chunks; their framing must be exact, and nothing may follow them."""
    text = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        piece, end, body = body[: int(size, 16)], body[int(size, 16) :][:2], body[int(size, 16) + 2 :]
        assert end == b"\r\n"
        if not piece:
            assert body == b""
            return text
        text += piece


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["whole", "stream"])
@in_loop
async def test_an_answer_that_is_ready_is_one_write(body: dict[str, Any]) -> None:
    """Its headers, its text and its end: each write would be a system call, and a packet for the client to read."""
    protocol, wire = connected(FakeBackend(TextDelta("a"), FINISHED))
    protocol.data_received(request(body))
    await ended(protocol)
    assert len(wire.pieces) == 1
    leave(protocol, wire)


@in_loop
async def test_no_token_waits_for_the_next_one() -> None:
    """The first has been written with the headers before the second is there, which is written before the end."""
    gates = [Gate(), Gate()]
    backend = FakeBackend(TextDelta("a"), gates[0], TextDelta("b"), gates[1], FINISHED)
    protocol, wire = connected(backend)
    protocol.data_received(request(STREAM))
    for number, gate in enumerate(gates, 1):
        await gate.reached.wait()
        await asyncio.sleep(0)
        assert len(wire.pieces) == number
        gate.opened.set()
    await ended(protocol)
    assert len(wire.pieces) == 3
    assert [b'"a"' in wire.pieces[0], b'"b"' in wire.pieces[1]] == [True, True]
    leave(protocol, wire)


@in_loop
async def test_tokens_that_come_together_are_one_write() -> None:
    """Those of several steps, which the worker tells together: each is a frame, and none waits for the next bundle."""
    gate = Gate()
    backend = FakeBackend(TextDelta("a"), gate, *[TextDelta(letter) for letter in "bcde"], FINISHED)
    protocol, wire = connected(backend)
    protocol.data_received(request(STREAM))
    await gate.reached.wait()
    gate.opened.set()
    await ended(protocol)
    assert len(wire.pieces) == 2
    assert [b'"%c"' % letter in wire.pieces[1] for letter in b"bcde"] == [True] * 4
    leave(protocol, wire)


@in_loop
async def test_a_stream_with_much_to_tell_is_written_as_it_comes() -> None:
    """The transport learns how much is under way, though all of it is told in one turn of the loop."""
    protocol, wire = connected(FakeBackend(*[TextDelta("x" * 1000)] * 100, FINISHED))
    protocol.data_received(request(STREAM))
    await ended(protocol)
    assert len(wire.pieces) > 6
    assert max(map(len, wire.pieces)) <= 17_000
    leave(protocol, wire)


@in_loop
async def test_streams_on_one_connection_have_exact_framing() -> None:
    """The second is read from where the first ends, though most of its chunks are written past h11."""
    protocol, wire = connected(FakeBackend(*[TextDelta("é" * 9)] * 20, FINISHED))
    for _ in range(2):
        wire.pieces.clear()
        protocol.data_received(request(STREAM))
        await ended(protocol)
        head, _, body = b"".join(wire.pieces).partition(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head.lower()
        assert len(frames_of(unchunked(body).decode())) == 23
        assert not wire.is_closed
    leave(protocol, wire)


@in_loop
async def test_a_client_that_knows_no_chunks_gets_none() -> None:
    """Of HTTP/1.0: the end of the connection is the end of the stream."""
    protocol, wire = connected(FakeBackend(TextDelta("a"), FINISHED))
    protocol.data_received(request(STREAM, b"1.0"))
    await ended(protocol)
    head, _, body = b"".join(wire.pieces).partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert frames_of(body.decode())[-1] == "[DONE]"
    assert wire.is_closed
    leave(protocol, wire)


@in_loop
async def test_a_client_that_is_behind_holds_up_its_own_stream() -> None:
    """Nothing is written past the transport's bound; when that has room again, the stream goes on where it was."""
    asked = asyncio.Event()

    class Endless(FakeBackend):
        async def stream(self, request: GenerationRequest) -> AsyncGenerator[OutputEvent, None]:  # noqa: ARG002
            yield TextDelta("a")
            protocol.pause_writing()
            asked.set()
            yield TextDelta("b")
            yield FINISHED

    protocol, wire = connected(Endless())
    protocol.data_received(request(STREAM))
    await asked.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert b'"b"' not in b"".join(wire.pieces)
    protocol.resume_writing()
    await ended(protocol)
    assert b"".join(wire.pieces).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    leave(protocol, wire)


def test_held_writes_keep_their_order_around_a_large_one() -> None:
    """Which is not copied to be joined."""
    wire = Wire()
    joined = JoinedWrites(wire)
    joined.hold()
    for piece in (b"a", b"b", b"c" * 20_000, b"d"):
        joined.write(piece)
    joined.close()
    assert wire.pieces == [b"ab", b"c" * 20_000, b"d"]
    assert wire.is_closed
    wire.get_extra_info("socket").close()


def test_a_connection_that_is_cut_writes_nothing_more() -> None:
    """What was held for a client that is cut off is dropped."""
    wire = Wire()
    joined = JoinedWrites(wire)
    joined.hold()
    joined.write(b"a")
    joined.abort()
    joined.release()
    assert wire.pieces == []
    wire.get_extra_info("socket").close()
