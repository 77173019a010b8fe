"""ModelPool: which models are in memory, who waits for them, and who may use them now. Event loop only.

`DESIGN.md` in this folder has the rules.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, TypeVar

from periscope.core import Tell
from periscope.errors import ModelPinned, ModelUnavailable, PeriscopeError, ServerStopping
from periscope.events import ModelRemoved
from periscope.pool.contracts import LiveMemory, ModelSpec, PooledEngine, PoolHooks, PoolLimits, Timers
from periscope.pool.executor import PlanExecutor
from periscope.pool.facts import TicketFacts
from periscope.pool.refusal import queue_full
from periscope.pool.slot import Slot
from periscope.pool.timers import LoopTimers
from periscope.pool.view import status_of

if TYPE_CHECKING:
    from periscope.events import EventBus
    from periscope.pool.ticket import Ticket
    from periscope.status import ModelStatus

logger = logging.getLogger(__name__)

EngineT = TypeVar("EngineT", bound=PooledEngine)


class ModelPool:
    """Owns the slots, one for each configured model, and the numbers of the tickets.

    The sum of what the slots hold is the memory ledger. `memory` tells what is really taken; the pool tells it how many
    reserved bytes are not yet among that, so that requests of other models do not take them.

    Attributes:
        preloading: the models that are being loaded at start.
    """

    def __init__(
        self,
        specs: Iterable[ModelSpec],
        bus: EventBus,
        limits: PoolLimits,
        *,
        memory: LiveMemory,
        timers: Timers = LoopTimers(),
    ) -> None:
        self.limits = limits
        self.preloading: frozenset[str] = frozenset()
        self._bus = bus
        self._timers = timers
        self._slots: dict[str, Slot] = {}
        self._executor = PlanExecutor(self._slots, limits, memory, timers)
        self._next_number = 1
        self._loads: set[asyncio.Task[None]] = set()
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._is_closing = False
        settle = self._executor.settle
        self._hooks = PoolHooks(timers, bus.publish, settle, settle, self._reload, lambda: self._next_number)
        self._slots |= {spec.name: Slot(spec, self._hooks) for spec in specs}

    def __repr__(self) -> str:
        return f"<ModelPool {list(self._slots.values())}>"

    # --- state ---------------------------------------------------------------------------------------------------

    def status(self, name: str) -> ModelStatus:
        """The model as it is now; does not block."""
        return status_of(self._slots[name], self._timers.now())

    def statuses(self) -> tuple[ModelStatus, ...]:
        """All models as they are now, in the order of models.yaml."""
        return tuple(self.status(name) for name in self._slots)

    def loaded(self, name: str, kind: type[EngineT]) -> EngineT | None:
        """The engine if the model is loaded, to read its properties. Using it takes a lease."""
        engine = self._slots[name].lifecycle.engine
        return engine if isinstance(engine, kind) else None

    # --- leases -----------------------------------------------------------------------------------------------------

    def ticket(self, name: str, *, is_reserved: bool = False) -> AbstractContextManager[Ticket]:
        """A place in the queue of a model, which is loaded if necessary. The place or its lease is released at exit.

        A request waits for or holds one model at a time: with two, two requests could wait for each other for ever. It
        may reserve a place in a second queue. Reserved places fill the queue for requests that come to reserve, and not
        for those that wait: a captioner that hangs must not hold up requests without images.

        Args:
            is_reserved: only keep the place, until `start_waiting`.

        Raises:
            ServerBusy: the queue is full.
            ServerStopping: the pool is closing.
        """
        slot = self._slot(name)
        num_waiting = slot.queue.num_waiting - (0 if is_reserved else slot.queue.num_reserved)
        if slot.queue.num_running + num_waiting >= slot.spec.max_running + self.limits.max_waiting:
            raise queue_full(slot, num_waiting, self.limits)
        return self._joined(slot, is_reserved=is_reserved)

    @asynccontextmanager
    async def lease(self, name: str, kind: type[EngineT], *, tell: Tell = lambda _: None) -> AsyncIterator[EngineT]:
        """Wait for the right to use a model, which stays loaded until the block ends.

        Args:
            tell: called with what the ticket waits for, each time that changes.

        Raises:
            ServerBusy: the queue is full, or the wait was too long.
            ModelUnavailable: the model cannot be loaded.
            ServerStopping: the pool is closing.
        """
        with self.ticket(name) as ticket:
            async for waiting in ticket.updates():
                tell(waiting)
            yield ticket.engine(kind)

    # --- commands --------------------------------------------------------------------------------------------------

    async def preload(self, names: Iterable[str]) -> None:
        """Load these models side by side and wait for all; nothing is evicted. Failures are logged, never raised."""

        async def load(name: str) -> None:
            try:
                await self.load(name, may_evict=False)
            except PeriscopeError as error:
                logger.warning("model %s is not loaded at start: %s", name, error.message)

        self.preloading = frozenset(names)
        try:
            await asyncio.gather(*(load(name) for name in self._slots if name in self.preloading))
        finally:
            self.preloading = frozenset()

    async def load(self, name: str, *, may_evict: bool = True) -> None:
        """Load the model, whether or not a request wants it, and wait until it is loaded.

        Raises:
            ModelUnavailable: it cannot be loaded, or there is no room.
            ServerStopping: the pool is closing.
        """
        with self._joined(self._slots[name], is_load_only=True, may_evict=may_evict) as ticket:
            await ticket.granted()

    def start_load(self, name: str, *, may_evict: bool = True) -> None:
        """Begin a load as `load` does, without waiting; a later failure is logged and in the model's status.

        Raises:
            ModelUnavailable: it cannot be loaded, as far as is known at once.
            ServerStopping: the pool is closing.
        """
        with ExitStack() as stack:
            ticket = stack.enter_context(self._joined(self._slots[name], is_load_only=True, may_evict=may_evict))
            if ticket.error is not None:
                raise ticket.error
            task = asyncio.create_task(_hold(ticket, stack.pop_all()), name=f"wait for the load of {name}")
        self._loads.add(task)
        task.add_done_callback(self._loads.discard)

    def start_unload(self, name: str) -> None:
        """Unload the model once the requests that use it and those that already wait are done. Idempotent.

        Loads asked for by an earlier command, at start or after a worker's death are cancelled; a failed model stays
        unloaded until a request asks for it.

        Raises:
            ModelPinned: the model must be unpinned first.
        """
        slot = self._slots[name]
        if slot.is_pinned:
            raise ModelPinned(f"Model {name} is pinned. Unpin it first.", param="model")
        slot.lifecycle.ask_to_unload(self._next_number)
        self._executor.settle()

    async def unloaded(self, name: str) -> None:
        """Wait until the model is not in memory, and no request from before a command to unload it wants it."""
        lifecycle = self._slots[name].lifecycle
        while True:
            settled = self._executor.settled
            if lifecycle.unload_number is None and lifecycle.state.is_out:
                return
            await settled.wait()

    def pin(self, name: str, *, is_pinned: bool) -> None:
        """Pin or unpin a model; a pinned one is never unloaded, to make room or for idleness."""
        self._slots[name].pin(is_pinned=is_pinned)
        self._executor.settle()

    def hold_loads(self, *, is_held: bool) -> None:
        """While loads are held nothing is loaded: requests for a model that is not in memory wait."""
        self._executor.holds_loads = is_held
        self._executor.settle()

    def relieve_memory(self) -> str | None:
        """Have all engines free what they keep for speed, and unload the model that has been idle longest.

        Returns:
            Its name; None if every loaded model is pinned or in use.
        """
        for slot in self._slots.values():
            if slot.lifecycle.engine is not None:
                slot.lifecycle.engine.release_memory()
        idle = [slot for slot in self._slots.values() if slot.may_be_spared]
        if not idle:
            return None
        spared = min(idle, key=lambda slot: slot.used_at)
        spared.lifecycle.ask_to_unload(self._next_number)
        self._executor.settle()
        return spared.name

    def configure(self, specs: Iterable[ModelSpec], *, replaced: Collection[str], loads: Collection[str]) -> None:
        """Have these models from now on, in this order. `DESIGN.md`, "Another list of models", has the rules.

        Args:
            replaced: those that run in another way than the model that had their name.
            loads: those that are to be loaded, if there is room.
        """
        wanted = {spec.name: spec for spec in specs}
        again = [name for name in replaced if name in self._slots and self._slots[name].is_in_use]
        for name in self._slots.keys() - wanted.keys() - self._leaving.keys():
            self._slots[name].leave(self._next_number)
            self._leaving[name] = asyncio.create_task(self._forget(name), name=f"forget {name}")
        slots = {name: self._configured(spec, is_replaced=name in replaced) for name, spec in wanted.items()}
        slots |= {name: self._slots[name] for name in self._leaving}
        self._slots.clear()
        self._slots |= slots
        self._executor.settle()
        for name in dict.fromkeys((*again, *loads)):
            self._reload(name)

    async def close(self, *, drain_s: float = 0.0) -> None:
        """Grant no new leases, wait up to `drain_s` for those that are out, free every model. Idempotent."""
        self._is_closing = True
        self._executor.stop()
        for slot in self._slots.values():
            slot.queue.refuse_all(ServerStopping("The server is stopping."))
        await asyncio.gather(*(slot.close(drain_s=drain_s) for slot in self._slots.values()))
        for task in (*self._loads, *self._leaving.values()):
            task.cancel()
        self._bus.close()

    # ---------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _joined(
        self, slot: Slot, *, is_load_only: bool = False, may_evict: bool = True, is_reserved: bool = False
    ) -> Iterator[Ticket]:
        if self._is_closing:
            raise ServerStopping("The server is stopping.")
        if slot.name in self._leaving:
            raise _removed(slot.name)
        facts = TicketFacts(self._next_number, self._timers.now(), is_load_only, may_evict, is_reserved)
        ticket = slot.queue.join(facts)
        self._next_number += 1
        try:
            self._executor.settle(slot.name)
            yield ticket
        finally:
            ticket.close()

    def _slot(self, name: str) -> Slot:
        """A request that came before its captioner was removed asks for what is not there any more."""
        if (slot := self._slots.get(name)) is None:
            raise _removed(name)
        return slot

    def _configured(self, spec: ModelSpec, *, is_replaced: bool) -> Slot:
        slot = self._slots.get(spec.name)
        if slot is None:
            return Slot(spec, self._hooks)
        leaving = self._leaving.pop(spec.name, None)
        if leaving is not None:
            leaving.cancel()
        if is_replaced or leaving is not None:
            slot.replace(spec, self._next_number)
        else:
            slot.take_terms(spec)
        return slot

    async def _forget(self, name: str) -> None:
        """Unload a model that was removed, as often as its last requests bring it back, and forget it."""
        slot = self._slots[name]
        while not slot.is_gone:
            settled = self._executor.settled
            if slot.state.is_resident and slot.lifecycle.unload_number is None:
                slot.leave(self._next_number)
                self._executor.settle()
            else:
                await settled.wait()
        del self._slots[name], self._leaving[name]
        self._bus.publish(ModelRemoved(name))

    def _reload(self, name: str) -> None:
        """Load a model whose worker died again, if there is room."""
        if self._is_closing:
            return
        try:
            self.start_load(name, may_evict=False)
        except PeriscopeError as error:
            logger.warning("model %s is not loaded again: %s", name, error.message)


def _removed(name: str) -> ModelUnavailable:
    return ModelUnavailable(f"Model {name} was removed from models.yaml.")


async def _hold(ticket: Ticket, stack: ExitStack) -> None:
    """Keep a load-only ticket in its queue until it is granted or refused."""
    with stack:
        try:
            await ticket.granted()
        except PeriscopeError as error:
            logger.warning("a model was asked for and is not loaded: %s", error.message)
