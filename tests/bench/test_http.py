"""Streams of chat completions, as different servers send them."""

from __future__ import annotations

import json

import pytest

from periscope.bench.http import Answer, StreamRecorder
from periscope.core import JSONObject, TextDelta
from periscope.errors import PeriscopeError
from periscope.remote.chat_answers import ChatStreamDecoder

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


def read(stream: list[JSONObject], recorder: StreamRecorder) -> Answer:
    decoder = ChatStreamDecoder("peer")
    for chunk in stream:
        for event in decoder.feed(json.dumps(chunk)):
            recorder.feed(event, 1.0)
    recorder.feed(decoder.finish(), 2.0)
    return recorder.answer()


@pytest.mark.parametrize(("stream", "text"), [(MLX_LM, "baruvi pi"), (MLX_VLM, " baruvi pi")])
def test_peers_streams_are_read(stream: list[JSONObject], text: str) -> None:
    """The answer has the server's own count of tokens, and a time for each piece of visible text."""
    arrived: list[float] = []
    answer = read(stream, StreamRecorder(0.0, arrived.append))
    assert (answer.text, answer.row.num_tokens) == (text, 2)
    assert (answer.num_prompt_tokens, answer.num_cached_tokens) == (9, 3)
    assert list(answer.row.times_s) == arrived
    assert len(arrived) == 2


def test_an_end_token_comes_with_the_end() -> None:
    """It is counted and has no text. An answer that was cut off has none, whatever its characters took."""
    text = {"choices": [{"delta": {"content": "a"}, "finish_reason": None}]}
    times = {}
    for reason in ("stop", "length"):
        end = {"choices": [{"delta": {}, "finish_reason": reason}], "usage": {"completion_tokens": 3}}
        times[reason] = read([text, text, end], StreamRecorder(0.0)).row
    assert {reason: row.num_tokens for reason, row in times.items()} == {"stop": 3, "length": 3}
    assert {reason: row.times_s for reason, row in times.items()} == {"stop": (1.0, 1.0, 2.0), "length": (1.0, 1.0)}


def test_tokens_are_counted_when_the_server_does_not() -> None:
    """Without usage, every piece of text counts as a token, reasoning too, under either field name."""
    deltas = ({"role": "assistant"}, {"reasoning": "a"}, {"reasoning_content": "b"}, {"content": "c"})
    stream: list[JSONObject] = [{"choices": [{"delta": delta, "finish_reason": None}]} for delta in deltas]
    stream.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    assert read(stream, StreamRecorder(0.0)).row.num_tokens == 3


def test_half_an_answer_is_none() -> None:
    """A stream that broke off is an error instead of a fast answer."""
    recorder = StreamRecorder(0.0)
    recorder.feed(TextDelta("a"), 1.0)
    with pytest.raises(PeriscopeError, match="before it was complete"):
        recorder.answer()
