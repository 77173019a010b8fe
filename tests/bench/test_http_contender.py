"""A server over HTTP, whose answers are recorded and then read."""

from __future__ import annotations

import asyncio
import json

import pytest

from periscope.bench.contenders import Ask
from periscope.bench.http_contender import HTTPContender, RecordedChat
from periscope.bench.samples import Batch
from periscope.errors import PeriscopeError
from tests.bench.test_http import MLX_LM
from tests.remote.hostile import hostile, stream

ANSWER = stream(*(json.dumps(chunk) for chunk in MLX_LM), "[DONE]")


def batch_from(*answers: list[bytes], max_tries: int = 1, num_asks: int = 1) -> tuple[Batch, int]:
    """The batch that a server with these answers gives, and how many requests it got."""

    async def run() -> tuple[Batch, int]:
        async with hostile(*answers) as server:
            contender = HTTPContender(server.url, lambda: 1.5, max_tries=max_tries)
            return await contender.run([Ask("about", 2)] * num_asks), len(server.bodies)

    return asyncio.run(run())


def test_an_answer_has_the_servers_count_and_a_time_for_each_piece_of_text() -> None:
    """The times are those at which the bytes came, from the beginning of the batch on."""
    batch, _ = batch_from(ANSWER, num_asks=2)
    assert batch.cpu_s == 0.0
    for row in batch.rows:
        assert (row.num_tokens, len(row.times_s)) == (2, 2)
        assert 0 <= row.sent_s < row.times_s[0] <= row.times_s[1]


def test_pieces_are_read_however_the_network_cuts_them() -> None:
    """Each token's time is that of the read which completed it."""
    whole = b"".join(ANSWER)

    async def run() -> None:
        async with hostile([whole[at : at + 1] for at in range(len(whole))]) as server:
            chat = RecordedChat(server.url, {"messages": []})
            await chat.run()
            assert chat.answer(0.0).text == "baruvi pi"
            assert json.loads(server.bodies[0])["stream"] is True

    asyncio.run(run())


def test_a_dropped_connection_is_tried_again_as_often_as_allowed() -> None:
    """By default it is not, because our own server must not drop any."""
    batch, num_requests = batch_from([], [], ANSWER, max_tries=3)
    assert (batch.rows[0].num_tokens, num_requests) == (2, 3)
    with pytest.raises(PeriscopeError, match="dropped the connection"):
        batch_from([], ANSWER)


def test_an_answer_that_has_begun_is_not_asked_for_again() -> None:
    """A stream that breaks after its first token is no fast answer, and its tokens are not counted twice."""
    with pytest.raises(PeriscopeError, match="before it was complete"):
        batch_from(stream(json.dumps(MLX_LM[0])), ANSWER, max_tries=3)


def test_a_refusal_says_what_the_server_said() -> None:
    """The status and the body, not an answer without tokens."""
    body = b'{"error": {"message": "too busy!"}}'
    refusal = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    with pytest.raises(PeriscopeError, match="status 503: too busy!"):
        batch_from([refusal])


def test_what_is_no_http_is_told() -> None:
    """Whatever answers on the port."""
    with pytest.raises(PeriscopeError, match="does not answer in HTTP"):
        batch_from([b"SSH-2.0-OpenSSH_9.6\r\n"])


def test_a_server_that_is_gone_is_told() -> None:
    """Nobody listens any more."""

    async def run() -> None:
        async with hostile(ANSWER) as server:
            url = server.url
        await HTTPContender(url, lambda: None).run([Ask("about", 2)])

    with pytest.raises(PeriscopeError, match="dropped the connection"):
        asyncio.run(run())
