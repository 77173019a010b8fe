"""The errors of refused tickets: what is wrong, with the numbers, and what the user can do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from periscope.errors import FilesMissing, ModelNotOnDisk, ModelUnavailable, PeriscopeError, ServerBusy
from periscope.pool.effects import Refusal
from periscope.pool.view import retry_after_s

if TYPE_CHECKING:
    from periscope.pool.contracts import PoolLimits
    from periscope.pool.slot import Slot


def queue_full(slot: Slot, num_waiting: int, limits: PoolLimits) -> ServerBusy:
    """The error of a request that finds no place in the queue."""
    return ServerBusy(
        f"Model {slot.name} is busy: it has {slot.queue.num_running + num_waiting} requests, and takes "
        f"{slot.spec.max_running} at once and {limits.max_waiting} that wait (`server.limits.max_waiting`). "
        "Try again soon.",
        retry_after_s=retry_after_s(slot),
    )


def refusal(slot: Slot, reason: Refusal, limits: PoolLimits, now: float) -> PeriscopeError:
    """The error of a ticket that a plan refuses."""
    need = slot.facts().need_bytes or 0
    match reason:
        case Refusal.TIMED_OUT | Refusal.LOADS_HELD:
            return _waited_too_long(slot, reason, limits)
        case Refusal.FAILED:
            return _failed(slot, now)
        case Refusal.TOO_LARGE:
            return _too_large(slot, need, limits.budget_bytes)
        case Refusal.CANCELLED:
            return ModelUnavailable(f"Model {slot.name} was unloaded by a later command, before it was loaded.")
        case Refusal.NO_ROOM:
            return ModelUnavailable(
                f"Model {slot.name} takes about {_size(need)}, which does not fit beside the models in memory. "
                "They make room for it when a request asks for it."
            )


def _failed(slot: Slot, now: float) -> PeriscopeError:
    error = slot.lifecycle.error
    why = f"Model {slot.name} is not available: {error.message if error else 'it failed.'}"
    if isinstance(error, FilesMissing):
        return ModelNotOnDisk(why, param="model")
    return ModelUnavailable(f"{why} Next try in {max(slot.lifecycle.retry_at - now, 0.0):.0f} s.")


def _too_large(slot: Slot, need_bytes: int, budget_bytes: int) -> ModelUnavailable:
    takes, budget = f"Model {slot.name} takes about {_size(need_bytes)}", _size(budget_bytes)
    if need_bytes > budget_bytes:
        return ModelUnavailable(
            f"{takes}, but all models together may take {budget}. Choose a smaller quantisation, lower `params.mem`, "
            "or raise `memory.budget` in models.yaml."
        )
    return ModelUnavailable(
        f"{takes}, more than the pinned models leave of {budget}. Unpin one of them, or raise `memory.budget` in "
        "models.yaml."
    )


def _waited_too_long(slot: Slot, reason: Refusal, limits: PoolLimits) -> ServerBusy:
    why = (
        f"Model {slot.name} was busy for {limits.wait_timeout_s:g} s (`server.limits.wait_timeout_s`). Try again soon."
    )
    if reason is Refusal.LOADS_HELD:
        why = (
            f"Model {slot.name} was not loaded within {limits.wait_timeout_s:g} s, because this machine is short of "
            "memory. Close other programs there, or try again later."
        )
    return ServerBusy(why, retry_after_s=retry_after_s(slot))


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
