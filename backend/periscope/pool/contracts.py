"""What the pool asks of the rooms around it: how to measure and load a model, what an engine can do, memory, time.

Protocols and frozen data only; nothing here has state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from periscope.core import EngineMemory, Footprint, ModelKind
from periscope.events import Event


class PooledEngine(Protocol):
    """What the pool asks of an engine, whatever the engine computes."""

    @property
    def memory(self) -> EngineMemory:
        """How much memory the model takes now."""
        ...

    async def ended(self) -> None:
        """Wait until the engine has ended, for whatever reason."""
        ...

    def release_memory(self) -> None:
        """Free, soon, memory that is kept only for speed. Does not block."""
        ...

    async def close(self) -> None:
        """Free the model and wait until its memory is free. Idempotent."""
        ...


class LiveMemory(Protocol):
    """The memory that this process really takes, as opposed to what the pool has reserved.

    Attributes:
        promised_bytes: set by the pool: bytes that are reserved for models and not yet among the active ones.
    """

    promised_bytes: int

    def active_bytes(self) -> int:
        """Bytes that this process has taken now."""
        ...


class TimerHandle(Protocol):
    """A call that is due later and can still be cancelled."""

    def cancel(self) -> None:
        """Cancel the call. Idempotent."""
        ...


class Timers(Protocol):
    """A monotonic clock in seconds, and calls at its times. Event loop only; tests advance it by hand."""

    def now(self) -> float:
        """Seconds since an arbitrary start."""
        ...

    def call_at(self, when: float, call: Callable[[], None]) -> TimerHandle:
        """Call once when the clock has reached `when`."""
        ...


#: Called from any thread with (bytes loaded, bytes in all).
LoadProgress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One configured model: how the pool loads it, and its limits.

    Attributes:
        measure: reads the headers of its files and moves nothing; raises PeriscopeError if they cannot be used.
        load: may take minutes and may be cancelled.
        kind, aliases, kv_bits: only for the model's status; the pool treats all models alike.
        max_running: requests that may use it at once.
        is_pinned: it is never unloaded to make room or for idleness.
        ttl_s: it is unloaded after so long without work; None = never.
        is_isolated: it lives in a process of its own, so a restart of this process would not help it.
    """

    name: str
    measure: Callable[[], Awaitable[Footprint]]
    load: Callable[[LoadProgress], Awaitable[PooledEngine]]
    kind: ModelKind = ModelKind.TEXT
    aliases: tuple[str, ...] = ()
    max_running: int = 1
    is_pinned: bool = False
    ttl_s: float | None = None
    is_isolated: bool = False
    kv_bits: int | None = None


@dataclass(frozen=True, slots=True)
class PoolHooks:
    """What the parts of a slot call in their pool; one for all slots.

    Attributes:
        publish: tells the watchers of the server.
        changed: called after every change of what a plan depends on; makes and carries out a new plan.
        queue_changed: called instead, with the model's name, after a change of its queue alone.
        reload: loads a model whose worker died again, by its name, if there is room.
        next_number: the number that the next ticket of the pool will get.
    """

    timers: Timers
    publish: Callable[[Event], None]
    changed: Callable[[], None]
    queue_changed: Callable[[str], None]
    reload: Callable[[str], None]
    next_number: Callable[[], int]


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How much memory the pool may give to models, and how long requests may wait.

    Attributes:
        budget_bytes: for all models together.
        max_waiting: requests that may wait for one model, beyond those that it runs at once.
        wait_timeout_s: longest wait for a place; the load of the model itself does not count.
    """

    budget_bytes: int
    max_waiting: int = 10
    wait_timeout_s: float = 30.0
