"""POST /v1/chat/completions, streamed: the frames, their order, and when they come."""

from __future__ import annotations

import asyncio
import json

import pytest

from periscope.core import (
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    VisionUsage,
    Waiting,
    WaitStatus,
)
from periscope.errors import ContextLengthExceeded, GenerationFailed
from tests.api.driving import (
    FINISHED,
    LONG_S,
    SHORT_S,
    STREAM,
    USAGE,
    FakeBackend,
    app_over,
    called,
    in_loop,
    post_chat,
)
from tests.api.exchange import Exchange, chunks_of, frames_of
from tests.api.gates import Gate

WITH_USAGE = STREAM | {"stream_options": {"include_usage": True}}
USAGE_WIRE = {
    "prompt_tokens": 11,
    "completion_tokens": 4,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {
        "reasoning_tokens": 2,
        "accepted_prediction_tokens": 1,
        "rejected_prediction_tokens": 5,
    },
}


@in_loop
async def test_a_stream_from_role_to_done() -> None:
    """Role once and first, deltas in order, one finish reason, `[DONE]` last; ids, model and time are equal."""
    call = called(0, ToolCall("call_a", "f", "{}"))
    finished = Finished(FinishReason.TOOL_CALLS, USAGE, VisionUsage(1, 0, 0, 40, 300))
    backend = FakeBackend(
        ReasoningDelta("hm"), TextDelta(""), TextDelta("a\n\nb"), TextDelta("\u2028"), *call, finished
    )
    response = await post_chat(backend, STREAM)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert "content-length" not in response.headers
    assert frames_of(response.text)[-1] == "[DONE]"
    assert frames_of(response.text).count("[DONE]") == 1
    chunks = chunks_of(response.text)
    heads = {(c["id"], c["object"], c["created"], c["model"]) for c in chunks}
    assert len(heads) == 1
    assert next(iter(heads))[0] == backend.requests[0].id
    choices = [c["choices"][0] for c in chunks]
    assert [c["delta"] for c in choices] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm"},
        {"content": "a\n\nb"},
        {"content": "\u2028"},
        {"tool_calls": [{"index": 0, "id": "call_a", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]},
        {},
    ]
    assert [c["finish_reason"] for c in choices] == [None] * 7 + ["tool_calls"]
    assert chunks[-1]["periscope"]["vision"]["num_images"] == 1
    assert not any("usage" in c for c in chunks)
    assert response.content.isascii()


@pytest.mark.parametrize(("body", "always"), [(WITH_USAGE, False), (STREAM, True)])
@in_loop
async def test_the_usage_chunk_comes_when_asked_or_always(body: dict[str, object], always: bool) -> None:
    """Usage has its own chunk without choices, between the finish chunk and `[DONE]`; the others say null."""
    chunks = chunks_of((await post_chat(FakeBackend(), body, always_include_usage=always)).text)
    assert [c["usage"] for c in chunks] == [None, None, None, USAGE_WIRE]
    assert [len(c["choices"]) for c in chunks] == [1, 1, 1, 0]


