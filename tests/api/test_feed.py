"""The feed between a backend's generator and its reader: whoever ends it, wherever it stands, both sides learn it.

`in_loop` checks after every test here that no task is left over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

import pytest

from periscope.api.feed import MAX_BUFFERED_EVENTS, EventFeed, collect, until_finished
from periscope.core import Finished, GenerationRequest, OutputEvent, TextDelta, Waiting, WaitStatus
from periscope.errors import EngineClosed, GenerationFailed, RequestCancelled
from tests.api.driving import FINISHED, FakeBackend, Step, in_loop
from tests.api.gates import Gate

REQUEST = GenerationRequest(id="chatcmpl-1", model="", messages=())
MANY = [TextDelta("a")] * (MAX_BUFFERED_EVENTS + 8)


def events_of(backend: FakeBackend) -> AsyncGenerator[OutputEvent, None]:
    return until_finished(backend.stream(REQUEST))


async def turns(num: int) -> None:
    """Lets every other task of the loop go on `num` times."""
    for _ in range(num):
        await asyncio.sleep(0)


async def rest_of(feed: EventFeed[OutputEvent]) -> list[OutputEvent]:
    """Reads up to `Finished`, or raises what came instead."""
    events: list[OutputEvent] = []
    while not (events and isinstance(events[-1], Finished)):
        event = await feed.next()
        assert event is not None
        events.append(event)
    return events


@pytest.mark.parametrize("before", [[], [Waiting(WaitStatus.QUEUED)], [TextDelta("a")]])
@pytest.mark.parametrize("num_cancels", [1, 2])
@in_loop
async def test_a_command_while_the_backend_works(before: list[Step], num_cancels: int) -> None:
    """The backend gets CancelledError where it waits; the reader what came before, then `RequestCancelled`."""
    gate = Gate()
    backend = FakeBackend(*before, gate, FINISHED)
    async with EventFeed(events_of(backend)) as feed:
        await gate.reached.wait()
        for _ in range(num_cancels):
            backend.tasks[0].cancel()
        assert [await feed.next() for _ in before] == before
        with pytest.raises(RequestCancelled, match="by a command"):
            await feed.next()
        assert (backend.num_open, backend.saw) == (0, [asyncio.CancelledError])


@in_loop
async def test_a_command_while_the_buffer_is_full() -> None:
    """The generator stands at a yield then: it is closed, and what is buffered is still read before the end."""
    backend = FakeBackend(*MANY, FINISHED)
    async with EventFeed(events_of(backend)) as feed:
        await feed.next()
        await turns(5)
        backend.tasks[0].cancel()
        await backend.closed.wait()
        assert backend.saw == [GeneratorExit]
        for _ in range(MAX_BUFFERED_EVENTS):
            assert await feed.next() == TextDelta("a")
        with pytest.raises(RequestCancelled):
            await feed.next()


@pytest.mark.parametrize("script", [[FINISHED], [TextDelta("a"), FINISHED]])
@in_loop
async def test_a_command_while_the_backend_cleans_up(script: list[Step]) -> None:
    """`Finished` was not handed out yet, so the request was cancelled: never both, never neither."""
    cleanup = Gate()
    backend = FakeBackend(*script, cleanup=cleanup)
    async with EventFeed(events_of(backend)) as feed:
        await cleanup.reached.wait()
        backend.tasks[0].cancel()
        with pytest.raises(RequestCancelled):
            await rest_of(feed)


@in_loop
async def test_a_cancellation_before_the_first_step() -> None:
    """A pump that never ran still tells its reader; the generator was never begun."""
    backend = FakeBackend()
    async with EventFeed(events_of(backend)) as feed:
        feed._pump.cancel()
        with pytest.raises(RequestCancelled):
            await feed.next()
    assert not backend.requests


@pytest.mark.parametrize("num_turns", range(24))
@pytest.mark.parametrize("num_read", [0, 1, len(MANY) + 1])
@in_loop
async def test_a_cancellation_at_any_turn_of_the_loop(num_turns: int, num_read: int) -> None:
    """Whatever is awaited then: the whole answer, or its beginning and `RequestCancelled`; and the backend closed."""
    script: list[Step] = [Waiting(WaitStatus.QUEUED), *MANY, FINISHED]
    backend = FakeBackend(*script)
    async with EventFeed(events_of(backend)) as feed:
        read = [await feed.next() for _ in range(num_read)]
        await turns(num_turns)
        feed._pump.cancel()
        try:
            read += await rest_of(feed)
            assert read == script
        except RequestCancelled:
            assert read == script[: len(read)]
    assert backend.num_open == 0


@in_loop
async def test_a_whole_answer_is_cancelled_too() -> None:
    """`collect` has no other way out: it raises, and does not wait for an event that will not come."""
    gate = Gate()
    backend = FakeBackend(TextDelta("a"), gate, FINISHED)
    collecting = asyncio.create_task(collect(backend.stream(REQUEST)))
    await gate.reached.wait()
    backend.tasks[0].cancel()
    with pytest.raises(RequestCancelled):
        await collecting
    assert backend.num_open == 0


@in_loop
async def test_a_clean_up_that_fails_after_a_command_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The client was cancelled, whatever else broke: a 5xx would make its SDK send the request again."""
    gate = Gate()

    async def events() -> AsyncGenerator[OutputEvent, None]:
        try:
            await gate.passed()
            yield FINISHED
        finally:
            raise EngineClosed("Too late.")

    async with EventFeed(events()) as feed:
        await gate.reached.wait()
        feed._pump.cancel()
        with pytest.raises(RequestCancelled):
            await feed.next()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING


