"""The client against a hostile server on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from periscope.core import Finished, FinishReason, OutputEvent, TextDelta, Usage
from periscope.errors import RemoteAnswerBroken, RemoteError, RemoteRefused, RemoteTimedOut, RemoteUnreachable
from periscope.remote import Endpoint, OpenAIClient, Timeouts, caption
from tests.remote.asking import HELLO, endpoint_of, read
from tests.remote.hostile import PATIENCE_S, Hostile, head, hostile, stream

DELTA = json.dumps({"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]})
END = json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
USAGE = json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
ANSWERED: list[OutputEvent] = [TextDelta("Hi"), Finished(FinishReason.STOP, Usage(3, 1))]
WHOLE = json.dumps({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}).encode()
EVENTS = head(content_type="text/event-stream")

Use = Callable[[OpenAIClient, Hostile], Awaitable[None]]


def against(answers: Sequence[Sequence[bytes]], use: Use, *, holds_on: bool = False, **settings: Any) -> Hostile:
    """Runs `use` with a client of a server that gives these answers."""

    async def run() -> Hostile:
        async with asyncio.timeout(PATIENCE_S), hostile(*answers, holds_on=holds_on) as server:
            client = OpenAIClient(endpoint_of(server.url, **settings))
            async with client:
                await use(client, server)
        return server

    return asyncio.run(run())


STREAMS: dict[str, list[bytes]] = {
    "as OpenAI sends it": stream(DELTA, END, USAGE, "[DONE]"),
    "without [DONE]": stream(DELTA, END, USAGE),
    "CRLF, comments, no space": [
        EVENTS,
        f": hi\r\n\r\ndata:{DELTA}\r\n\r\n: keep-alive\r\n\r\n".encode(),
        f"data:{END}\r\n\r\ndata:{USAGE}\r\n\r\ndata:[DONE]\r\n\r\n".encode(),
    ],
    "data in several lines": [
        EVENTS,
        *(
            "".join(f"data: {line}\n" for line in json.dumps(json.loads(told), indent=1).split("\n")).encode() + b"\n"
            for told in (DELTA, END, USAGE)
        ),
    ],
    "in pieces": [
        EVENTS,
        *(bytes([byte]) for byte in "".join(f"data: {told}\n\n" for told in (DELTA, END, USAGE)).encode()),
    ],
    "no content type": [head(), *stream(DELTA, END, USAGE, "[DONE]")[1:]],
    "garbage after the end": [*stream(DELTA, END, USAGE, "[DONE]"), b"data: {garbage\n\n"],
}


@pytest.mark.parametrize("answer", STREAMS.values(), ids=STREAMS)
def test_a_stream_is_read_however_it_is_framed(answer: list[bytes]) -> None:
    """The same events, and what was sent is what was asked for, less nothing."""

    async def use(client: OpenAIClient, _: Hostile) -> None:
        assert await read(client) == ANSWERED

    sent = json.loads(against([answer], use).bodies[0])
    assert sent == HELLO | {"stream": True, "stream_options": {"include_usage": True}}


def test_text_may_hold_unicodes_line_ends() -> None:
    """Raw U+2028 and U+0085 inside a JSON string are text: readers that split lines there break the answer."""
    text = "a\u2028b\u0085c"
    told = json.dumps({"choices": [{"delta": {"content": text}}]}, ensure_ascii=False)

    async def use(client: OpenAIClient, _: Hostile) -> None:
        assert (await read(client))[0] == TextDelta(text)

    against([stream(told, END)], use)


BROKEN: dict[str, tuple[list[bytes], str]] = {
    "cut between events": (stream(DELTA), "before it was complete"),
    "cut inside an event": ([*stream(DELTA), f"data: {END[:10]}".encode()], "before it was complete"),
    "[DONE] too early": (stream(DELTA, "[DONE]"), "before it was complete"),
    "cut inside a chunk": (
        [b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n", b"ff\r\ndata: "],
        "connection.*broke",
    ),
    "garbage": (stream(DELTA, "{garbage"), "cannot be read"),
    "not a chunk": (stream("[1]"), "cannot be read"),
    "not a stream": ([head(content_type="text/html"), b"<html>"], "text/html"),
    "a whole answer": ([head(content_type="application/json"), WHOLE], "application/json"),
    "not HTTP": ([b"SSH-2.0-OpenSSH_9.9\r\n"], "connection.*broke"),
    "compressed without asking": (
        [head(content_type="text/event-stream", content_encoding="gzip"), b"no gzip"],
        "connection.*broke",
    ),
}


@pytest.mark.parametrize(("answer", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_stream_is_a_typed_error(answer: list[bytes], reason: str) -> None:
    """Half an answer never passes for a whole one, and the error names the server."""

    async def use(client: OpenAIClient, server: Hostile) -> None:
        with pytest.raises(RemoteAnswerBroken, match=reason) as broken:
            await read(client)
        assert server.url in broken.value.message
        assert broken.value.has_begun == (b"HTTP" in answer[0])

    against([answer], use)


def test_a_connection_that_is_dropped_unanswered_has_not_begun() -> None:
    """So that a caller knows whether it may ask again."""

    async def use(client: OpenAIClient, _: Hostile) -> None:
        for asked in (read(client), client.chat(HELLO), client.list_models()):
            with pytest.raises(RemoteAnswerBroken, match="broke") as broken:
                await asked
            assert not broken.value.has_begun

    against([[]], use)


REFUSALS: dict[str, tuple[list[bytes], int, str | None, str | None, float | None]] = {
    "500 with HTML": ([head("500 Oops", content_type="text/html"), b"<html>" * 99], 500, None, None, None),
    "401": (
        [head("401 Unauthorized"), b'{"error": {"message": "No key.", "code": "invalid_api_key"}}'],
        401,
        "No key.",
        "invalid_api_key",
        None,
    ),
    "503 with Retry-After": ([head("503 Busy", retry_after="7"), b'{"error": "Full."}'], 503, "Full.", None, 7),
    "a redirect": ([head("307 Temporary Redirect", location="http://127.0.0.1:1/")], 307, None, None, None),
    "a body that is cut off": (
        [b"HTTP/1.1 400 Bad\r\ncontent-length: 99\r\n\r\n", b'{"error": "No."}'],
        400,
        "No.",
        None,
        None,
    ),
    "a body without an end": ([head("502 Bad Gateway"), *[b"x" * 65536] * 100], 502, None, None, None),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_told_with_what_the_server_said(
    refusal: tuple[list[bytes], int, str | None, str | None, float | None],
) -> None:
    """Status, message, code and when to come back: streamed, whole, or listing models."""
    answer, *expected = refusal

    async def use(client: OpenAIClient, _: Hostile) -> None:
        for asked in (read(client), client.chat(HELLO), client.list_models()):
            with pytest.raises(RemoteRefused) as refused:
                await asked
            told = refused.value
            assert [told.status, told.said, told.code, told.retry_after_s] == expected

    against([answer], use)


def test_an_error_inside_a_stream_is_a_refusal_without_a_status() -> None:
    """The status line was sent long before; what had come before the error has been handed out."""
    failure = json.dumps({"error": {"message": "It broke.", "code": "generation_failed"}})

    async def use(client: OpenAIClient, _: Hostile) -> None:
        async with aclosing(client.stream_chat(HELLO)) as events:
            assert await anext(events) == TextDelta("Hi")
            with pytest.raises(RemoteRefused, match=r"It broke\.") as refused:
                await anext(events)
        assert refused.value.status is None

    against([stream(DELTA, failure, "[DONE]")], use)


def test_nobody_there_is_a_typed_error() -> None:
    """A closed port."""

    async def run() -> None:
        async with OpenAIClient(Endpoint("http://127.0.0.1:1/v1")) as client:
            for asked in (read(client), client.chat(HELLO), client.list_models()):
                with pytest.raises(RemoteUnreachable, match=r"No server answers at http://127\.0\.0\.1:1/v1"):
                    await asked

    asyncio.run(run())


#: A comment every moment: never silent, never done.
DRIBBLE = [EVENTS, *[b": keep-alive\n\n"] * 5]


@pytest.mark.parametrize(
    ("answer", "timeouts", "reason"),
    [
        ([], Timeouts(silence_s=0.2), r"silent for 0\.2 s"),
        ([head("200 OK", content_type="text/event-stream")], Timeouts(silence_s=0.2), r"silent for 0\.2 s"),
        ([], Timeouts(total_s=0.2), r"longer than 0\.2 s"),
        (DRIBBLE, Timeouts(total_s=0.2), r"longer than 0\.2 s"),
    ],
    ids=["no answer", "a silent stream", "no answer in time", "only signs of life"],
)
def test_time_is_bounded(answer: list[bytes], timeouts: Timeouts, reason: str) -> None:
    """In silence and in all; the server is left at once."""

    async def use(client: OpenAIClient, server: Hostile) -> None:
        with pytest.raises(RemoteTimedOut, match=reason):
            await read(client)
        await server.has_left.wait()

    against([answer], use, holds_on=True, timeouts=timeouts)


def test_the_time_a_reader_takes_is_its_own() -> None:
    """`total_s` interrupts waits for the server, never the code that reads the events."""

    async def use(client: OpenAIClient, _: Hostile) -> None:
        loop = asyncio.get_running_loop()
        async with aclosing(client.stream_chat(HELLO)) as events:
            assert await anext(events) == TextDelta("Hi")
            until_s = loop.time() + 1.5
            while loop.time() < until_s:
                await asyncio.sleep(0)
            with pytest.raises(RemoteTimedOut):
                await anext(events)

    against([stream(DELTA)], use, holds_on=True, timeouts=Timeouts(total_s=1))


def test_connections_are_used_again() -> None:
    """A stream is read to its very end, so that the next request needs no new connection."""
    pieces = [f"data: {told}\n\n".encode() for told in (DELTA, END, USAGE, "[DONE]")]
    chunked = [b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"]
    chunked += [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]

    async def use(client: OpenAIClient, server: Hostile) -> None:
        for _ in range(3):
            assert await read(client) == ANSWERED
        assert (len(server.bodies), server.num_connections) == (3, 1)

    against([[*chunked, b"0\r\n\r\n"]], use, holds_on=True)


def test_cancelling_closes_the_connection() -> None:
    """In the middle of a stream, before its headers, and during a whole answer: that is how the server learns of it."""

    async def use(client: OpenAIClient, server: Hostile) -> None:
        for make in (lambda: read(client), lambda: client.chat(HELLO), client.list_models):
            server.has_left.clear()
            num_before = len(server.bodies)
            asking = asyncio.ensure_future(make())
            while len(server.bodies) == num_before:
                await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await server.has_left.wait()

    for answer in ([], stream(DELTA)):
        against([answer], use, holds_on=True)


def test_leaving_a_stream_early_closes_the_connection() -> None:
    """A reader that has seen enough just stops."""

    async def use(client: OpenAIClient, server: Hostile) -> None:
        async with aclosing(client.stream_chat(HELLO)) as events:
            assert await anext(events) == TextDelta("Hi")
        await server.has_left.wait()

    against([stream(DELTA)], use, holds_on=True)


def test_what_is_no_stream_is_left_unread() -> None:
    """Its connection is closed, because nobody will read what is still to come on it."""

    async def use(client: OpenAIClient, server: Hostile) -> None:
        with pytest.raises(RemoteAnswerBroken, match="text/html"):
            await read(client)
        await server.has_left.wait()

    against([[head(content_type="text/html")]], use, holds_on=True)


def test_the_end_does_not_wait_for_the_connection_to_close() -> None:
    """`[DONE]` is the end, although the server stays silent and connected."""

    async def use(client: OpenAIClient, server: Hostile) -> None:
        async with aclosing(client.stream_chat(HELLO)) as events:
            assert [await anext(events), await anext(events)] == ANSWERED
            assert not server.has_left.is_set()
        await server.has_left.wait()

    against([stream(DELTA, END, USAGE, "[DONE]")], use, holds_on=True)


def test_a_whole_answer_has_a_limit() -> None:
    """A body that never ends does not fill the memory."""
    endless = [head(), *[b"x" * 2**20] * 66]

    async def use(client: OpenAIClient, _: Hostile) -> None:
        with pytest.raises(RemoteAnswerBroken, match="over 67108864 bytes"):
            await client.chat(HELLO)

    against([endless], use)


def test_the_key_and_extra_fields_go_along() -> None:
    """With every chat; a request's own fields win, and the environment's proxies are not asked."""
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "temperature": 0.5}

    async def use(client: OpenAIClient, _: Hostile) -> None:
        await client.chat(HELLO | {"temperature": 0})

    server = against([[head(), WHOLE]], use, api_key="sesame", extra_body=extra)
    assert json.loads(server.bodies[0]) == HELLO | extra | {"temperature": 0, "stream": False}
    assert "authorization: bearer sesame\r\n" in server.heads[0].lower()
    assert "accept-encoding: identity\r\n" in server.heads[0].lower()
    assert server.heads[0].startswith("POST /v1/chat/completions ")


def test_models_of_other_servers_are_listed() -> None:
    """The context length of vLLM has another name, and some say none."""
    listing = {"data": [{"id": "a", "max_model_len": 9}, {"id": "b"}, {"id": "c", "context_length": 7, "x": 1}]}

    async def use(client: OpenAIClient, _: Hostile) -> None:
        told = await client.list_models()
        assert [(model.name, model.context_length) for model in told] == [("a", 9), ("b", None), ("c", 7)]

    against([[head(), json.dumps(listing).encode()]], use)


def test_captions_of_another_version_are_a_typed_error() -> None:
    """Another shape, or another number of them."""

    async def use(client: OpenAIClient, _: Hostile) -> None:
        for _number in range(2):
            with pytest.raises(RemoteAnswerBroken):
                await caption(client, None, ["data:,"])

    against([[head(), b'{"captions": [{"words": "a dog"}]}'], [head(), b'{"captions": []}']], use)


def test_every_remote_error_is_one() -> None:
    """One name catches whatever another server can do to us."""
    for kind in (RemoteUnreachable, RemoteTimedOut, RemoteRefused, RemoteAnswerBroken):
        assert issubclass(kind, RemoteError)


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_an_answer_over_the_endpoint_s_bound_is_not_read_to_its_end(*, is_streamed: bool) -> None:
    """Neither a body that never ends nor a stream of any number of small events fills the memory."""
    endless = [EVENTS, *[f"data: {DELTA}\n\n".encode()] * 1000] if is_streamed else [head(), b" " * 100_000]

    async def use(client: OpenAIClient, _: Hostile) -> None:
        with pytest.raises(RemoteAnswerBroken, match="over 10000 bytes"):
            await (read(client) if is_streamed else client.chat(HELLO))

    against([endless], use, max_answer_bytes=10_000)


def test_a_route_of_the_server_s_own_is_read() -> None:
    """Such as its health, which is no route of OpenAI's: relative to the base URL."""

    async def use(client: OpenAIClient, server: Hostile) -> None:
        assert await client.get("../health") == b"fine"
        assert server.heads[0].startswith("GET /health HTTP")

    against([[head(), b"fine"]], use)
