"""TokenStream: reports from a worker thread to a reader on the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from periscope.core import FinishReason
from periscope.engine.worker.reports import Failure, TokenChunk
from periscope.engine.worker.stream import TokenStream, put_all
from periscope.errors import GenerationFailed, ReaderTooSlow


def chunk(text: str, reason: FinishReason | None = None) -> TokenChunk:
    return TokenChunk(text, (), 1, finish_reason=reason)


def test_chunks_arrive_in_order_from_another_thread() -> None:
    """The reader gets the chunks that the worker puts, in order, then the end."""

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
    """A reader that already waits is woken by a chunk."""

    async def run() -> None:
        stream = TokenStream(asyncio.get_running_loop())
        next_chunk = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        await asyncio.to_thread(stream.put, chunk("late"))
        assert (await next_chunk).text == "late"

    asyncio.run(run())


def test_a_reader_too_far_behind_loses_its_row_and_the_worker_never_waits() -> None:
    """A reader that is too slow gets the chunks within the capacity, then ReaderTooSlow."""

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
    """A failing row still delivers its earlier chunks; the stream ends after the error."""

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
        next_chunk = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        next_chunk.cancel()
        with pytest.raises(asyncio.CancelledError):
            await next_chunk
        stream.put(chunk("kept"))
        assert (await anext(stream)).text == "kept"

    asyncio.run(run())


def test_cancel_wakes_the_reader_and_tells_the_worker() -> None:
    """After `cancel` a waiting reader is released and no report is kept."""

    async def run() -> None:
        stream = TokenStream(asyncio.get_running_loop())
        next_chunk = asyncio.create_task(anext(stream, None))
        await asyncio.sleep(0)
        stream.cancel()
        assert await next_chunk is None
        assert stream.is_abandoned
        stream.put(chunk("dropped"))
        assert [item async for item in stream] == []

    asyncio.run(run())


def test_a_closed_loop_counts_as_an_abandoned_reader() -> None:
    """A worker that outlives the event loop abandons the row instead of raising."""
    loop = asyncio.new_event_loop()
    stream = TokenStream(loop)

    async def wait_a_turn() -> None:
        next_chunk = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        next_chunk.cancel()

    loop.run_until_complete(wait_a_turn())
    stream._waiter = loop.create_future()
    loop.close()
    stream.put(chunk("x"))
    assert stream.is_abandoned


def test_a_reader_that_gives_up_while_it_is_told_has_given_up() -> None:
    """The worker must learn of it, or it would generate to the limit for nobody."""

    async def run() -> None:
        stream = TokenStream(asyncio.get_running_loop())
        giving_up = threading.Thread(target=stream.cancel)

        def reports() -> Iterator[TokenChunk]:
            giving_up.start()
            while not stream.is_abandoned:  # it has said so, and waits for the lock that is held here
                pass
            yield chunk("dropped")

        await asyncio.to_thread(put_all, [(stream, reports())])
        giving_up.join()
        assert stream.is_abandoned
        assert [item async for item in stream] == []

    asyncio.run(run())
