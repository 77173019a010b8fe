"""What the pool tells of a slot: to those who look, and to those who wait. Event loop only; changes nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from periscope.core import Waiting, WaitStatus
from periscope.pool.state import ModelState

if TYPE_CHECKING:
    from periscope.errors import PeriscopeError
    from periscope.pool.slot import Slot

#: Bounds of what clients are told to wait before they try again.
_MIN_RETRY_S, _MAX_RETRY_S = 1, 60
#: A load's progress is told in steps of this part of the whole.
_PROGRESS_STEP = 0.01


@dataclass(frozen=True, slots=True)
class SlotView:
    """One model as it is at this moment; times in seconds from now."""

    name: str
    state: ModelState
    num_leases: int
    num_waiting: int
    max_leases: int
    error: PeriscopeError | None
    is_pinned: bool
    held_bytes: int
    weights_bytes: int | None
    load_progress: tuple[int, int] | None
    load_eta_s: float | None
    idle_s: float | None
    ttl_s: float | None
    unload_in_s: float | None
    retry_in_s: float | None


def view_of(slot: Slot, now: float) -> SlotView:
    """How it stands."""
    facts = slot.facts()
    is_failed = slot.state is ModelState.FAILED
    return SlotView(
        name=slot.name,
        state=slot.state,
        num_leases=slot.num_leases,
        num_waiting=slot.num_waiting,
        max_leases=slot.spec.max_leases,
        error=slot.error,
        is_pinned=slot.is_pinned,
        held_bytes=slot.held_bytes,
        weights_bytes=slot.engine.weights_bytes if slot.engine is not None else None,
        load_progress=slot.load_progress if slot.state is ModelState.LOADING else None,
        load_eta_s=slot.load_eta_s,
        idle_s=slot.idle_s,
        ttl_s=slot.spec.ttl_s,
        unload_in_s=None if math.isinf(facts.idle_until) else max(facts.idle_until - now, 0.0),
        retry_in_s=max(slot.retry_at - now, 0.0) if is_failed else None,
    )


def tell_waiting(slot: Slot) -> None:
    """Whoever waits is told what for and how long about.

    A reserved place counts: who has it came first, and goes first once it is ready. So a position only ever falls.
    """
    position = 0
    for ticket in slot.waiting:
        position += not ticket.facts.is_load_only
        waiting = waiting_of(slot, position)
        ticket.tell(waiting, is_news=is_news(ticket.told, waiting))


def is_news(before: Waiting | None, waiting: Waiting | None) -> bool:
    """Pure: more has changed than the estimate of the time left."""
    if before is None or waiting is None:
        return before is not waiting
    return (before.status, before.position, before.progress) != (waiting.status, waiting.position, waiting.progress)


def waiting_of(slot: Slot, position: int | None) -> Waiting:
    """Pure: what one waits for who stands at this place."""
    match slot.state:
        case ModelState.READY:
            eta_s = None if position is None else slot.lease_s * math.ceil(position / slot.spec.max_leases)
            return Waiting(WaitStatus.QUEUED, slot.name, position, eta_s=eta_s)
        case ModelState.LOADING:
            done, total = slot.load_progress or (0, 0)
            progress = math.floor(done / total / _PROGRESS_STEP) * _PROGRESS_STEP if total else 0.0
            return Waiting(WaitStatus.LOADING, slot.name, position, progress, slot.load_eta_s)
        case _ if slot.is_measuring:
            return Waiting(WaitStatus.LOADING, slot.name, position)
        case _:
            return Waiting(WaitStatus.WAITING_FOR_MODEL, slot.name, position)


def retry_after_s(slot: Slot) -> int:
    """Pure: about when a place in the queue is free again."""
    wait_s = slot.load_eta_s or slot.lease_s / slot.spec.max_leases
    return min(max(math.ceil(wait_s), _MIN_RETRY_S), _MAX_RETRY_S)
