"""What servers say in streams."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from periscope.bench.http import StreamReading, chat, client_of, refusal
from periscope.core import JSONObject
from periscope.errors import PeriscopeError

#: As mlx_lm.server 0.32 and mlx_vlm.server 0.7 answered the same prompt, less ids and times.
MLX_LM: list[JSONObject] = [
    {"choices": [{"index": 0, "finish_reason": None, "delta": {"role": "assistant", "content": "baruvi"}}]},
    {"choices": [{"index": 0, "finish_reason": None, "delta": {"role": "assistant", "content": " pi"}}]},
    {"choices": [{"index": 0, "finish_reason": "length", "delta": {"role": "assistant"}}]},
    {
        "choices": [],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}},
    },
]
_NOTHING: JSONObject = {"reasoning_content": None, "reasoning": None, "tool_calls": None, "name": None}
MLX_VLM: list[JSONObject] = [
    {"choices": [{"index": 0, "finish_reason": reason, "delta": {"content": text} | _NOTHING}], "usage": None}
    for text, reason in ((" baruvi", None), (" pi", None), (None, "length"))
] + [
    {
        "choices": [],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}},
        "timings": {"prompt_n": 9},
    }
]


@pytest.mark.parametrize(("stream", "text"), [(MLX_LM, "baruvi pi"), (MLX_VLM, " baruvi pi")])
def test_peers_streams_are_read(stream: list[JSONObject], text: str) -> None:
    """Tokens by the server's own count, and a time for each piece that shows something."""
    arrived: list[float] = []
    reading = StreamReading(0.0, arrived.append)
    for chunk in stream:
        reading.feed(chunk)
    answer = reading.answer()
    assert (answer.text, answer.row.num_tokens) == (text, 2)
    assert (answer.num_prompt_tokens, answer.num_cached_tokens) == (9, 3)
    assert list(answer.row.times_s) == arrived
    assert len(arrived) == 2


def test_who_does_not_count_is_counted() -> None:
    """A piece of text is a token, reasoning too, by whichever name."""
    reading = StreamReading(0.0)
    for delta in ({"role": "assistant"}, {"reasoning": "a"}, {"reasoning_content": "b"}, {"content": "c"}):
        reading.feed({"choices": [{"delta": delta, "finish_reason": None}]})
    reading.feed({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    assert reading.answer().row.num_tokens == 3


def test_half_an_answer_is_none() -> None:
    """A stream that broke off must not look fast."""
    reading = StreamReading(0.0)
    reading.feed({"choices": [{"delta": {"content": "a"}, "finish_reason": None}]})
    with pytest.raises(PeriscopeError, match="before it was complete"):
        reading.answer()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": {"message": "No."}}', "No."),
        (b'{"error": "Nope."}', "Nope."),
        (b'{"detail": "Not here."}', "Not here."),
        (b"<html>", "(no reason given)"),
        (b"[]", "(no reason given)"),
        (b'{"error": {}}', "(no reason given)"),
    ],
)
def test_a_refusal_is_told_in_the_servers_words(body: bytes, reason: str) -> None:
    """Ours, a peer's, or a proxy's in between, which may be anything."""
    assert refusal(400, body).message == f"The server answered with status 400: {reason}"


@pytest.mark.parametrize(("max_tries", "num_dropped"), [(1, 0), (3, 2)])
def test_a_dropped_connection_is_tried_again_as_often_as_allowed(max_tries: int, num_dropped: int) -> None:
    """By default never: our own server may not drop any."""

    async def run() -> tuple[str, int]:
        left = num_dropped

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal left
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(httpx.Headers(_headers(head))["content-length"]))
            left -= 1
            if left < 0:
                events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in MLX_LM)
                writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + events.encode())
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with client_of(f"http://127.0.0.1:{port}") as client:
                answer = await chat(client, [], 2, max_tries=max_tries)
                left = 1
                with pytest.raises(httpx.RemoteProtocolError):
                    await chat(client, [], 2)
        return answer.text, left

    assert asyncio.run(run()) == ("baruvi pi", 0)


def _headers(head: bytes) -> list[tuple[str, str]]:
    lines = head.decode().split("\r\n")[1:]
    return [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines if line)]
