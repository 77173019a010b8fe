"""The server as it changes: the event stream says when to look again, and the snapshot what there is. Event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Final, Protocol

from periscope.errors import PeriscopeError
from periscope.menubar.view import View

if TYPE_CHECKING:
    from periscope.core import JSONObject
    from periscope.remote import Snapshot

#: While answers are written or a model loads; otherwise nothing is asked before an event comes.
_BUSY_S: Final = 2.0
#: Events come in groups: what follows within this is in the same look.
_SETTLE_S: Final = 0.2
#: How soon a server that was started is seen.
_GONE_S: Final = 5.0


class Source(Protocol):
    """A running server. Every method may raise PeriscopeError."""

    @property
    def url(self) -> str:
        """The address of the server, without `/v1`."""
        ...

    async def status(self) -> Snapshot:
        """The status of the whole server now."""
        ...

    def events(self) -> AsyncGenerator[tuple[str, JSONObject], None]:
        """What changes; ends when the server stops."""
        ...

    async def recent_captions(self) -> tuple[str, ...]:
        """The texts of the newest captions, the newest first."""
        ...

    async def page(self) -> str | None:
        """The address of its page for browsers, if it has one."""
        ...


async def views(
    find: Callable[[], Source | None],
    *,
    has_agent: Callable[[], bool] = lambda: False,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncGenerator[View, None]:
    """One view for each change, for ever; a server that is not there is one, too, and is looked for again.

    Args:
        find: looks for the server; may block for a moment.
        pause: waits for so many seconds.
    """
    while True:
        source = await asyncio.to_thread(find)
        if source is not None:
            with suppress(PeriscopeError):
                async with aclosing(_views_of(source, has_agent, pause)) as seen:
                    async for view in seen:
                        yield view
        yield View(has_agent=has_agent())
        await pause(_GONE_S)


async def look(source: Source, *, has_agent: bool) -> View:
    """The server as it is now.

    Raises:
        PeriscopeError: it does not answer.
    """
    snapshot, captions, page = await asyncio.gather(source.status(), source.recent_captions(), source.page())
    return View(snapshot, source.url, captions, page, has_agent)


async def _views_of(
    source: Source, has_agent: Callable[[], bool], pause: Callable[[float], Awaitable[None]]
) -> AsyncGenerator[View, None]:
    """Until the event stream ends."""
    changed = asyncio.Event()
    reading = asyncio.create_task(_note_events(source, changed), name="read events")
    try:
        while not reading.done():
            view = await look(source, has_agent=has_agent())
            yield view
            await _wait(changed, reading, _BUSY_S if view.is_busy else None)
            await pause(_SETTLE_S)
            changed.clear()
    finally:
        reading.cancel()
        await asyncio.wait({reading})


async def _note_events(source: Source, changed: asyncio.Event) -> None:
    with suppress(PeriscopeError):  # the stream has ended, however it did
        async with aclosing(source.events()) as events:
            await anext(events, None)  # the snapshot, which is asked for anyway
            async for _ in events:
                changed.set()


async def _wait(changed: asyncio.Event, reading: asyncio.Task[None], timeout_s: float | None) -> None:
    waiting = asyncio.create_task(changed.wait())
    try:
        await asyncio.wait({waiting, reading}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
