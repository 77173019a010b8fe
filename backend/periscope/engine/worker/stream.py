"""TokenStream: the only path of a request's results from a worker thread to asyncio."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from periscope.engine.worker.reports import Failure, TokenChunk, ends
from periscope.engine.worker.waker import waker_of
from periscope.errors import ReaderTooSlow

if TYPE_CHECKING:
    import asyncio

    from periscope.engine.worker.reports import Report
    from periscope.engine.worker.waker import Waker

#: How many chunks may wait for the reader. At 100 tokens/s these are more than 40 seconds of output.
DEFAULT_CAPACITY = 4096


class TokenStream:
    """Owned by its reader on the event loop; a worker thread only puts reports and reads `is_abandoned`.

    `put` never blocks, so a slow reader cannot stall the batch. A reader that falls `capacity` chunks behind loses its
    row: it still gets the chunks that are queued, then `ReaderTooSlow`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, capacity: int = DEFAULT_CAPACITY) -> None:
        self._loop = loop
        self._waker = waker_of(loop)
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
        """Whether the reader has given up, so that the worker may remove the row without a report."""
        return self._is_abandoned

    def put(self, report: Report) -> None:
        """Queue a report. Worker thread only. Reports after the last chunk or a failure are ignored."""
        put_all([(self, (report,))])

    def _take(self, reports: Iterable[Report]) -> bool:
        """Queue reports; returns whether the reader is waiting and must be woken."""
        with self._lock:
            if self._is_ended or self._is_abandoned:
                return False
            for report in reports:
                is_full = len(self._reports) >= self._capacity
                if is_full:  # and never back: `cancel` may have given up meanwhile, without the lock
                    self._is_abandoned = True
                self._reports.append(_too_slow() if is_full else report)
                self._is_ended = is_full or ends(report)
                if self._is_ended:
                    break
            return self._waiter is not None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def cancel(self) -> None:
        """Give up the request. Event loop only, idempotent. The worker removes the row before its next step."""
        self._is_abandoned = True
        with self._lock:
            self._reports.clear()
            self._is_ended = True
        self._wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenChunk:
        """Wait for the next chunk.

        Raises:
            StopAsyncIteration: after the last chunk, or after `cancel`.
            PeriscopeError: the row has failed.
        """
        while not self._reports:  # nobody else takes any out
            with self._lock:
                if self._reports:
                    break
                if self._is_ended:
                    raise StopAsyncIteration
                self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        report = self._reports.popleft()
        if isinstance(report, Failure):
            raise report.error
        return report


def _too_slow() -> Failure:
    return Failure(ReaderTooSlow("The reader of this stream fell too far behind."))


def put_all(told: Iterable[tuple[TokenStream, Iterable[Report]]]) -> None:
    """Queue the reports of several streams and wake each event loop once. Worker thread only."""
    sleeping: dict[Waker, list[TokenStream]] = {}
    for stream, reports in told:
        if stream._take(reports):  # noqa: SLF001 - same module
            sleeping.setdefault(stream._waker, []).append(stream)  # noqa: SLF001
    for waker, streams in sleeping.items():
        if streams[0]._loop.is_closed():  # noqa: SLF001 - its readers are gone, too
            for stream in streams:
                stream._is_abandoned = True  # noqa: SLF001
        else:
            waker.wake(stream._wake for stream in streams)  # noqa: SLF001
