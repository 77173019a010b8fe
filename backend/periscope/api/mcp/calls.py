"""The calls of agents that are under way, so that they can be cancelled. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeAlias, TypeVar

T = TypeVar("T")
#: The API key's name, the client's session, and the id of the request, which is unique in the session alone.
CallName: TypeAlias = tuple[str | None, str, str | int]


class McpCalls:
    """Owns the names of the calls under way.

    Nothing else is kept of a session: it is a name that `initialize` gives to a client, by which its calls are told
    from those of others. So it is never too old and survives a restart, which matters, since most clients answer the
    404 of a session that is gone with an error, and not with a new one as they should.
    """

    def __init__(self) -> None:
        self._tasks: dict[CallName, asyncio.Task[object] | None] = {}

    async def named(self, name: CallName, events: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """The same events; `cancel` cancels the task that iterates."""
        task = self._tasks[name] = asyncio.current_task()
        try:
            async with aclosing(events):
                async for event in events:
                    yield event
        finally:
            if self._tasks.get(name) is task:
                del self._tasks[name]

    def cancel(self, name: CallName) -> None:
        """Idempotent; nothing happens if there is no such call, as when it has just ended."""
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
