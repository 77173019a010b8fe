"""A backend's events, which can be waited for with a time limit without disturbing the generator that makes them."""

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

    from periscope.core import OutputEvent

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: So many events a reader may be behind. Then the pump waits, and the backend's own bounded stream decides what becomes
#: of the request.
MAX_BUFFERED_EVENTS = 32


class EventFeed(Generic[T]):
    """Owns one backend generator and the one task that iterates and closes it. One reader.

    Leaving the context cancels that task wherever it is and waits until the generator has cleaned up. Whoever else
    cancels it (the backend, by command) ends the request: the reader gets `RequestCancelled`, after what came before.
    """

    def __init__(self, events: AsyncGenerator[T, None]) -> None:
        self._events = events
        self._pending: deque[T | BaseException] = deque()
        self._has_pending = asyncio.Event()
        self._room = asyncio.Semaphore(MAX_BUFFERED_EVENTS)

    async def __aenter__(self) -> Self:
        """Starts the generator."""
        self._pump = asyncio.create_task(self._forward())
        # Not the pump's own last act: it can be cancelled at any await, even before its first step.
        self._pump.add_done_callback(self._tell_end)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ends the generator, finished or not."""
        self._pump.remove_done_callback(self._tell_end)  # nobody reads any more
        await stop(self._pump)

    async def next(self, timeout_s: float | None = None) -> T | None:
        """The next event, or None when none came in time. Nothing follows the end or an error.

        Raises:
            StopAsyncIteration: the generator has ended.
            RequestCancelled: somebody cancelled the request.
            Exception: whatever the backend raised.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._has_pending.wait()
        except TimeoutError:
            return None
        item = self._pending.popleft()
        self._room.release()
        if not self._pending:
            self._has_pending.clear()
        if isinstance(item, BaseException):
            raise item
        return item

    async def _forward(self) -> None:
        async with aclosing(self._events):
            async for event in self._events:
                if isinstance(event, Waiting) and self._pending and isinstance(self._pending[-1], Waiting):
                    self._pending[-1] = event  # news of a wait replace those that nobody has read yet
                    continue
                await self._room.acquire()
                self._put(event)

    def _put(self, item: T | BaseException) -> None:
        self._pending.append(item)
        self._has_pending.set()

    def _tell_end(self, pump: asyncio.Task[None]) -> None:
        failure = None if pump.cancelled() else pump.exception()
        if pump.cancelling():
            if failure is not None:
                logger.warning("a cancelled request raised while it cleaned up", exc_info=failure)
            self._put(RequestCancelled("The request was cancelled by a command to the server."))
        elif pump.cancelled():  # nobody asked for it: something that the backend waited for was cancelled
            self._put(GenerationFailed("The request was cancelled."))
        else:
            self._put(failure or StopAsyncIteration())


async def until_finished(events: AsyncGenerator[OutputEvent, None]) -> AsyncGenerator[OutputEvent, None]:
    """The same events; `Finished` only after the generator behind has cleaned up.

    So whoever has read it knows that the request holds nothing any more.

    Raises:
        Exception: whatever the backend raised, or `GenerationFailed` if it ended without `Finished`.
    """
    finished: Finished | None = None
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Finished):
                finished = event
                break
            yield event
    if finished is None:
        raise GenerationFailed("The model's answer ended without a result.")
    yield finished


async def collect(events: AsyncGenerator[OutputEvent, None]) -> list[OutputEvent]:
    """All events of a request, `Finished` last.

    Raises:
        Exception: as `EventFeed.next`.
    """
    collected: list[OutputEvent] = []
    async with EventFeed(until_finished(events)) as feed:
        while not (collected and isinstance(collected[-1], Finished)):
            event = await feed.next()
            if event is not None:
                collected.append(event)
    return collected
