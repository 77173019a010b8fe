"""What the pool tells about a slot: its status, and what each of its tickets waits for.

Event loop only; nothing here changes a slot.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from periscope.core import EngineMemory, ModelState, Waiting, WaitStatus
from periscope.status import ModelStatus

if TYPE_CHECKING:
    from periscope.pool.slot import Slot

#: Bounds of what clients are told to wait before they try again.
_MIN_RETRY_S, _MAX_RETRY_S = 1, 60
#: A load's progress is told in steps of this part of the whole.
_PROGRESS_STEP = 0.01


def status_of(slot: Slot, now: float) -> ModelStatus:
    """The model's status now. The pool does not know whether it is the default model."""
    lifecycle, queue = slot.lifecycle, slot.queue
    engine = lifecycle.engine
    memory = EngineMemory() if engine is None else engine.memory
    idle_until = slot.facts().idle_until
    is_unused = slot.state is ModelState.READY and not (queue.num_running or queue.waiting)
    is_failed = slot.state is ModelState.FAILED
    progress = lifecycle.load_progress if slot.state is ModelState.LOADING else None
    done_bytes, total_bytes = progress or (None, None)
    return ModelStatus(
        name=slot.name,
        kind=slot.spec.kind,
        state=slot.state,
        aliases=slot.spec.aliases,
        is_pinned=slot.is_pinned,
        num_running=queue.num_running,
        num_waiting=queue.num_waiting,
        max_running=slot.spec.max_running,
        kv_bits=slot.spec.kv_bits,
        held_bytes=lifecycle.held_bytes,
        weights_bytes=None if engine is None else memory.weights_bytes,
        prompt_cache_bytes=memory.prompt_cache_bytes,
        prompt_disk_bytes=memory.prompt_disk_bytes,
        prompt_disk_written_bytes=memory.prompt_disk_written_bytes,
        num_preemptions=memory.num_preemptions,
        num_accepted_tokens=memory.num_accepted_tokens,
        num_rejected_tokens=memory.num_rejected_tokens,
        load_done_bytes=done_bytes,
        load_total_bytes=total_bytes,
        load_eta_s=lifecycle.load_eta_s,
        idle_s=max(now - slot.used_at, 0.0) if is_unused else None,
        ttl_s=slot.spec.ttl_s,
        unload_in_s=None if math.isinf(idle_until) else max(idle_until - now, 0.0),
        error=None if lifecycle.error is None else lifecycle.error.message,
        retry_in_s=max(lifecycle.retry_at - now, 0.0) if is_failed else None,
    )


def tell_waiting(slot: Slot) -> None:
    """Tell every ticket in the queue what it waits for and for about how long.

    A reserved place counts in the positions: it came first and is granted first once it wants the model. So a position
    never rises.
    """
    position = 0
    for ticket in slot.queue.waiting:
        position += not ticket.facts.is_load_only
        waiting = waiting_of(slot, position)
        ticket.tell(waiting, is_news=is_news(ticket.told, waiting))


def is_news(before: Waiting | None, waiting: Waiting | None) -> bool:
    """Pure: whether more than the estimate of the remaining time has changed."""
    if before is None or waiting is None:
        return before is not waiting
    return (before.status, before.position, before.progress) != (waiting.status, waiting.position, waiting.progress)


def waiting_of(slot: Slot, position: int | None) -> Waiting:
    """What a request at this position of the queue waits for; None for one that is not in the queue."""
    lifecycle = slot.lifecycle
    match slot.state:
        case ModelState.READY:
            eta_s = None if position is None else slot.queue.lease_s * math.ceil(position / slot.spec.max_running)
            return Waiting(WaitStatus.QUEUED, slot.name, position, eta_s=eta_s)
        case ModelState.LOADING:
            done, total = lifecycle.load_progress or (0, 0)
            progress = math.floor(done / total / _PROGRESS_STEP) * _PROGRESS_STEP if total else 0.0
            return Waiting(WaitStatus.LOADING, slot.name, position, progress, lifecycle.load_eta_s)
        case _ if lifecycle.is_measuring:
            return Waiting(WaitStatus.LOADING, slot.name, position)
        case _:
            return Waiting(WaitStatus.WAITING_FOR_MODEL, slot.name, position)


def retry_after_s(slot: Slot) -> int:
    """Estimate of when a place in the queue is free again, for `Retry-After`."""
    wait_s = slot.lifecycle.load_eta_s or slot.queue.lease_s / slot.spec.max_running
    return min(max(math.ceil(wait_s), _MIN_RETRY_S), _MAX_RETRY_S)
