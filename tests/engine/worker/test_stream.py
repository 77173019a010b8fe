"""TokenStream: the one thread -> asyncio crossing."""

from __future__ import annotations

import asyncio
import threading

import pytest

from periscope.core import FinishReason
from periscope.engine.worker.reports import Failure, TokenChunk
from periscope.engine.worker.stream import TokenStream
from periscope.errors import GenerationFailed, ReaderTooSlow


def chunk(text: str, reason: FinishReason | None = None) -> TokenChunk:
    return TokenChunk(text, (), 1, finish_reason=reason)


def test_chunks_arrive_in_order_from_another_thread() -> None:
    """What a worker puts is what the reader gets, in order, then the end."""

    async def run() -> None:
        stream = TokenStream(asyncio.get_running_loop())
        reasons = [None] * 99 + [FinishReason.STOP]

        def work() -> None:
            for i, reason in enumerate(reasons):
                stream.put(chunk(str(i), reason))

        worker = threading.Thread(target=work)
        worker.start()
        assert [item.text async for item in stream] == [str(i) for i in range(100)]
        worker.join()

    asyncio.run(run())


def test_a_waiting_reader_is_woken() -> None:
    """A reader that was there first gets the chunk when it comes."""

    async def run() -> None:
        stream = TokenStream(asyncio.get_running_loop())
        reading = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        await asyncio.to_thread(stream.put, chunk("late"))
        assert (await reading).text == "late"

    asyncio.run(run())


def test_a_reader_too_far_behind_loses_its_row_and_the_worker_never_waits() -> None:
    """The bound holds: what fits is delivered, then the reader is told."""

    async def run() -> None:
        stream = TokenStream(asyncio.get_running_loop(), capacity=3)
        for i in range(10):
            stream.put(chunk(str(i)))
        assert stream.is_abandoned
        assert [(await anext(stream)).text for _ in range(3)] == ["0", "1", "2"]
        with pytest.raises(ReaderTooSlow):
            await anext(stream)

    asyncio.run(run())


def test_a_failure_is_raised_once_after_what_came_before() -> None:
    """A failing row still delivers what it had; afterwards the stream is over."""

    async def run() -> None:
        stream = TokenStream(asyncio.get_running_loop())
        stream.put(chunk("a"))
        stream.put(Failure(GenerationFailed("broken")))
        stream.put(chunk("never"))
        assert (await anext(stream)).text == "a"
        with pytest.raises(GenerationFailed):
            await anext(stream)
        assert [item async for item in stream] == []

    asyncio.run(run())


def test_cancelling_a_waiting_read_leaves_the_stream_usable() -> None:
    """The await point of a read can be cancelled without losing a chunk."""

    async def run() -> None:
        stream = TokenStream(asyncio.get_running_loop())
        reading = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        stream.put(chunk("kept"))
        assert (await anext(stream)).text == "kept"

    asyncio.run(run())


def test_cancel_wakes_the_reader_and_tells_the_worker() -> None:
    """After cancel nobody waits and nothing is kept."""

    async def run() -> None:
        stream = TokenStream(asyncio.get_running_loop())
        reading = asyncio.create_task(anext(stream, None))
        await asyncio.sleep(0)
        stream.cancel()
        assert await reading is None
        assert stream.is_abandoned
        stream.put(chunk("dropped"))
        assert [item async for item in stream] == []

    asyncio.run(run())


def test_a_closed_loop_counts_as_an_abandoned_reader() -> None:
    """A worker outliving its event loop drops the row instead of raising."""
    loop = asyncio.new_event_loop()
    stream = TokenStream(loop)

    async def wait_a_turn() -> None:
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        reading.cancel()

    loop.run_until_complete(wait_a_turn())
    stream._waiter = loop.create_future()
    loop.close()
    stream.put(chunk("x"))
    assert stream.is_abandoned
