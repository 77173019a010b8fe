"""Large bodies of several clients have one bound together: who has no room is told so, and every place comes back."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.api.bodies_in_flight import SMALL_BODY_BYTES, BodiesInFlight
from periscope.core import TextDelta
from periscope.errors import ServerBusy
from tests.api.driving import FINISHED, HELLO, FakeBackend, app_over, in_loop
from tests.api.exchange import Exchange
from tests.api.fake_control import SNAPSHOT, FakeControl
from tests.api.gates import Gate

MIB = 1024 * 1024
BODY = json.dumps({**HELLO, "pad": "x" * (3 * MIB)}).encode()
HALVES = BODY[: 2 * MIB], BODY[2 * MIB :]
#: Room for one such body, not for two.
ROOM: dict[str, Any] = {"max_body_bytes": 4 * MIB, "max_body_bytes_in_flight": 4 * MIB}


def begun(app: Any, content: bytes = b"", *, more: bool = True, headers: dict[str, str] | None = None) -> Exchange:
    """A request of which this much is here."""
    named = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    exchange = Exchange(app, headers=[(b"host", b"localhost:7374"), *named])
    exchange._incoming.get_nowait()
    if content or not more:
        exchange.feed(content, more=more)
    return exchange


def length(content: bytes = BODY) -> dict[str, str]:
    return {"content-length": str(len(content))}


async def taken(exchange: Exchange) -> None:
    """Until the server waits for the next piece."""
    while not exchange._incoming.empty() and not exchange.task.done():
        await asyncio.sleep(0)
    await asyncio.sleep(0)


async def refused(exchange: Exchange) -> None:
    """It got the answer of a busy server, in OpenAI's words."""
    assert await exchange.status() == 503
    headers = dict(exchange.messages[0]["headers"])
    error = json.loads(await exchange.rest())["error"]
    assert (error["type"], error["code"]) == ("server_error", "server_busy")
    assert "server.limits.max_body_bytes_in_flight" in error["message"]
    assert str(4 * MIB) in error["message"]
    assert int(headers[b"retry-after"]) > 0


async def answered(exchange: Exchange) -> None:
    assert await exchange.status() == 200
    await exchange.rest()


@in_loop
async def test_a_body_that_does_not_fit_is_refused_before_it_is_read() -> None:
    """Its length tells; the one before it goes on, and when that was read there is room again."""
    app = app_over(FakeBackend(), **ROOM)
    first = begun(app, HALVES[0], headers=length())
    await taken(first)
    second = begun(app, headers=length())
    await refused(second)
    assert second._incoming.empty()
    first.feed(HALVES[1], more=False)
    await answered(first)
    await answered(begun(app, BODY, more=False, headers=length()))


@in_loop
async def test_a_body_of_unknown_length_is_refused_when_it_has_grown_too_large() -> None:
    """With chunks, or compressed, where the length says little."""
    app = app_over(FakeBackend(), **ROOM)
    first = begun(app, HALVES[0], headers=length())
    await taken(first)
    await refused(begun(app, HALVES[0]))
    zipped = gzip.compress(BODY)
    await refused(begun(app, zipped, more=False, headers={"content-encoding": "gzip", **length(zipped)}))
    first.feed(HALVES[1], more=False)
    await answered(first)


@in_loop
async def test_small_bodies_do_not_wait_for_large_ones() -> None:
    """Whoever chats is answered however many send pictures."""
    app = app_over(FakeBackend(), **ROOM)
    large = begun(app, headers=length())
    await taken(large)
    hello = json.dumps(HELLO).encode()
    await answered(begun(app, hello, more=False, headers=length(hello)))
    large.feed(BODY, more=False)
    await answered(large)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@in_loop
async def test_a_body_that_was_read_holds_no_place_while_it_is_answered(stream: bool) -> None:
    """The bound is for reading: a long answer keeps nobody from sending."""
    gate = Gate()
    app = app_over(FakeBackend(TextDelta("a"), gate, FINISHED), **ROOM)
    content = json.dumps({**HELLO, "stream": stream, "pad": "x" * (3 * MIB)}).encode()
    first = begun(app, content, more=False, headers=length(content))
    await gate.reached.wait()
    second = begun(app, content, more=False, headers=length(content))
    gate.opened.set()
    await answered(first)
    await answered(second)


@in_loop
async def test_a_watcher_whose_own_body_has_no_room_is_left() -> None:
    """Its stream has begun, so that no other answer can be given; that is no fault of ours to log."""
    app = app_over(FakeBackend(), FakeControl(SNAPSHOT, Gate()), **ROOM)
    first = begun(app, HALVES[0], headers=length())
    await taken(first)
    watcher = Exchange(app, method="GET", path="/api/events", headers=first.scope["headers"])
    assert await watcher.status() == 200
    await watcher.task
    first.feed(HALVES[1], more=False)
    await answered(first)


async def _leaves(exchange: Exchange) -> None:
    exchange.feed(HALVES[0], more=True)
    exchange.disconnect()


async def _stalls(exchange: Exchange) -> None:
    exchange.feed(HALVES[0], more=True)


async def _is_cancelled(exchange: Exchange) -> None:
    exchange.feed(HALVES[0], more=True)
    await taken(exchange)
    exchange.task.cancel()


async def _is_no_json(exchange: Exchange) -> None:
    exchange.feed(HALVES[0], more=False)


async def _has_too_many_values(exchange: Exchange) -> None:
    exchange.feed(b"[" * (2 * MIB), more=True)


async def _is_too_large(exchange: Exchange) -> None:
    exchange.feed(BODY + BODY, more=True)


async def _is_no_request(exchange: Exchange) -> None:
    exchange.feed(json.dumps({"pad": "x" * (3 * MIB)}).encode(), more=False)


async def _is_answered(exchange: Exchange) -> None:
    exchange.feed(BODY, more=False)


@pytest.mark.parametrize("has_length", [True, False], ids=["length", "chunks"])
@pytest.mark.parametrize(
    "end",
    [
        _leaves,
        _stalls,
        _is_cancelled,
        _is_no_json,
        _has_too_many_values,
        _is_too_large,
        _is_no_request,
        _is_answered,
    ],
)
@in_loop
async def test_every_end_of_a_body_gives_its_place_back(end: Callable[[Exchange], Any], has_length: bool) -> None:
    """However a large request ends, the next one has the same room."""
    app = app_over(FakeBackend(), receive_timeout_s=0.05 if end is _stalls else 60.0, **ROOM)
    for _ in range(2):
        exchange = begun(app, headers=length() if has_length else None)
        await end(exchange)
        await asyncio.wait({exchange.task})
    whole = begun(app, BODY, more=False, headers=length())
    await answered(whole)


@given(st.lists(st.tuples(st.integers(0, 4), st.one_of(st.none(), st.integers(0, 6 * MIB))), max_size=40))
def test_the_count_is_what_the_bodies_hold(steps: list[tuple[int, int | None]]) -> None:
    """Whoever grows, is refused or leaves, in any order: never above the bound, and nothing at the end."""
    bodies = BodiesInFlight(10 * MIB)
    places, held = [bodies.place() for _ in range(5)], [0] * 5
    for who, size in steps:
        if size is None:
            places[who].give_back()
            held[who] = 0
            continue
        wanted = max(held[who], size if size > SMALL_BODY_BYTES else 0)
        try:
            places[who].grow_to(size)
        except ServerBusy:
            assert sum(held) - held[who] + wanted > 10 * MIB
        else:
            held[who] = wanted
        assert bodies.held_bytes == sum(held) <= 10 * MIB
    for place in places:
        place.give_back()
    assert bodies.held_bytes == 0
