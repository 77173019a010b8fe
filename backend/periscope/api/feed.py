"""A backend's events, read with patience or without: a timed wait never disturbs the generator behind it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Self

from periscope.api.disconnect import stop
from periscope.core import Finished
from periscope.errors import GenerationFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from periscope.core import OutputEvent

#: Takes up a reader's hiccup. When it is full the pump waits, and the engine's own bounded stream decides what becomes
#: of a reader that stays behind.
MAX_BUFFERED_EVENTS = 32


class EventFeed:
    """Owns one backend generator and the one task that iterates and closes it. One reader.

    Leaving the context cancels that task wherever it is and waits until the generator has cleaned up. `Finished` is
    handed out only after that: who has read it knows that the request holds nothing any more.
    """

    def __init__(self, events: AsyncGenerator[OutputEvent, None]) -> None:
        self._events = events
        self._queue: asyncio.Queue[OutputEvent | Exception] = asyncio.Queue(MAX_BUFFERED_EVENTS)

    async def __aenter__(self) -> Self:
        """Starts the generator."""
        self._task = asyncio.create_task(self._pump())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ends the generator, finished or not."""
        await stop(self._task)

    async def next(self, timeout_s: float | None = None) -> OutputEvent | None:
        """The next event, or None when none came in time. Nothing follows `Finished` or an error.

        Raises:
            Exception: whatever the backend raised, or `GenerationFailed` if it ended without `Finished`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                item = await self._queue.get()
        except TimeoutError:
            return None
        if isinstance(item, Exception):
            raise item
        return item

    async def _pump(self) -> None:
        end: Finished | Exception
        try:
            end = await self._forward()
        except (Exception, asyncio.CancelledError) as error:
            if self._task.cancelling():  # from here: nobody reads any more
                raise
            end = error if isinstance(error, Exception) else GenerationFailed("The request was cancelled.")
        await self._queue.put(end)

    async def _forward(self) -> Finished:
        async with aclosing(self._events):
            async for event in self._events:
                if isinstance(event, Finished):
                    return event
                await self._queue.put(event)
        raise GenerationFailed("The model's answer ended without a result.")


async def collect(events: AsyncGenerator[OutputEvent, None]) -> list[OutputEvent]:
    """All events of a request, `Finished` last.

    Raises:
        Exception: as `EventFeed.next`.
    """
    collected: list[OutputEvent] = []
    async with EventFeed(events) as feed:
        while not (collected and isinstance(collected[-1], Finished)):
            event = await feed.next()
            if event is not None:
                collected.append(event)
    return collected
