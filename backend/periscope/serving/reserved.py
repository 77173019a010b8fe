"""Work for a request beside its answer, while its place at the text model is reserved. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from periscope.core import AnswerEvent
    from periscope.pool.ticket import Ticket


#: Does something for a request, and tells what the client hears of it.
Work: TypeAlias = Callable[[Callable[["AnswerEvent"], None]], Coroutine[Any, Any, None]]


async def while_reserved(place: Ticket | None, work: Work) -> AsyncGenerator[AnswerEvent, None]:
    """Yield what the work tells, each time that it does.

    Args:
        place: the reserved place at the text model. If it is refused meanwhile, the work is cancelled. None = the model
            is not asked any more.

    Raises:
        ModelUnavailable, ServerStopping: the place was refused.
        Exception: whatever the work raises.
    """
    told: asyncio.Queue[AnswerEvent | None] = asyncio.Queue()
    working = asyncio.create_task(work(told.put_nowait), name="work for a request")
    refusal = None if place is None else asyncio.create_task(place.refused(), name="notice a refused place")
    tasks = [working] if refusal is None else [working, refusal]
    for task in tasks:
        task.add_done_callback(lambda _: told.put_nowait(None))
    try:
        while (event := await told.get()) is not None:
            yield event
        if refusal is not None and refusal.done():
            refusal.result()
        await working
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
