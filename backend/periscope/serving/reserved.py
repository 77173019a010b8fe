"""Work for a request while its place in the queue of its text model is reserved. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from periscope.core import Tell, Waiting

if TYPE_CHECKING:
    from periscope.pool.ticket import Ticket

T = TypeVar("T")


async def while_reserved(
    place: Ticket, work: Callable[[Tell], Coroutine[Any, Any, T]]
) -> AsyncGenerator[Waiting | T, None]:
    """Yield what the work waits for each time that changes, and its result at the end.

    Args:
        place: the reserved place at the text model. If it is refused meanwhile, the work is cancelled.

    Raises:
        ModelUnavailable, ServerStopping: the place was refused.
        Exception: whatever the work raises.
    """
    told: asyncio.Queue[Waiting | None] = asyncio.Queue()
    working = asyncio.create_task(work(told.put_nowait), name="work for a request")
    refusal = asyncio.create_task(place.refused(), name="notice a refused place")
    for task in (working, refusal):
        task.add_done_callback(lambda _: told.put_nowait(None))
    try:
        while (waiting := await told.get()) is not None:
            yield waiting
        if refusal.done():
            refusal.result()
        yield await working
    finally:
        for task in (working, refusal):
            task.cancel()
        await asyncio.gather(working, refusal, return_exceptions=True)