@in_loop
async def test_headers_and_role_do_not_wait_for_a_slow_backend() -> None:
    """A prefill of minutes is not silence: the stream opens when the grace has passed."""
    gate = Gate()
    exchange = Exchange(app_over(FakeBackend(gate, FINISHED), commit_grace_s=SHORT_S, heartbeat_s=LONG_S), STREAM)
    assert await exchange.status() == 200
    assert (await exchange.chunk())["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    gate.opened.set()
    assert (await exchange.frame()).endswith("data: [DONE]\n\n")
    await exchange.task


@in_loop
async def test_a_delta_ends_the_grace_at_once() -> None:
    """The first token is never held back."""
    gate = Gate()
    backend = FakeBackend(TextDelta("Hi"), gate, FINISHED)
    exchange = Exchange(app_over(backend, commit_grace_s=LONG_S, heartbeat_s=LONG_S), STREAM)
    assert await exchange.status() == 200
    await exchange.chunk()
    assert (await exchange.chunk())["choices"][0]["delta"] == {"content": "Hi"}
    gate.opened.set()
    await exchange.task


@in_loop
async def test_a_refusal_after_a_short_wait_still_has_its_status() -> None:
    """Wait states do not commit the status, so a prompt found too long after the captions is a 400."""
    error = ContextLengthExceeded(10, 8)
    backend = FakeBackend(Waiting(WaitStatus.CAPTIONING), error)
    assert (await post_chat(backend, STREAM, commit_grace_s=LONG_S, heartbeat_s=LONG_S)).status_code == 400


@in_loop
async def test_heartbeats_come_from_the_first_moment() -> None:
    """Valid chunks with an empty delta while nothing else is sent, also with a grace longer than the beat."""
    gate = Gate()
    exchange = Exchange(app_over(FakeBackend(gate, FINISHED), commit_grace_s=LONG_S, heartbeat_s=SHORT_S), STREAM)
    assert await exchange.status() == 200
    opening = await exchange.chunk()
    for _ in range(3):
        beat = await exchange.chunk()
        assert beat["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}]
        assert beat["id"] == opening["id"]
        assert "periscope" not in beat
    gate.opened.set()
    await exchange.task


@in_loop
async def test_heartbeats_between_tokens() -> None:
    """Silence after a token is filled too, and a heartbeat never loses the token it waits for."""
    gates = [Gate(), Gate()]
    backend = FakeBackend(TextDelta("a"), gates[0], TextDelta("b"), gates[1], FINISHED)
    exchange = Exchange(app_over(backend, heartbeat_s=SHORT_S), STREAM)
    await exchange.status()
    assert (await exchange.chunk())["choices"][0]["delta"]["role"] == "assistant"
    for gate, text in zip(gates, "ab", strict=True):
        assert await exchange.delta() == {"content": text}
        assert (await exchange.chunk())["choices"][0]["delta"] == {}
        gate.opened.set()
    frames = frames_of(await exchange.rest())
    assert frames[-1] == "[DONE]"
    assert json.loads(frames[-2])["choices"][0]["finish_reason"] == "stop"


@in_loop
async def test_events_that_say_nothing_are_silence() -> None:
    """Pieces without text do not keep heartbeats back, nor the opening."""
    gate = Gate()
    exchange = Exchange(app_over(FakeBackend(TextDelta(""), gate, FINISHED), heartbeat_s=SHORT_S), STREAM)
    await exchange.status()
    assert (await exchange.chunk())["choices"][0]["delta"]["role"] == "assistant"
    assert (await exchange.chunk())["choices"][0]["delta"] == {}
    gate.opened.set()
    await exchange.task


@in_loop
async def test_no_heartbeat_while_tokens_come() -> None:
    """A stream that is not silent holds nothing but its answer."""
    backend = FakeBackend(*[TextDelta("x")] * 500, FINISHED)
    chunks = chunks_of((await post_chat(backend, STREAM, heartbeat_s=LONG_S)).text)
    assert [c["choices"][0]["delta"] for c in chunks[1:-1]] == [{"content": "x"}] * 500


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (GenerationFailed("The model broke."), "generation_failed", "The model broke."),
        (TimeoutError("internal"), "internal_error", None),
        (asyncio.CancelledError(), "generation_failed", "The request was cancelled."),
        (None, "generation_failed", "The model's answer ended without a result."),
    ],
)
@in_loop
async def test_a_failure_is_an_event_and_then_the_end(
    error: BaseException | None, code: str, message: str | None
) -> None:
    """No finish reason: nothing succeeded. `[DONE]` all the same: Open WebUI waits for it."""
    backend = FakeBackend(TextDelta("a"), *([error] if error else []))
    response = await post_chat(backend, WITH_USAGE)
    assert response.status_code == 200
    *chunks, failure = chunks_of(response.text)
    assert frames_of(response.text)[-1] == "[DONE]"
    assert all(c["choices"][0]["finish_reason"] is None for c in chunks)
    assert set(failure) == {"error"}
    assert failure["error"]["code"] == code
    assert set(failure["error"]) == {"message", "type", "param", "code"}
    assert message is None or failure["error"]["message"] == message
    assert "internal" not in failure["error"]["message"]


@in_loop
async def test_the_end_of_the_server_is_an_event_and_then_the_end() -> None:
    """A stream that the server cuts off says so, once all of its work has ended, and may be sent again."""
    backend = FakeBackend(TextDelta("a"), Gate(), FINISHED)
    exchange = Exchange(app_over(backend), STREAM)
    assert await exchange.status() == 200
    assert await exchange.delta() == {"role": "assistant", "content": ""}
    assert await exchange.delta() == {"content": "a"}
    exchange.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchange.task
    assert backend.num_open == 0
    ending = frames_of(await exchange.frame())
    assert ending[1:] == ["[DONE]"]
    error = json.loads(ending[0])["error"]
    assert (error["code"], error["type"], error["retry_after"]) == ("server_stopping", "server_error", 1)
    assert exchange.messages[-1]["more_body"] is False


@in_loop
async def test_the_end_of_the_server_does_not_wait_for_who_does_not_read() -> None:
    """A client that takes nothing is told nothing: its request has ended, and the server goes on ending."""
    backend = FakeBackend(TextDelta("a"), FINISHED)
    exchange = Exchange(app_over(backend), STREAM, send_gate=(never_read := Gate()))
    await never_read.reached.wait()
    exchange.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchange.task
    assert backend.num_open == 0


@in_loop
async def test_streamed_and_whole_answers_are_the_same() -> None:
    """Joined deltas are the message, whatever the transport."""
    script = (TextDelta("Hel"), ReasoningDelta("r"), TextDelta("lo"), FINISHED)
    whole = (await post_chat(FakeBackend(*script))).json()["choices"][0]
    deltas = [c["choices"][0]["delta"] for c in chunks_of((await post_chat(FakeBackend(*script), STREAM)).text)]
    assert whole["message"]["content"] == "".join(d.get("content", "") for d in deltas)
    assert whole["message"]["reasoning_content"] == "".join(d.get("reasoning_content", "") for d in deltas)


@in_loop
async def test_the_stream_ends_after_the_backend_has_cleaned_up() -> None:
    """`[DONE]` means that the request holds nothing any more."""
    cleanup = Gate()
    backend = FakeBackend(TextDelta("a"), FINISHED, cleanup=cleanup)
    exchange = Exchange(app_over(backend, heartbeat_s=LONG_S), STREAM)
    await exchange.status()
    await cleanup.reached.wait()
    assert not any(b"[DONE]" in message.get("body", b"") for message in exchange.messages)
    cleanup.opened.set()
    assert (await exchange.rest()).endswith("data: [DONE]\n\n")
    assert backend.num_open == 0
