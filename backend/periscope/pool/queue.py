"""TicketQueue: which requests wait for one model, in which order, and which hold it now. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from periscope.pool.ticket import Ticket, TicketState

if TYPE_CHECKING:
    from periscope.errors import PeriscopeError
    from periscope.pool.contracts import PooledEngine
    from periscope.pool.facts import TicketFacts

#: How long a request is assumed to hold its lease before any request has.
TYPICAL_LEASE_S = 5.0
#: Weight of the newest lease in the mean.
_NEWEST_WEIGHT = 0.2


class TicketQueue:
    """Owns the tickets that wait for one model, reserved places among them, and the count of leases that are out.

    `changed` is called after every change of what a plan depends on. The queue does not decide who is granted.

    Attributes:
        waiting: in order of arrival.
        num_running: leases that are out.
        used_at: when a lease was last granted or released.
        lease_s: exponential moving average of how long leases last.
    """

    def __init__(self, clock: Callable[[], float], *, changed: Callable[[], None]) -> None:
        self.waiting: list[Ticket] = []
        self.num_running = 0
        self.used_at = 0.0
        self.lease_s = TYPICAL_LEASE_S
        self._clock = clock
        self._changed = changed
        self._is_unused = asyncio.Event()
        self._is_unused.set()

    @property
    def num_waiting(self) -> int:
        """Requests in the queue, reserved places among them; load-only tickets do not count."""
        return sum(not ticket.facts.is_load_only for ticket in self.waiting) if self.waiting else 0

    @property
    def num_reserved(self) -> int:
        """Requests in the queue that have only reserved a place."""
        return sum(ticket.facts.is_reserved for ticket in self.waiting)

    def facts(self) -> tuple[TicketFacts, ...]:
        """The tickets that wait, in order of arrival."""
        return tuple([ticket.facts for ticket in self.waiting])

    def join(self, facts: TicketFacts) -> Ticket:
        """Add a ticket at the end of the queue."""
        ticket = Ticket(facts, self._clock, on_ready=self._changed, on_close=self._closed)
        self.waiting.append(ticket)
        return ticket

    def grant(self, number: int, engine: PooledEngine) -> None:
        """Give the ticket a lease, or tell a load-only ticket that the model is loaded."""
        ticket = self._remove(number)
        if not ticket.facts.is_load_only:
            self.num_running += 1
            self._is_unused.clear()
            self.used_at = self._clock()
        ticket.grant(engine)

    def refuse(self, number: int, error: PeriscopeError) -> None:
        """Remove the ticket from the queue with an error."""
        self._remove(number).refuse(error)

    def refuse_all(self, error: PeriscopeError) -> None:
        """Remove every ticket from the queue with an error."""
        for ticket in tuple(self.waiting):
            self.refuse(ticket.facts.number, error)

    async def unused(self) -> None:
        """Wait until no lease is out."""
        await self._is_unused.wait()

    def _remove(self, number: int) -> Ticket:
        index = next(i for i, ticket in enumerate(self.waiting) if ticket.facts.number == number)
        return self.waiting.pop(index)

    def _closed(self, ticket: Ticket) -> None:
        """Remove a ticket that closes from the queue, or count its lease as released."""
        if ticket.state in {TicketState.RESERVED, TicketState.WAITING}:
            self.waiting.remove(ticket)
        elif ticket.state is TicketState.GRANTED and not ticket.facts.is_load_only:
            self._release(ticket)
        else:
            return
        self._changed()

    def _release(self, ticket: Ticket) -> None:
        self.num_running -= 1
        self.used_at = self._clock()
        self.lease_s += _NEWEST_WEIGHT * (self.used_at - ticket.granted_at - self.lease_s)
        if self.num_running == 0:
            self._is_unused.set()
