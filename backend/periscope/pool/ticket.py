"""Ticket: one request's place in the queue of a model, and its lease after that. Event loop only.

Owned by the request that joined the queue. Whatever becomes of the request, `close` takes the ticket out of the queue
or gives the lease back; it never waits, so that a cancelled request cannot be stopped from doing it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from periscope.pool.facts import TicketFacts

if TYPE_CHECKING:
    from periscope.core import Waiting
    from periscope.errors import PeriscopeError
    from periscope.pool.contracts import PooledEngine

EngineT = TypeVar("EngineT")


class TicketState(StrEnum):
    """Every ticket ends as `CLOSED`, from any of the others."""

    RESERVED = "reserved"
    WAITING = "waiting"
    GRANTED = "granted"
    REFUSED = "refused"
    CLOSED = "closed"


class Ticket:
    """See the module. The pool calls `tell`, `grant` and `refuse`; the request all else.

    A reserved one keeps its place while the request has something else done; it is never granted, and may be refused.
    """

    def __init__(
        self,
        facts: TicketFacts,
        clock: Callable[[], float],
        *,
        on_ready: Callable[[], None],
        on_close: Callable[[Ticket], None],
    ) -> None:
        self.facts = facts
        self.state = TicketState.RESERVED if facts.is_reserved else TicketState.WAITING
        self.granted_at = 0.0
        self._clock = clock
        self._on_ready = on_ready
        self._on_close = on_close
        self._engine: PooledEngine | None = None
        self._error: PeriscopeError | None = None
        self._told: Waiting | None = None
        self._is_told = True
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Ticket {self.facts.number} {self.state}>"

    def start_waiting(self) -> None:
        """Idempotent: a reserved one wants the model from now on, at the place it has had all the time."""
        if self.state is TicketState.RESERVED:
            self.facts = replace(self.facts, is_reserved=False, waits_since=self._clock())
            self.state = TicketState.WAITING
            self._on_ready()

    async def refused(self) -> None:
        """Wait until a reserved one is refused or not reserved any more; only for the one task that holds it.

        Raises:
            ModelUnavailable: the model cannot be loaded.
            ServerStopping: the pool is closing.
        """
        while self.state is TicketState.RESERVED:
            await self._changed.wait()
            self._changed.clear()
        if self._error is not None:
            raise self._error

    async def updates(self) -> AsyncIterator[Waiting]:
        """What it waits for, the newest each time it is asked; ends when it is granted. A reserved one starts to wait.

        Raises:
            ServerBusy: it has waited too long.
            ModelUnavailable: the model cannot be loaded.
            ServerStopping: the pool is closing.
        """
        self.start_waiting()
        while self.state is TicketState.WAITING:
            if self._told is not None and not self._is_told:
                self._is_told = True
                yield self._told
            else:
                await self._changed.wait()
                self._changed.clear()
        if self._error is not None:
            raise self._error

    async def granted(self) -> None:
        """Wait for the lease. Raises as `updates`."""
        async for _ in self.updates():
            pass

    def engine(self, kind: type[EngineT]) -> EngineT:
        """The engine, once the ticket is granted and until it is closed.

        Raises:
            TypeError: it is of another kind; a bug in whoever asks.
        """
        if not isinstance(self._engine, kind):
            raise TypeError(f"the model is a {type(self._engine).__name__}, not a {kind.__name__}")
        return self._engine

    def close(self) -> None:
        """Idempotent: leave the queue, or give the lease back."""
        if self.state is TicketState.CLOSED:
            return
        self._on_close(self)
        self.state, self._engine = TicketState.CLOSED, None
        self._changed.set()

    def tell(self, waiting: Waiting, *, is_news: bool) -> None:
        """What it waits for now; the estimate of the time left alone is no news."""
        self._told = waiting
        if is_news:
            self._is_told = False
            self._changed.set()

    @property
    def error(self) -> PeriscopeError | None:
        """Why it was refused."""
        return self._error

    @property
    def told(self) -> Waiting | None:
        """What it was told last."""
        return self._told

    def grant(self, engine: PooledEngine) -> None:
        """The model is there, and so is a place."""
        self.state, self._engine, self.granted_at = TicketState.GRANTED, engine, self._clock()
        self._changed.set()

    def refuse(self, error: PeriscopeError) -> None:
        """It will not be granted."""
        self.state, self._error = TicketState.REFUSED, error
        self._changed.set()
