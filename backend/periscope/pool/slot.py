"""Slot: one configured model's place in the pool. Event loop only."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from periscope.core import ModelState
from periscope.events import ModelChanged
from periscope.pool.facts import ModelFacts
from periscope.pool.lifecycle import Lifecycle
from periscope.pool.queue import TicketQueue

if TYPE_CHECKING:
    from periscope.pool.contracts import ModelSpec, PoolHooks

logger = logging.getLogger(__name__)


class Slot:
    """Owns one model's queue, its life cycle and its pin. `plan` decides what is done with them."""

    def __init__(self, spec: ModelSpec, hooks: PoolHooks) -> None:
        self.spec = spec
        self.name = spec.name
        self.is_pinned = spec.is_pinned
        self.queue = TicketQueue(hooks.timers.now, changed=partial(hooks.queue_changed, spec.name))
        self.lifecycle = Lifecycle(spec, hooks)
        self._publish = hooks.publish
        self._published: tuple[object, ...] = ()

    def __repr__(self) -> str:
        queue = self.queue
        return f"<Slot {self.name} {self.state} running={queue.num_running} waiting={len(queue.waiting)}>"

    @property
    def state(self) -> ModelState:
        """The state of the model."""
        return self.lifecycle.state

    @property
    def used_at(self) -> float:
        """When a lease was last granted or released, or the model became ready."""
        return max(self.queue.used_at, self.lifecycle.ready_at)

    def facts(self) -> ModelFacts:
        """What a plan depends on."""
        queue, lifecycle = self.queue, self.lifecycle
        return ModelFacts(
            name=self.name,
            state=lifecycle.state,
            waiting=queue.facts(),
            need_bytes=None if lifecycle.footprint is None else lifecycle.footprint.total_bytes,
            held_bytes=lifecycle.held_bytes,
            is_measuring=lifecycle.is_measuring,
            is_unloading=lifecycle.is_unloading,
            is_pinned=self.is_pinned,
            num_running=queue.num_running,
            max_running=self.spec.max_running,
            ready_number=lifecycle.ready_number,
            unload_number=lifecycle.unload_number,
            ready_at=lifecycle.ready_at,
            used_at=self.used_at,
            ttl_s=self.spec.ttl_s,
            retry_at=lifecycle.retry_at,
        )

    def pin(self, *, is_pinned: bool) -> None:
        """Pin or unpin the model; a pin revokes an earlier command to unload it."""
        self.is_pinned = is_pinned
        if is_pinned:
            self.lifecycle.forget_unload()

    def take_terms(self, spec: ModelSpec) -> None:
        """From now on the terms of `spec` hold: how many requests at once, how long it stays, whether it is pinned."""
        if spec.is_pinned != self.spec.is_pinned:
            self.is_pinned = spec.is_pinned
        self.spec = spec

    def replace(self, spec: ModelSpec, number: int) -> None:
        """From its next load on the model is the one of `spec`. Tickets below `number` are served by this load."""
        self.take_terms(spec)
        self.lifecycle.replace(spec, number)

    def leave(self, number: int) -> None:
        """The model was removed: it is unloaded, pinned or not, once the tickets below `number` are served."""
        self.is_pinned = False
        self.lifecycle.ask_to_unload(number)

    @property
    def may_be_spared(self) -> bool:
        """Whether it is in memory, and neither pinned nor used, waited for or about to be unloaded."""
        is_idle = self.state is ModelState.READY and not (self.queue.num_running or self.queue.waiting)
        return is_idle and not self.is_pinned and self.lifecycle.unload_number is None

    @property
    def is_in_use(self) -> bool:
        """Whether it is in memory, on its way there, or a request waits for it."""
        return self.state.is_resident or self.state is ModelState.LOADING or bool(self.queue.waiting)

    @property
    def is_gone(self) -> bool:
        """Nothing of the model is in memory or on its way there, and no request has to do with it."""
        queue, lifecycle = self.queue, self.lifecycle
        return not (queue.num_running or queue.waiting) and lifecycle.state.is_out and lifecycle.is_at_rest

    def end_unload_command(self) -> None:
        """Forget a command to unload once the model is not in memory and no older ticket wants it. Idempotent."""
        if self.lifecycle.unload_number is None or not self.state.is_out:
            return
        facts = self.facts()
        if not any(facts.came_before_unload(ticket) for ticket in facts.waiting if not ticket.is_reserved):
            self.lifecycle.forget_unload()

    def publish_changes(self) -> None:
        """Publish one event if the queue, the leases or the pin differ from what was published last."""
        row = (self.queue.num_running, self.queue.num_waiting, self.is_pinned)
        if row != self._published:
            self._published = row
            self._publish(ModelChanged(self.name))

    async def close(self, *, drain_s: float) -> None:
        """Wait up to `drain_s` for the leases that are out, then free the model, whatever it is doing."""
        await self.lifecycle.stop_work()
        if self.state is ModelState.READY:
            self.lifecycle.drain()
        if self.queue.num_running and self.state is ModelState.DRAINING:
            with suppress(TimeoutError):
                async with asyncio.timeout(drain_s):
                    await self.queue.unused()
            if drain_s and self.queue.num_running:
                logger.warning(
                    "model %s is freed though requests have not ended within %g s: %d",
                    self.name,
                    drain_s,
                    self.queue.num_running,
                )
        await self.lifecycle.free()
