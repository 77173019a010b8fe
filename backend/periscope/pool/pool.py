"""ModelPool: all configured models and the right to use one. Event loop only.

Today every model that is wanted is loaded and stays. Eviction, request queues and switching will decide in here,
in front of `Slot.acquire`; nobody outside will notice but by waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from periscope.pool.slot import PooledEngine, Slot
from periscope.pool.state import ModelState

if TYPE_CHECKING:
    from periscope.errors import PeriscopeError
    from periscope.events import EventBus
    from periscope.pool.slot import ModelSpec

EngineT = TypeVar("EngineT", bound=PooledEngine)


@dataclass(frozen=True, slots=True)
class SlotView:
    """One model as it is at this moment."""

    name: str
    state: ModelState
    num_leases: int
    error: PeriscopeError | None


class ModelPool:
    """Owns the slots, one per configured model."""

    def __init__(self, specs: Iterable[ModelSpec], bus: EventBus) -> None:
        self._bus = bus
        self._slots = {spec.name: Slot(spec, bus.publish) for spec in specs}

    def __repr__(self) -> str:
        return f"<ModelPool {list(self._slots.values())}>"

    def view(self, name: str) -> SlotView:
        """Instant, no waiting, no device."""
        slot = self._slots[name]
        return SlotView(slot.name, slot.state, slot.num_leases, slot.error)

    def views(self) -> tuple[SlotView, ...]:
        """All models, in the order of models.yaml."""
        return tuple(self.view(name) for name in self._slots)

    def loaded(self, name: str, kind: type[EngineT]) -> EngineT | None:
        """The engine if it is loaded, to look at; use needs a lease."""
        engine = self._slots[name].engine
        return engine if isinstance(engine, kind) else None

    @asynccontextmanager
    async def lease(self, name: str, kind: type[EngineT]) -> AsyncIterator[EngineT]:
        """The right to use a model, which stays loaded meanwhile; loads it first if need be.

        A request holds one lease at a time: with two, two requests could wait for each other for ever.

        Raises:
            ModelUnavailable: it cannot be loaded.
            ServerStopping: the pool is closing.
        """
        slot = self._slots[name]
        engine = await slot.acquire()
        try:
            if not isinstance(engine, kind):
                raise TypeError(f"model {name} is a {type(engine).__name__}, not a {kind.__name__}")
            yield engine
        finally:
            slot.release()

    async def load(self, names: Iterable[str]) -> None:
        """Load these side by side and wait for all; failures are in their views, never raised."""
        await asyncio.gather(*(self._slots[name].load() for name in names))

    async def close(self, *, drain_s: float = 0.0) -> None:
        """Idempotent: take no new leases, let the ones out finish for up to `drain_s`, free everything."""
        await asyncio.gather(*(slot.close(drain_s=drain_s) for slot in self._slots.values()))
        self._bus.close()
