"""The raw loop behind the least HTTP that can stream a chat: what any server in Python pays on this machine. A program.

    python -m periscope.bench.bare_server MODEL HOST PORT ROWS

It reads no field but `messages` and `max_tokens`, checks nothing, and sends each token by itself. Without what a server
is for, such as queues, a prompt cache, limits, errors and logs, it is the bound that ours is measured against.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Never, TypeAlias, cast

import h11

from periscope.bench.mlx_thread import MLXThread
from periscope.bench.raw_loop import batch_generator, load_model
from periscope.engine.config import EngineConfig

#: The connection is closed at the end of the answer, so that neither its length nor its chunks need be told.
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
_DONE = b"data: [DONE]\n\n"
_CHUNK = {"id": "chatcmpl-bare", "object": "chat.completion.chunk", "created": 0, "model": "bare"}


class Connection(asyncio.Protocol):
    """One connection with one request. Event loop only.

    Args:
        ask: called with the connection and the body of its request.
    """

    def __init__(self, ask: Callable[[Connection, Any], None]) -> None:
        self._ask = ask
        self._http = h11.Connection(h11.SERVER)
        self._body = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Pass the request on once it is complete."""
        self._http.receive_data(data)
        while (event := self._http.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._transport.write(_HEAD + _frame({"delta": {"role": "assistant", "content": ""}}))
                self._ask(self, json.loads(self._body))

    def tell(self, text: str) -> None:
        """Send the text of a token."""
        self._transport.write(_frame({"delta": {"content": text}}))

    def end(self, num_tokens: int, finish_reason: str) -> None:
        """Send the rest of the answer."""
        usage = {"prompt_tokens": 0, "completion_tokens": num_tokens, "total_tokens": num_tokens}
        last = _event({**_CHUNK, "choices": [], "usage": usage})
        self._transport.write(_frame({"delta": {}, "finish_reason": finish_reason}) + last + _DONE)
        self._transport.close()


@dataclass(slots=True)
class _Row:
    """A row of the raw loop: its connection, the text of its tokens, and how many it has."""

    connection: Connection
    prompt: list[int]
    max_tokens: int
    detokenizer: Any
    num_tokens: int = 0


#: What one step gave a row: the text, and its finish reason with the last one.
_Told: TypeAlias = "tuple[_Row, str, str | None]"


def _generate(
    model: Any, tokenizer: Any, rows: int, inbox: queue.SimpleQueue[_Row], tell: Callable[[list[_Told]], object]
) -> Never:
    """The raw loop, for ever. On the thread that loaded the model.

    Args:
        tell: called with the results of each step, all rows together.
    """
    config = EngineConfig(max_num_seqs=rows)
    while True:
        waiting = [inbox.get()]
        generator = batch_generator(model, tokenizer, config)
        row_of: dict[int, _Row] = {}
        while waiting or row_of:
            while not inbox.empty():
                waiting.append(inbox.get())
            if waiting:
                uids = generator.insert([row.prompt for row in waiting], [row.max_tokens for row in waiting])
                row_of.update(zip(uids, waiting, strict=True))
                waiting = []
            _, responses = generator.next()
            if responses:
                tell([_read(row_of[response.uid], response) for response in responses])
            for response in responses:
                if response.finish_reason is not None:
                    del row_of[response.uid]
        generator.close()


def _read(row: _Row, response: Any) -> _Told:
    row.num_tokens += 1
    if response.finish_reason != "stop":
        row.detokenizer.add_token(response.token)
    if response.finish_reason is not None:
        row.detokenizer.finalize()
    return row, row.detokenizer.last_segment, response.finish_reason


def _deliver(told: list[_Told]) -> None:
    for row, text, finish_reason in told:
        row.connection.tell(text)
        if finish_reason is not None:
            row.connection.end(row.num_tokens, finish_reason)


def _frame(choice: dict[str, object]) -> bytes:
    return _event({**_CHUNK, "choices": [{"index": 0, "finish_reason": None, **choice}]})


def _event(chunk: dict[str, object]) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


async def serve(path: Path, host: str, port: int, rows: int) -> Never:
    """Load the model, then listen. Ends with the process.

    Args:
        rows: requests at once, at most.
    """
    loop = asyncio.get_running_loop()
    inbox: queue.SimpleQueue[_Row] = queue.SimpleQueue()
    async with MLXThread() as thread:
        model, tokenizer = await thread.run(partial(load_model, path))

        def ask(connection: Connection, body: Any) -> None:
            prompt = tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_dict=False)
            inbox.put(_Row(connection, prompt, body["max_tokens"], tokenizer.detokenizer))

        def tell(told: list[_Told]) -> None:
            loop.call_soon_threadsafe(_deliver, told)

        await loop.create_server(lambda: Connection(ask), host, port)
        await thread.run(partial(_generate, model, tokenizer, rows, inbox, tell))


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
