"""What a plan depends on: frozen snapshots of the tickets, the models and the pool."""

from __future__ import annotations

import math
from dataclasses import dataclass

from periscope.core import ModelState


@dataclass(frozen=True, slots=True)
class TicketFacts:
    """One request for a model.

    Attributes:
        number: order of arrival in the pool, growing.
        waits_since: when its wait began: its arrival, or for a reserved place the moment it began to want the model.
        is_load_only: it wants the model in memory and does not run on it; its wait has no timeout.
        may_evict: other models may be unloaded for it.
        is_reserved: it keeps its place in the queue and does not want the model yet: nothing is loaded, kept or evicted
            for it, its wait has not begun, and others are granted before it.
    """

    number: int
    waits_since: float
    is_load_only: bool = False
    may_evict: bool = True
    is_reserved: bool = False


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model as it is now. Times are seconds of the pool's clock.

    Attributes:
        waiting: the tickets in its queue, reserved ones among them, in order of arrival.
        need_bytes: what a load would take; None until its files were measured.
        held_bytes: what it takes now: reserved while it loads, measured once it is loaded.
        is_measuring: its files are being read.
        is_unloading: it is being freed, or its load is being cancelled.
        num_running, max_running: leases that are out, and how many may be.
        ready_number: the number the next ticket would have got when the model became ready; tickets below it are served
            by this load, whoever else waits.
        unload_number: likewise, when a command to unload the model came; None = there is no such command.
        ready_at: when it became ready; only meaningful while it is.
        used_at: when a lease was last granted or released, or it became ready.
        ttl_s: it is unloaded after so long without work; None = never.
        retry_at: when a failed model may be tried again.
    """

    name: str
    state: ModelState
    waiting: tuple[TicketFacts, ...] = ()
    need_bytes: int | None = None
    held_bytes: int = 0
    is_measuring: bool = False
    is_unloading: bool = False
    is_pinned: bool = False
    num_running: int = 0
    max_running: int = 1
    ready_number: int = 0
    unload_number: int | None = None
    ready_at: float = 0.0
    used_at: float = 0.0
    ttl_s: float | None = None
    retry_at: float = 0.0

    @property
    def is_idle(self) -> bool:
        """No request uses it, waits for it or has a place reserved."""
        return self.num_running == 0 and not self.waiting

    @property
    def idle_until(self) -> float:
        """When it is unloaded for idleness if nothing happens; infinity = never."""
        is_staying = self.is_pinned or self.is_unloading or not self.state.is_resident
        if is_staying or self.ttl_s is None or not self.is_idle:
            return math.inf
        return self.used_at + self.ttl_s

    def wait_deadline(self, ticket: TicketFacts, wait_timeout_s: float) -> float:
        """When this ticket has waited too long; infinity = never.

        The load of its own model does not count as waiting; after the load the time starts again.
        """
        if ticket.is_load_only or ticket.is_reserved or self.state is ModelState.LOADING:
            return math.inf
        since = max(ticket.waits_since, self.ready_at) if self.state is ModelState.READY else ticket.waits_since
        return since + wait_timeout_s

    def came_before_unload(self, ticket: TicketFacts) -> bool:
        """A command to unload the model has come, after this ticket."""
        return self.unload_number is not None and ticket.number < self.unload_number


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """Everything that a plan depends on.

    Attributes:
        models: in the order of models.yaml. One may be left out that is not in memory and that no request wants.
        holds_loads: nothing is loaded now, because the whole machine is short of memory.
    """

    models: tuple[ModelFacts, ...]
    budget_bytes: int
    wait_timeout_s: float
    now: float
    holds_loads: bool = False
