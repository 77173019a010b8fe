"""Fakes around a pool: engines without models, loads that wait for permission, a clock that tests advance."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from periscope.core import ConfigChanges, EngineMemory, Footprint, ModelKind
from periscope.errors import PeriscopeError
from periscope.events import Event, EventBus, ModelStateChanged
from periscope.pool.contracts import LoadProgress, ModelSpec, PoolLimits
from periscope.pool.pool import ModelPool

#: A test that has not ended by then hangs.
PATIENCE_S = 20


class HandTimers:
    """Timers over a clock that only tests advance."""

    def __init__(self) -> None:
        self._now = 0.0
        self._set: list[HandTimer] = []

    def now(self) -> float:
        return self._now

    def call_at(self, when: float, call: Callable[[], None]) -> HandTimer:
        timer = HandTimer(when, call)
        self._set.append(timer)
        return timer

    @property
    def num_pending(self) -> int:
        """The number of calls that are still due."""
        return sum(not timer.is_cancelled for timer in self._set)

    def advance(self, seconds: float) -> None:
        """Advance the clock and run every call that falls due, in order, each at its time."""
        end = self._now + seconds
        while due := [timer for timer in self._set if not timer.is_cancelled and timer.when <= end]:
            timer = min(due, key=lambda each: each.when)
            self._set.remove(timer)
            self._now = max(self._now, timer.when)
            timer.call()
        self._now = end


@dataclass(eq=False)
class HandTimer:
    when: float
    call: Callable[[], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


@dataclass
class FakeMemory:
    """The memory of this process, as the test sets it."""

    active: int = 0
    promised_bytes: int = 0

    def active_bytes(self) -> int:
        return self.active


class FakeEngine:
    """An engine that is alive until it is closed or killed. Closing waits for the model's `may_unload`."""

    def __init__(self, model: FakeModel) -> None:
        self.model = model
        self.num_releases = 0
        self.working_bytes = 0
        self._ended = asyncio.Event()

    @property
    def is_alive(self) -> bool:
        return not self._ended.is_set()

    @property
    def memory(self) -> EngineMemory:
        return EngineMemory(self.model.weights_bytes, self.working_bytes)

    async def ended(self) -> None:
        await self._ended.wait()

    def release_memory(self) -> None:
        self.num_releases += 1

    async def close(self) -> None:
        await self.model.may_unload.wait()
        self._ended.set()

    def kill(self) -> None:
        self._ended.set()


@dataclass(eq=False)
class FakeModel:
    """A model whose measuring, loading and unloading the test can block or let fail."""

    name: str
    weights_bytes: int = 100
    reserve_bytes: int = 0
    max_running: int = 2
    is_pinned: bool = False
    ttl_s: float | None = None
    is_isolated: bool = False
    kind: ModelKind = ModelKind.TEXT
    aliases: tuple[str, ...] = ()
    measure_error: PeriscopeError | None = None
    load_error: Exception | None = None
    engines: list[FakeEngine] = field(default_factory=list)
    num_measures: int = 0
    num_loads: int = 0

    def __post_init__(self) -> None:
        self.may_measure, self.may_load, self.may_unload = asyncio.Event(), asyncio.Event(), asyncio.Event()
        for leave in (self.may_measure, self.may_load, self.may_unload):
            leave.set()

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec(
            self.name,
            self._measure,
            self._load,
            kind=self.kind,
            aliases=self.aliases,
            max_running=self.max_running,
            is_pinned=self.is_pinned,
            ttl_s=self.ttl_s,
            is_isolated=self.is_isolated,
        )

    async def _measure(self) -> Footprint:
        self.num_measures += 1
        await self.may_measure.wait()
        if self.measure_error:
            raise self.measure_error
        return Footprint(self.weights_bytes, self.reserve_bytes)

    async def _load(self, progress: LoadProgress) -> FakeEngine:
        self.num_loads += 1
        progress(self.weights_bytes // 2, self.weights_bytes)
        await self.may_load.wait()
        if self.load_error:
            raise self.load_error
        self.engines.append(FakeEngine(self))
        return self.engines[-1]


@dataclass(eq=False)
class World:
    """A pool over fake models, and all events on its bus."""

    models: dict[str, FakeModel]
    pool: ModelPool
    timers: HandTimers
    bus: EventBus
    memory: FakeMemory
    events: list[Event] = field(default_factory=list)

    def resident_bytes(self) -> int:
        return sum(view.held_bytes for view in self.pool.statuses())


def with_world(
    models: Iterable[FakeModel],
    use: Callable[[World], Awaitable[None]],
    *,
    budget_bytes: int = 1_000_000,
    max_waiting: int = 10,
    wait_timeout_s: float = 30.0,
) -> None:
    """Run a test on an event loop. The pool is closed at the end, even if steps are blocked."""

    async def run() -> None:
        by_name = {model.name: model for model in models}
        bus, timers, memory = RecordingBus(), HandTimers(), FakeMemory()
        limits = PoolLimits(budget_bytes, max_waiting, wait_timeout_s)
        specs = [model.spec for model in by_name.values()]
        pool = ModelPool(specs, bus, limits, memory=memory, timers=timers)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await use(World(by_name, pool, timers, bus, memory, bus.said))
        finally:
            for model in by_name.values():
                for leave in (model.may_measure, model.may_load, model.may_unload):
                    leave.set()
            await pool.close()

    asyncio.run(run())


class RecordingBus(EventBus):
    """An event bus that records what is published."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[Event] = []

    def publish(self, event: Event) -> None:
        self.said.append(event)
        super().publish(event)


async def turns(count: int = 20) -> None:
    """Let all tasks of the loop run as far as they can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Run turns of the loop until the condition holds. A test that waits for ever fails here."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


def held(world: World, name: str) -> asyncio.Task[None]:
    """A task that holds a lease of the model until it is cancelled."""

    async def use() -> None:
        async with world.pool.lease(name, FakeEngine):
            await asyncio.Event().wait()

    return asyncio.create_task(use())


async def cancelled(*tasks: asyncio.Task[None]) -> None:
    """Cancel these tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def states_of(world: World, name: str) -> list[str]:
    """The states that a model has gone through."""
    return [event.new for event in world.events if isinstance(event, ModelStateChanged) and event.model == name]


async def reload_nothing() -> ConfigChanges:
    """A configuration that is as it was."""
    return ConfigChanges()
