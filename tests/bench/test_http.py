"""What servers say in streams."""

from __future__ import annotations

import asyncio
import json

import pytest

from periscope.bench.http import Answer, StreamReading, chat, client_of
from periscope.core import JSONObject, TextDelta
from periscope.errors import PeriscopeError, RemoteAnswerBroken
from periscope.remote.chat_answers import ChatStreamDecoder
from tests.remote.hostile import hostile, stream

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


def read(stream: list[JSONObject], reading: StreamReading) -> Answer:
    decoder = ChatStreamDecoder("peer")
    for chunk in stream:
        for event in decoder.feed(json.dumps(chunk)):
            reading.feed(event)
    reading.feed(decoder.finish())
    return reading.answer()


@pytest.mark.parametrize(("stream", "text"), [(MLX_LM, "baruvi pi"), (MLX_VLM, " baruvi pi")])
def test_peers_streams_are_read(stream: list[JSONObject], text: str) -> None:
    """Tokens by the server's own count, and a time for each piece that shows something."""
    arrived: list[float] = []
    answer = read(stream, StreamReading(0.0, arrived.append))
    assert (answer.text, answer.row.num_tokens) == (text, 2)
    assert (answer.num_prompt_tokens, answer.num_cached_tokens) == (9, 3)
    assert list(answer.row.times_s) == arrived
    assert len(arrived) == 2


def test_who_does_not_count_is_counted() -> None:
    """A piece of text is a token, reasoning too, by whichever name."""
    deltas = ({"role": "assistant"}, {"reasoning": "a"}, {"reasoning_content": "b"}, {"content": "c"})
    stream: list[JSONObject] = [{"choices": [{"delta": delta, "finish_reason": None}]} for delta in deltas]
    stream.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    assert read(stream, StreamReading(0.0)).row.num_tokens == 3


def test_half_an_answer_is_none() -> None:
    """A stream that broke off must not look fast."""
    reading = StreamReading(0.0)
    reading.feed(TextDelta("a"))
    with pytest.raises(PeriscopeError, match="before it was complete"):
        reading.answer()


@pytest.mark.parametrize(("max_tries", "num_dropped"), [(1, 0), (3, 2)])
def test_a_dropped_connection_is_tried_again_as_often_as_allowed(max_tries: int, num_dropped: int) -> None:
    """By default never: our own server may not drop any."""
    dropped: list[list[bytes]] = [[]] * num_dropped
    answered = stream(*(json.dumps(chunk) for chunk in MLX_LM))

    async def run() -> str:
        async with hostile(*dropped, answered) as server, client_of(server.url) as client:
            answer = await chat(client, [], 2, max_tries=max_tries)
            assert len(server.bodies) == num_dropped + 1
        async with hostile([], answered) as server, client_of(server.url) as client:
            with pytest.raises(RemoteAnswerBroken):
                await chat(client, [], 2)
            assert len(server.bodies) == 1
        return answer.text

    assert asyncio.run(run()) == "baruvi pi"


def test_an_answer_that_has_begun_is_not_asked_for_again() -> None:
    """Its tokens would be counted twice."""

    async def run() -> None:
        async with hostile(stream(json.dumps(MLX_LM[0]))) as server, client_of(server.url) as client:
            with pytest.raises(RemoteAnswerBroken, match="before it was complete"):
                await chat(client, [], 2, max_tries=3)
            assert len(server.bodies) == 1

    asyncio.run(run())
