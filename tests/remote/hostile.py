"""A server on a real socket that says exactly the bytes it is told to, and sees when its client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

#: Generous: the machine may be busy with other things.
PATIENCE_S = 60.0


@dataclass
class Hostile:
    """`heads` and `bodies` of the requests that came, in order. `has_left`: a client closed its connection."""

    url: str = ""
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    num_connections: int = 0
    has_left: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def hostile(*answers: Sequence[bytes], holds_on: bool = False) -> AsyncIterator[Hostile]:
    """Each request gets the next of `answers` (the last one again and again), piece by piece.

    Args:
        holds_on: after an answer the connection stays open for the next request, until the client leaves; else it is
            closed.
    """
    told = Hostile()

    handlers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.num_connections += 1
        try:
            while (head := await _head_of(reader)) is not None:
                fields = [line.partition(":") for line in head.split("\r\n")[1:] if line]
                length = httpx.Headers([(name, value.strip()) for name, _, value in fields]).get("content-length", "0")
                pieces = answers[min(len(told.bodies), len(answers) - 1)]
                told.heads.append(head)
                told.bodies.append(await reader.readexactly(int(length)))
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                if not holds_on:
                    return
            told.has_left.set()
        except ConnectionError:  # the client left in the middle of an answer
            told.has_left.set()
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.create_task(serve(reader, writer))
        handlers.add(handler)

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        told.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield told
        await asyncio.gather(*handlers)


async def _head_of(reader: asyncio.StreamReader) -> str | None:
    """None = the client has left."""
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def head(status: str = "200 OK", **headers: str) -> bytes:
    """An answer's head, without a length: its body goes to the end of the connection."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "connection: close", "", ""]).encode()


def stream(*events: str) -> list[bytes]:
    """A stream of these events' data."""
    return [head(content_type="text/event-stream"), *(f"data: {event}\n\n".encode() for event in events)]