@in_loop
async def test_a_cancellation_nobody_asked_for_is_a_failure() -> None:
    """Something that the backend awaited was cancelled under it: that is ours, not an operator's."""
    async with EventFeed(events_of(FakeBackend(asyncio.CancelledError()))) as feed:
        with pytest.raises(GenerationFailed):
            await feed.next()


@in_loop
async def test_leaving_is_not_a_command(caplog: pytest.LogCaptureFixture) -> None:
    """A reader that leaves ends the backend's work, and nothing is told or logged."""
    gate = Gate()
    backend = FakeBackend(gate, FINISHED)
    async with EventFeed(events_of(backend)) as feed:
        await gate.reached.wait()
    assert (backend.num_open, backend.saw) == (0, [asyncio.CancelledError])
    await turns(3)
    assert not feed._pending
    assert not caplog.records


@in_loop
async def test_news_of_a_wait_replace_unread_ones() -> None:
    """A thousand progress reports are one to a reader who was busy; an answer never replaces a wait, nor reversed."""
    gates = [Gate(), Gate()]
    waits = [Waiting(WaitStatus.LOADING, progress=n / 1000) for n in range(1000)]
    queued = Waiting(WaitStatus.QUEUED)
    backend = FakeBackend(*waits[:500], gates[0], *waits[500:], TextDelta("a"), queued, gates[1], FINISHED)
    async with EventFeed(events_of(backend)) as feed:
        await gates[0].reached.wait()
        assert await feed.next() == waits[499]
        gates[0].opened.set()
        await gates[1].reached.wait()
        gates[1].opened.set()
        assert await rest_of(feed) == [waits[-1], TextDelta("a"), queued, FINISHED]


@in_loop
async def test_a_slow_reader_stops_the_backend() -> None:
    """No more than the buffer is taken from a generator nobody reads from."""
    async with EventFeed(events_of(FakeBackend(*MANY, FINISHED))) as feed:
        await turns(100)
        assert len(feed._pending) == MAX_BUFFERED_EVENTS
        assert await rest_of(feed) == [*MANY, FINISHED]


@in_loop
async def test_a_generator_without_finish_just_ends() -> None:
    """A feed of anything: the end is an exception of its own, after the last event."""

    async def numbers() -> AsyncGenerator[int, None]:
        yield 1

    async with EventFeed(numbers()) as feed:
        assert await feed.next() == 1
        with pytest.raises(StopAsyncIteration):
            await feed.next()
