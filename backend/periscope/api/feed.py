"""Iterates over a backend's events, with a time limit for each that does not disturb the generator."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from periscope.api.disconnect import stop
from periscope.core import Finished, Waiting
from periscope.errors import GenerationFailed, RequestCancelled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from periscope.core import AnswerEvent

logger = logging.getLogger(__name__)
T = TypeVar("T")
EventT = TypeVar("EventT", bound="AnswerEvent")

#: Events that the reader may be behind. Then the pump waits, and the backend's own bounded stream decides what happens
#: to the request.
MAX_BUFFERED_EVENTS = 32


class EventFeed(Generic[T]):
    """Owns one backend generator and the one task that iterates and closes it. One reader.

    Exit cancels that task at any await and waits until the generator has cleaned up. If the task is cancelled from
    elsewhere (the backend, by command), the reader gets `RequestCancelled` after the events before it.
    """

    def __init__(self, events: AsyncGenerator[T, None]) -> None:
        self._events = events
        self._pending: deque[T | BaseException] = deque()
        self._reader: asyncio.Future[None] | None = None  # done when the reader, who waits, has something to read
        self._room = asyncio.Semaphore(MAX_BUFFERED_EVENTS)

    async def __aenter__(self) -> Self:
        """Start the task that takes the generator's events."""
        self._pump = asyncio.create_task(self._forward())
        # A callback, not a last step of the pump, which can be cancelled at any await, even before its first step.
        self._pump.add_done_callback(self._tell_end)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ends the generator, finished or not."""
        self._pump.remove_done_callback(self._tell_end)  # no reader is left
        await stop(self._pump)

    async def next(self, timeout_s: float | None = None) -> T | None:
        """The next event, or None if none came in time. Nothing follows the end or an error.

        Raises:
            StopAsyncIteration: the generator has ended.
            RequestCancelled: the request was cancelled.
            Exception: whatever the backend raised.
        """
        if not self._pending:
            await self._wait(timeout_s)
        if not self._pending:
            return None
        item = self._pending.popleft()
        self._room.release()
        if isinstance(item, BaseException):
            raise item
        return item

    async def _wait(self, timeout_s: float | None) -> None:
        """Wait until something is pending, or until the time is over.

        A future and one timer: `asyncio.timeout` around an `asyncio.Event` costs five times as much, for each token.
        """
        loop = asyncio.get_running_loop()
        self._reader = loop.create_future()
        timer = None if timeout_s is None else loop.call_later(timeout_s, self._wake)
        try:
            await self._reader
        finally:
            self._reader = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _forward(self) -> None:
        async with aclosing(self._events):
            async for event in self._events:
                if isinstance(event, Waiting) and self._pending and isinstance(self._pending[-1], Waiting):
                    self._pending[-1] = event  # a wait state replaces one that was not read yet
                    continue
                await self._room.acquire()
                self._put(event)

    def _put(self, item: T | BaseException) -> None:
        self._pending.append(item)
        self._wake()

    def _tell_end(self, pump: asyncio.Task[None]) -> None:
        failure = None if pump.cancelled() else pump.exception()
        if pump.cancelling():
            if failure is not None:
                logger.warning("a cancelled request raised while it cleaned up", exc_info=failure)
            self._put(RequestCancelled("The request was cancelled by a command to the server."))
        elif pump.cancelled():  # not by request: something that the backend awaited was cancelled
            self._put(GenerationFailed("The request was cancelled."))
        else:
            self._put(failure or StopAsyncIteration())


async def until_finished(events: AsyncGenerator[EventT, None]) -> AsyncGenerator[EventT, None]:
    """The same events; `Finished` only after the generator has cleaned up.

    So a reader of `Finished` knows that the request has released everything.

    Raises:
        Exception: whatever the backend raised, or `GenerationFailed` if it ended without `Finished`.
    """
    finished: EventT | None = None
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Finished):
                finished = event
                break
            yield event
    if finished is None:
        raise GenerationFailed("The model's answer ended without a result.")
    yield finished


async def collect(events: AsyncGenerator[EventT, None]) -> list[EventT]:
    """All events of a request, `Finished` last.

    Raises:
        Exception: as `EventFeed.next`.
    """
    collected: list[EventT] = []
    async with EventFeed(until_finished(events)) as feed:
        while not (collected and isinstance(collected[-1], Finished)):
            event = await feed.next()
            if event is not None:
                collected.append(event)
    return collected
