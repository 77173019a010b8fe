"""Turns at something that only so many may use at once. Event loop only."""

from __future__ import annotations

import asyncio

from periscope.errors import ServerBusy

#: Seconds that a picture full of text takes on a slow machine.
_RETRY_AFTER_S = 5


async def take_reading_turn(turns: asyncio.Semaphore, wait_timeout_s: float) -> None:
    """Wait for a turn to read pictures; whoever took it releases it.

    Raises:
        ServerBusy: none came in time.
    """
    try:
        await asyncio.wait_for(turns.acquire(), wait_timeout_s)
    except TimeoutError:
        raise ServerBusy(
            "The server is reading the text of too many images. Try again in a few seconds.",
            retry_after_s=_RETRY_AFTER_S,
        ) from None
