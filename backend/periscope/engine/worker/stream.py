"""The one crossing from a worker thread to asyncio."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from periscope.engine.worker.reports import Failure, TokenChunk
from periscope.errors import ReaderTooSlow

if TYPE_CHECKING:
    import asyncio

    from periscope.engine.worker.reports import Report

#: Chunks a reader may be behind. At 100 tokens/s this is more than half a minute of not reading.
DEFAULT_CAPACITY = 4096


class TokenStream:
    """Owned by its reader on the event loop; a worker thread only puts reports and reads `is_abandoned`.

    Putting never blocks and never waits for the loop: a reader that falls `capacity` chunks behind loses its row
    (it reads what is there, then gets `ReaderTooSlow`), so the batch never waits for anybody.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, capacity: int = DEFAULT_CAPACITY) -> None:
        self._loop = loop
        self._capacity = capacity
        self._lock = threading.Lock()
        self._reports: deque[Report] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_ended = False
        self._is_abandoned = False

    def __repr__(self) -> str:
        return f"<TokenStream pending={len(self._reports)} ended={self._is_ended} abandoned={self._is_abandoned}>"

    @property
    def is_abandoned(self) -> bool:
        """Nobody will read further reports: the row may be dropped without a word."""
        return self._is_abandoned

    def put(self, report: Report) -> None:
        """Worker thread: hand over a report. After a last chunk or a failure, further reports are dropped."""
        put_all([(self, report)])

    def _take(self, report: Report) -> bool:
        """Whether its reader must be woken."""
        with self._lock:
            if self._is_ended or self._is_abandoned:
                return False
            if len(self._reports) >= self._capacity:
                report = Failure(ReaderTooSlow("The reader of this stream fell too far behind."))
                self._is_abandoned = True
            self._reports.append(report)
            self._is_ended = isinstance(report, Failure) or report.finish_reason is not None
            return self._waiter is not None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def cancel(self) -> None:
        """Event loop, idempotent: no more reports are wanted; the worker drops the row at its next look."""
        self._is_abandoned = True
        with self._lock:
            self._reports.clear()
            self._is_ended = True
        self._wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenChunk:
        """The next chunk.

        Raises:
            StopAsyncIteration: after the last chunk, or after `cancel`.
            PeriscopeError: what the worker reported as the row's failure.
        """
        while True:
            with self._lock:
                if self._reports:
                    report = self._reports.popleft()
                    break
                if self._is_ended:
                    raise StopAsyncIteration
                self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if isinstance(report, Failure):
            raise report.error
        return report


def put_all(reports: Iterable[tuple[TokenStream, Report]]) -> None:
    """Worker thread: hand over what one step gave to all its rows, and wake each event loop once."""
    sleeping: dict[asyncio.AbstractEventLoop, list[TokenStream]] = {}
    for stream, report in reports:
        if stream._take(report):  # noqa: SLF001 - one of us
            sleeping.setdefault(stream._loop, []).append(stream)  # noqa: SLF001
    for loop, streams in sleeping.items():
        try:
            loop.call_soon_threadsafe(_wake_all, streams)
        except RuntimeError:  # the loop is closed: the readers are gone
            for stream in streams:
                stream._is_abandoned = True  # noqa: SLF001


def _wake_all(streams: Iterable[TokenStream]) -> None:
    for stream in streams:
        stream._wake()  # noqa: SLF001
