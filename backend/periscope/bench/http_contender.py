"""HTTPContender: a server over HTTP, by a client that costs little while answers come. Event loop.

The client runs on the machine that it measures: what it spends on a token is lost to the server. `OpenAIClient` takes
some 150 us for each chunk. Here the bytes of each read are kept with their time, and decoded once the batch has ended.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import h11

from periscope.bench.contenders import Ask, user_wire
from periscope.bench.host_time import HostLog
from periscope.bench.http import OUR_SERVER, Answer, StreamRecorder, chat_body
from periscope.bench.samples import Batch, Row
from periscope.bench.server import MODEL_NAME
from periscope.bench.waiting import TIME_LIMIT_S, within
from periscope.errors import PeriscopeError
from periscope.remote.chat_answers import ChatStreamDecoder
from periscope.remote.refusals import refusal_of
from periscope.remote.sse import SSEDecoder

if TYPE_CHECKING:
    from periscope.bench.host_time import HostClock
    from periscope.core import JSONObject


class HTTPContender:
    """A server over HTTP. `cpu_s` counts the server's CPU time, without the client's.

    Args:
        url: that of the server, without a path.
        host_clock: makes a clock of the server's Python threads for one batch; None = unknown.
        model: the model name that requests use.
        max_tries: see `RecordedChat.run`.
        limit_s: how long a batch may take.
    """

    def __init__(
        self,
        url: str,
        cpu_s: Callable[[], float | None],
        *,
        host_clock: Callable[[], HostClock | None] = lambda: None,
        name: str = OUR_SERVER,
        model: str = MODEL_NAME,
        max_tries: int = 1,
        limit_s: float = TIME_LIMIT_S,
    ) -> None:
        self.name = name
        self._limit_s = limit_s
        self._url = url
        self._cpu_s = cpu_s
        self._host_clock = host_clock
        self._model = model
        self._max_tries = max_tries

    async def run(self, asks: Sequence[Ask]) -> Batch:
        host = HostLog(self._host_clock())
        before, started = self._cpu_s(), time.perf_counter()

        async def ask_for(ask: Ask) -> tuple[float, RecordedChat]:
            await asyncio.sleep(ask.after_s)
            sent = time.perf_counter()
            body = chat_body(self._model, [user_wire(ask.prompt)], ask.max_tokens)
            chat = RecordedChat(self._url, body, lambda now: host.note(now - started))
            await chat.run(self._max_tries)
            return sent - started, chat

        async with within(self._limit_s, f"{self.name} with {len(asks)} at once"):
            chats = await asyncio.gather(*map(ask_for, asks))
        after = self._cpu_s()
        rows = [_row(chat.answer(started).row, sent_s) for sent_s, chat in chats]
        return Batch(tuple(rows), None if before is None or after is None else after - before, host.stamps)


def _row(row: Row, sent_s: float) -> Row:
    return Row(row.num_tokens, row.times_s, sent_s)


class RecordedChat(asyncio.Protocol):
    """Owns the connection of one streamed chat completion, and what came of it. Times are by `time.perf_counter`.

    Args:
        url: that of the server, without a path.
        arrived: called with the time of each read.
    """

    def __init__(self, url: str, body: JSONObject, arrived: Callable[[float], None] = lambda _: None) -> None:
        self._url = url
        self._body = json.dumps(body | {"stream": True, "stream_options": {"include_usage": True}}).encode()
        self._arrived = arrived
        self._pieces: list[tuple[float, bytes]] = []
        self._ended: asyncio.Future[None]

    async def run(self, max_tries: int = 1) -> None:
        """Send the request, and keep what comes until the server closes the connection.

        Args:
            max_tries: attempts when the connection is dropped before anything has come.

        Raises:
            PeriscopeError: no connection could be made, or each was dropped.
        """
        loop, address = asyncio.get_running_loop(), urlsplit(self._url)
        host, port = address.hostname or "", address.port or 80
        for _ in range(max_tries):
            self._ended = loop.create_future()
            with suppress(OSError):
                transport, _protocol = await loop.create_connection(lambda: self, host, port)
                try:
                    await self._ended
                finally:
                    transport.abort()
            if self._pieces:
                return
        raise PeriscopeError(f"{self._url} dropped the connection.")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request. The parser is made with it, because it depends on what was asked."""
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101 - of a connection
        headers = {
            "host": urlsplit(self._url).netloc,
            "content-type": "application/json",
            "content-length": str(len(self._body)),
            "connection": "close",
        }
        self._http = h11.Connection(h11.CLIENT)
        request = h11.Request(method="POST", target="/v1/chat/completions", headers=list(headers.items()))
        parts = (request, h11.Data(data=self._body), h11.EndOfMessage())
        transport.write(b"".join(self._http.send(part) or b"" for part in parts))

    def data_received(self, data: bytes) -> None:
        """Keep the bytes of one read."""
        now = time.perf_counter()
        self._pieces.append((now, data))
        self._arrived(now)

    def connection_lost(self, _error: Exception | None) -> None:
        """Let `run` go on."""
        if not self._ended.done():
            self._ended.set_result(None)

    def answer(self, started: float) -> Answer:
        """Read what came, once.

        Args:
            started: the time from which those of the answer are counted.

        Raises:
            PeriscopeError: the server refused the request, broke off, or does not answer in HTTP.
        """
        recorder, decoder, events = StreamRecorder(started), ChatStreamDecoder(self._url), SSEDecoder()
        for time_s, data in self._read():
            for told in events.feed(data):
                if told.data != "[DONE]":
                    for event in decoder.feed(told.data):
                        recorder.feed(event, time_s)
        recorder.feed(decoder.finish(), self._pieces[-1][0])
        return recorder.answer()

    def _read(self) -> Iterator[tuple[float, bytes]]:
        """The answer's body, with the time of each piece."""
        status, refusal = None, b""
        for time_s, piece in (*self._pieces, (self._pieces[-1][0], b"")):  # no bytes = the end of the connection
            self._http.receive_data(piece)
            for event in self._events():
                if isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data) and status == HTTPStatus.OK:
                    yield time_s, bytes(event.data)
                elif isinstance(event, h11.Data):
                    refusal += bytes(event.data)
        if status is None:
            raise PeriscopeError(f"The server at {self._url} does not answer in HTTP.")
        if status != HTTPStatus.OK:
            raise refusal_of(self._url, status, {}, refusal)

    def _events(self) -> Iterator[object]:
        """The events of HTTP that the bytes so far complete; none where the server broke off."""
        with suppress(h11.RemoteProtocolError):
            while (event := self._http.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                yield event
                if isinstance(event, h11.ConnectionClosed):
                    return
