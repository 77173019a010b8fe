"""Waiting: whatever a benchmark waits for has a time limit, and is told while it takes long. Event loop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from periscope.errors import PeriscopeError

#: Tells the user one line about the progress.
Tell: TypeAlias = Callable[[str], None]

#: Limit for a start, and for one batch of one contender.
TIME_LIMIT_S = 600.0
_TOLD_EVERY_S = 10.0


@asynccontextmanager
async def within(limit_s: float, what: str) -> AsyncIterator[None]:
    """Cancel what runs in the context after `limit_s`.

    Raises:
        PeriscopeError: it was cancelled; the message names what was waited for.
    """
    try:
        async with asyncio.timeout(limit_s) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise gave_up(limit_s, what) from None


def gave_up(limit_s: float, what: str) -> PeriscopeError:
    """Pure: the error for something that took too long."""
    return PeriscopeError(f"Waited {limit_s:g} s for {what}, and gave up.")


@asynccontextmanager
async def told(what: str, tell: Tell, *, every_s: float = _TOLD_EVERY_S) -> AsyncIterator[None]:
    """Tell again and again what is waited for, as long as the context lasts; nothing if it is short."""

    async def remind() -> None:
        for number in itertools.count(1):
            await asyncio.sleep(every_s)
            tell(f"waiting for {what}, for {number * every_s:g} s now")

    reminding = asyncio.create_task(remind())
    try:
        yield
    finally:
        reminding.cancel()


@asynccontextmanager
async def waiting_for(what: str, tell: Tell, limit_s: float = TIME_LIMIT_S) -> AsyncIterator[None]:
    """Wait as `told` and `within` together do: say what is waited for, and give up in the end.

    Raises:
        PeriscopeError: it took longer than `limit_s`.
    """
    async with told(what, tell), within(limit_s, what):
        yield
