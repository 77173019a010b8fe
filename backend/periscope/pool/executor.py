"""PlanExecutor: carries out plans until there is nothing left to do. Event loop only.

Between two awaits nothing else touches the slots, so there is nothing to lock. No effect awaits: work that takes time
is a task of a slot, and its end is a further change.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from periscope.pool.effects import CancelLoad, Drain, Effect, Grant, Keep, Load, Measure, Refusal, Refuse, Unload
from periscope.pool.facts import PoolFacts
from periscope.pool.planner import plan
from periscope.pool.refusal import refusal
from periscope.pool.view import tell_waiting

if TYPE_CHECKING:
    from periscope.pool.contracts import LiveMemory, PoolLimits, TimerHandle, Timers
    from periscope.pool.slot import Slot


class PlanExecutor:
    """Owns the timer of the next plan and the event that tells that plans were carried out. The pool owns the slots.

    It decides nothing: `plan` says what to do, and the slots do it.

    Attributes:
        holds_loads: see `PoolFacts`; whoever changes it calls `settle`.
    """

    def __init__(self, slots: Mapping[str, Slot], limits: PoolLimits, memory: LiveMemory, timers: Timers) -> None:
        self._slots = slots
        self._limits = limits
        self._memory = memory
        self._timers = timers
        self._timer: TimerHandle | None = None
        self._wakes_at = math.inf  # as the last plan of all models has it
        self._is_calm = False
        self._settled = asyncio.Event()
        self._is_settling = self._is_stopped = False
        self.holds_loads = False

    @property
    def settled(self) -> asyncio.Event:
        """Set when the plans after the next change are carried out. Take it before reading state that may change."""
        return self._settled

    def settle(self, changed: str | None = None) -> None:
        """Plan and carry out until the plan is empty, then wake whoever waits for `settled`.

        It is called after every change. A change during a call is handled by that call.

        Args:
            changed: nothing but the queue of the model of this name has changed; None = anything may have.
        """
        if self._is_settling:
            return
        if changed is None or not self._settle_alone(self._slots[changed]):
            self._settle_all()
        self._settled.set()
        self._settled = asyncio.Event()

    def _settle_all(self) -> None:
        slots = [slot for slot in self._slots.values() if not slot.is_gone]  # no plan brings one of the others back
        if not self._is_stopped:
            self._wakes_at = self._carry_out_plans(slots)
            self._wake_at(self._wakes_at)
            self._memory.promised_bytes = self._outstanding_bytes()
            for slot in self._slots.values():
                if slot.queue.waiting:
                    tell_waiting(slot)
                slot.publish_changes()
        for slot in self._slots.values():
            if slot.lifecycle.unload_number is not None:
                slot.end_unload_command()
        self._is_calm = not any(slot.queue.waiting for slot in slots)

    def _settle_alone(self, slot: Slot) -> bool:
        """Plan for one model alone: while nobody waits for another one, a plan of all does the same.

        Returns:
            False, and does nothing, if the plan may depend on other models: if one was waited for, or this one is not
            in memory.
        """
        if not self._is_calm or self._is_stopped or not slot.state.is_resident:
            return False
        self._wake_at(min(self._carry_out_plans([slot]), self._wakes_at))
        tell_waiting(slot)
        slot.publish_changes()
        self._is_calm = not slot.queue.waiting
        return True

    def stop(self) -> None:
        """Make no more plans; whoever waits for `settled` is still woken after changes. Idempotent."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _carry_out_plans(self, slots: Sequence[Slot]) -> float:
        """Carry out one plan for these models after the other; returns when to plan again."""
        self._is_settling = True
        try:
            made = plan(self._facts(slots))
            while made.effects:
                for effect in made.effects:
                    self._carry_out(effect)
                made = plan(self._facts(slots))
            return made.wake_at
        finally:
            self._is_settling = False

    def _facts(self, slots: Sequence[Slot]) -> PoolFacts:
        models = tuple([slot.facts() for slot in slots])
        return PoolFacts(
            models, self._limits.budget_bytes, self._limits.wait_timeout_s, self._timers.now(), self.holds_loads
        )

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if math.isinf(when) else self._timers.call_at(when, self.settle)

    def _carry_out(self, effect: Effect) -> None:
        slot = self._slots[effect.model]
        match effect:
            case Grant(_, number):
                assert slot.lifecycle.engine is not None  # noqa: S101 - a plan grants leases of ready models
                slot.queue.grant(number, slot.lifecycle.engine)
            case Refuse(_, number, reason):
                self._refuse(slot, number, reason)
            case Measure():
                slot.lifecycle.measure()
            case Load():
                self._release_memory_for(slot)
                slot.lifecycle.load()
            case CancelLoad():
                slot.lifecycle.cancel_load()
            case Drain():
                slot.lifecycle.drain()
            case Keep():
                slot.lifecycle.keep()
            case Unload():
                slot.lifecycle.unload()

    def _refuse(self, slot: Slot, number: int, reason: Refusal) -> None:
        error = refusal(slot, reason, self._limits, self._timers.now())
        if reason is Refusal.TOO_LARGE:
            slot.lifecycle.cannot_fit(error)
        slot.queue.refuse(number, error)

    def _release_memory_for(self, wanted: Slot) -> None:
        """Let engines free memory that is kept only for speed, if the load would not fit beside it."""
        need = wanted.facts().need_bytes or 0
        if self._memory.active_bytes() + self._outstanding_bytes() + need <= self._limits.budget_bytes:
            return
        for slot in self._slots.values():
            if slot.lifecycle.engine is not None:
                slot.lifecycle.engine.release_memory()

    def _outstanding_bytes(self) -> int:
        return sum([slot.lifecycle.outstanding_bytes for slot in self._slots.values()])
