"""ModelPool: who is in memory, who waits for it, who may use it now. Event loop only.

It owns the slots and asks `plan` what to do after every change; between two awaits nothing else touches them, so there
is nothing to lock. `DESIGN.md` in this folder tells the rules.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from periscope.core import Waiting
from periscope.errors import ModelPinned, PeriscopeError, ServerBusy, ServerStopping
from periscope.pool.limits import PoolLimits
from periscope.pool.planner import (
    Drain,
    Effect,
    GiveUpLoad,
    Grant,
    Keep,
    Load,
    Measure,
    PoolFacts,
    Refusal,
    Refuse,
    TicketFacts,
    Unload,
    plan,
)
from periscope.pool.refusal import refusal
from periscope.pool.slot import Slot
from periscope.pool.spec import ModelSpec, PooledEngine
from periscope.pool.state import ModelState
from periscope.pool.timers import LoopTimers, TimerHandle, Timers
from periscope.pool.view import SlotView, is_news, retry_after_s, tell_waiting, view_of, waiting_of

if TYPE_CHECKING:
    from periscope.events import EventBus
    from periscope.pool.ticket import Ticket

logger = logging.getLogger(__name__)

EngineT = TypeVar("EngineT", bound=PooledEngine)


class LiveMemory(Protocol):
    """What is really taken in this process.

    Attributes:
        promised_bytes: set by the pool: promised to models and not among the active bytes.
    """

    promised_bytes: int

    def active_bytes(self) -> int:
        """Taken now."""
        ...


class ModelPool:
    """Owns the slots, one per configured model, and the memory ledger.

    The ledger holds what was promised; `memory` is what is really taken, and is told what of the promises is not among
    it yet, so that the requests of other models do not take that.

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
        self._memory = memory
        self._bus = bus
        self._timers = timers
        self._slots = {
            spec.name: Slot(
                spec,
                timers,
                publish=bus.publish,
                changed=self._settle,
                next_number=lambda: self._next_number,
                died=self._restart,
            )
            for spec in specs
        }
        self._next_number = 1
        self._timer: TimerHandle | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._settled = asyncio.Event()
        self._is_settling = self._is_closing = False

    def __repr__(self) -> str:
        return f"<ModelPool {list(self._slots.values())}>"

    # --- looking ---------------------------------------------------------------------------------------------------

    def view(self, name: str) -> SlotView:
        """Instant, no waiting, no device."""
        return view_of(self._slots[name], self._timers.now())

    def views(self) -> tuple[SlotView, ...]:
        """All models, in the order of models.yaml."""
        return tuple(self.view(name) for name in self._slots)

    def loaded(self, name: str, kind: type[EngineT]) -> EngineT | None:
        """The engine if it is loaded, to look at; use needs a lease."""
        engine = self._slots[name].engine
        return engine if isinstance(engine, kind) else None

    def wait_for(self, name: str) -> Waiting | None:
        """What somebody would wait for who wants this model now; None when it is there."""
        slot = self._slots[name]
        return None if slot.state is ModelState.READY else waiting_of(slot, None)

    async def waits_for(self, name: str) -> AsyncGenerator[Waiting | None, None]:
        """As `wait_for`, now and whenever it changes; never ends. The estimate of the time left alone is no news."""
        told: list[Waiting | None] = []
        while True:
            settled, waiting = self._settled, self.wait_for(name)
            if not told or is_news(told[0], waiting):
                told = [waiting]
                yield waiting
            await settled.wait()

    # --- using -----------------------------------------------------------------------------------------------------

    @contextmanager
    def ticket(self, name: str, *, is_reserved: bool = False) -> Iterator[Ticket]:
        """A place in the queue of a model, which is loaded for it if need be; at exit it is left or given back.

        A request waits for or holds one model at a time: with two, two requests could wait for each other for ever. A
        place in a second queue it may have reserved. Reserved places are full for those who come to reserve, and not
        for those who come to wait: what holds a captioner up must not hold up requests without images.

        Args:
            is_reserved: only keep the place, until `start_waiting`.

        Raises:
            ServerBusy: the queue is full.
            ServerStopping: the pool is closing.
        """
        slot = self._slots[name]
        num_waiting = slot.num_waiting if is_reserved else slot.num_waiting - slot.num_reserved
        if slot.num_leases + num_waiting >= slot.spec.max_leases + self.limits.max_waiting:
            raise ServerBusy(
                f"Model {name} is busy: {slot.num_leases} requests run and {num_waiting} wait "
                f"(`server.limits.max_waiting` is {self.limits.max_waiting}). Try again soon.",
                retry_after_s=retry_after_s(slot),
            )
        with self._joined(slot, is_reserved=is_reserved) as ticket:
            yield ticket

    @contextmanager
    def _joined(
        self, slot: Slot, *, is_load_only: bool = False, may_evict: bool = True, is_reserved: bool = False
    ) -> Iterator[Ticket]:
        if self._is_closing:
            raise ServerStopping("The server is stopping.")
        ticket = slot.join(TicketFacts(self._next_number, self._timers.now(), is_load_only, may_evict, is_reserved))
        self._next_number += 1
        try:
            self._settle()
            yield ticket
        finally:
            ticket.close()

    @asynccontextmanager
    async def lease(self, name: str, kind: type[EngineT]) -> AsyncIterator[EngineT]:
        """The right to use a model, which stays loaded meanwhile: a ticket, waited for.

        Raises:
            ServerBusy: the queue is full, or the wait too long.
            ModelUnavailable: it cannot be loaded.
            ServerStopping: the pool is closing.
        """
        with self.ticket(name) as ticket:
            await ticket.granted()
            yield ticket.engine(kind)

    # --- steering --------------------------------------------------------------------------------------------------

    async def preload(self, names: Iterable[str]) -> None:
        """Load these side by side and wait for all; nobody has to go for them. Failures are logged, never raised."""

        async def load(name: str) -> None:
            try:
                await self.bring_in(name, may_evict=False)
            except PeriscopeError as error:
                logger.warning("model %s is not loaded at start: %s", name, error.message)

        self.preloading = frozenset(names)
        try:
            await asyncio.gather(*(load(name) for name in self._slots if name in self.preloading))
        finally:
            self.preloading = frozenset()

    async def bring_in(self, name: str, *, may_evict: bool = True) -> None:
        """Load it, whether or not anybody wants to use it, and wait until it is there.

        Raises:
            ModelUnavailable: it cannot be loaded, or there is no room.
            ServerStopping: the pool is closing.
        """
        with self._joined(self._slots[name], is_load_only=True, may_evict=may_evict) as ticket:
            await ticket.granted()

    def start_bringing_in(self, name: str, *, may_evict: bool = True) -> None:
        """As `bring_in`, without waiting; a later failure is in the log and in its view.

        Raises:
            ModelUnavailable: it cannot be loaded, as far as is known at once.
            ServerStopping: the pool is closing.
        """
        with ExitStack() as stack:
            ticket = stack.enter_context(self._joined(self._slots[name], is_load_only=True, may_evict=may_evict))
            if ticket.error is not None:
                raise ticket.error
            task = asyncio.create_task(_held(ticket, stack.pop_all()), name=f"bring in {name}")
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def start_unloading(self, name: str) -> None:
        """Unload it once those who use it, and those who waited before now, are done; idempotent.

        Loads that were asked for by command, at start or after a death are called off; one that failed stays away until
        somebody asks for it.

        Raises:
            ModelPinned: it is to stay.
        """
        slot = self._slots[name]
        if slot.is_pinned:
            raise ModelPinned(f"Model {name} is pinned. Unpin it first.", param="model")
        if slot.state is ModelState.FAILED:
            slot.give_up()
        slot.unload_number = self._next_number
        self._settle()

    async def gone(self, name: str) -> None:
        """Wait until it is not in memory, and nobody who came before it was told to go has it loaded once more."""
        slot = self._slots[name]
        while True:
            settled = self._settled
            if slot.unload_number is None and slot.state in {ModelState.UNLOADED, ModelState.FAILED}:
                return
            await settled.wait()

    def pin(self, name: str, *, is_pinned: bool) -> None:
        """A pinned model is never unloaded, to make room or for idleness."""
        slot = self._slots[name]
        slot.is_pinned = is_pinned
        if is_pinned:
            slot.unload_number = None
        self._settle()

    async def close(self, *, drain_s: float = 0.0) -> None:
        """Idempotent: take no new leases, let the ones out finish for up to `drain_s`, free everything."""
        self._is_closing = True
        if self._timer is not None:
            self._timer.cancel()
        for slot in self._slots.values():
            slot.refuse_all(ServerStopping("The server is stopping."))
        await asyncio.gather(*(slot.close(drain_s=drain_s) for slot in self._slots.values()))
        for task in self._background:
            task.cancel()
        self._bus.close()

    # --- planning --------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Do whatever the plan says until it says nothing. Called after every change; while it runs, it sees them."""
        if self._is_settling:
            return
        if not self._is_closing:
            self._is_settling = True
            try:
                self._ask_again_at(self._carry_out_plans())
            finally:
                self._is_settling = False
            self._memory.promised_bytes = self._outstanding_bytes()
            for slot in self._slots.values():
                tell_waiting(slot)
                slot.publish_changes()
        for slot in self._slots.values():
            slot.end_unload_command()
        self._settled.set()
        self._settled = asyncio.Event()

    def _carry_out_plans(self) -> float:
        """One plan after the other until there is nothing left to do; returns when to ask again."""
        made = plan(self._facts())
        while made.effects:
            for effect in made.effects:
                self._carry_out(effect)
            made = plan(self._facts())
        return made.wake_at

    def _facts(self) -> PoolFacts:
        models = tuple(slot.facts() for slot in self._slots.values())
        return PoolFacts(models, self.limits.budget_bytes, self.limits.wait_timeout_s, self._timers.now())

    def _ask_again_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if math.isinf(when) else self._timers.call_at(when, self._settle)

    def _carry_out(self, effect: Effect) -> None:
        slot = self._slots[effect.model]
        match effect:
            case Grant(_, number):
                slot.grant(number)
            case Refuse(_, number, reason):
                error = refusal(slot, reason, self.limits, self._timers.now())
                if reason is Refusal.TOO_LARGE:
                    slot.cannot_fit(error)
                slot.refuse(number, error)
            case Measure():
                slot.measure()
            case Load():
                self._release_memory_for(slot)
                slot.load()
            case GiveUpLoad():
                slot.give_up_load()
            case Drain():
                slot.drain()
            case Keep():
                slot.keep()
            case Unload():
                slot.unload()

    def _release_memory_for(self, wanted: Slot) -> None:
        """What models keep for speed alone makes room for a load that would not fit beside it."""
        need = wanted.facts().need_bytes or 0
        if self._memory.active_bytes() + self._outstanding_bytes() + need <= self.limits.budget_bytes:
            return
        for slot in self._slots.values():
            if slot.engine is not None:
                slot.engine.release_memory()

    def _outstanding_bytes(self) -> int:
        return sum(slot.outstanding_bytes for slot in self._slots.values())

    def _restart(self, slot: Slot) -> None:
        """A model whose worker died comes back by itself, after its back-off, if there is room."""

        def start() -> None:
            slot.restart = None
            if self._is_closing:
                return
            try:
                self.start_bringing_in(slot.name, may_evict=False)
            except PeriscopeError as error:
                logger.warning("model %s is not loaded again: %s", slot.name, error.message)

        slot.restart = self._timers.call_at(slot.retry_at, start)


async def _held(ticket: Ticket, stack: ExitStack) -> None:
    """Until it is granted or refused."""
    with stack:
        try:
            await ticket.granted()
        except PeriscopeError as error:
            logger.warning("a model was asked for and is not loaded: %s", error.message)
