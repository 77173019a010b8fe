"""Ticket: one request's place in the queue of a model, and then its lease. Event loop only.

The request that joined the queue owns the ticket and closes it, whatever becomes of the request. `close` takes the
ticket out of the queue or releases the lease; it does not await anything, so a cancellation cannot interrupt it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar, cast

from periscope.pool.facts import TicketFacts

if TYPE_CHECKING:
    from periscope.core import Waiting
    from periscope.errors import PeriscopeError
    from periscope.pool.contracts import PooledEngine

EngineT = TypeVar("EngineT")

#: Classes of engines and what they are. For a protocol, `isinstance` looks at each of its members every time.
_OF_KIND: set[tuple[type, type]] = set()


class TicketState(StrEnum):
    """`RESERVED -> WAITING -> GRANTED | REFUSED`; every ticket ends as `CLOSED`, from any of the others."""

    RESERVED = "reserved"
    WAITING = "waiting"
    GRANTED = "granted"
    REFUSED = "refused"
    CLOSED = "closed"


class Ticket:
    """Owns one request's state in the pool. The queue calls `tell`, `grant` and `refuse`; the request the rest.

    A reserved ticket keeps its place while its request does something else first; it may be refused, and is only
    granted after `start_waiting`.

    Attributes:
        granted_at: when it got its lease, on the pool's clock.
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
        """Let a reserved ticket wait for the model from now on, in the place that it reserved. Idempotent."""
        if self.state is TicketState.RESERVED:
            self.facts = replace(self.facts, is_reserved=False, waits_since=self._clock())
            self.state = TicketState.WAITING
            self._on_ready()

    async def refused(self) -> None:
        """Wait until the ticket is refused, or is not reserved any more. At most one task may wait for a ticket.

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
        """Yield what the ticket waits for each time that changes, skipping all but the newest; ends when it is granted.

        A reserved ticket starts to wait. At most one task may wait for a ticket.

        Raises:
            ServerBusy: it waited for too long.
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
        """Wait until the ticket is granted; raises what `updates` raises."""
        async for _ in self.updates():
            pass

    def engine(self, kind: type[EngineT]) -> EngineT:
        """The engine, while the ticket is granted.

        Raises:
            TypeError: the engine is not of this class, or the ticket is not granted; a bug in the caller.
        """
        if (type(self._engine), kind) not in _OF_KIND:
            if not isinstance(self._engine, kind):
                raise TypeError(f"the model is a {type(self._engine).__name__}, not a {kind.__name__}")
            _OF_KIND.add((type(self._engine), kind))
        return cast("EngineT", self._engine)

    def close(self) -> None:
        """Leave the queue, or release the lease. Idempotent; never awaits."""
        if self.state is TicketState.CLOSED:
            return
        self._on_close(self)
        self.state, self._engine = TicketState.CLOSED, None
        self._changed.set()

    def tell(self, waiting: Waiting, *, is_news: bool) -> None:
        """Note what the ticket waits for now. The reader of `updates` is woken only if that has changed."""
        self._told = waiting
        if is_news:
            self._is_told = False
            self._changed.set()

    @property
    def error(self) -> PeriscopeError | None:
        """Why the ticket was refused; None unless it was."""
        return self._error

    @property
    def told(self) -> Waiting | None:
        """What the ticket waits for, as it was told last."""
        return self._told

    def grant(self, engine: PooledEngine) -> None:
        """Give the ticket its lease of this engine."""
        self.state, self._engine, self.granted_at = TicketState.GRANTED, engine, self._clock()
        self._changed.set()

    def refuse(self, error: PeriscopeError) -> None:
        """End the wait with an error."""
        self.state, self._error = TicketState.REFUSED, error
        self._changed.set()
