"""ModelPool and its slots, with engines made of events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from periscope.errors import ModelLoadError, ModelUnavailable, PeriscopeError, ServerStopping
from periscope.events import Event, EventBus, ModelGivenUp, ModelStateChanged
from periscope.pool.pool import ModelPool
from periscope.pool.slot import (
    FIRST_BACK_OFF_S,
    LASTING_S,
    MAX_BACK_OFF_S,
    MAX_DEATHS,
    LoadProgress,
    ModelSpec,
    Slot,
)
from periscope.pool.state import TRANSITIONS, ModelState, check_transition


class FakeEngine:
    """Alive until closed or killed."""

    def __init__(self) -> None:
        self._ended = asyncio.Event()

    @property
    def is_alive(self) -> bool:
        return not self._ended.is_set()

    async def ended(self) -> None:
        await self._ended.wait()

    async def close(self) -> None:
        self._ended.set()

    def kill(self) -> None:
        self._ended.set()


class FakeLoader:
    """Owns the outcome of loads: held until `gate` is set, then `error` or a new engine."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.error: PeriscopeError | None = None
        self.num_loads = 0
        self.engines: list[FakeEngine] = []

    async def __call__(self, progress: LoadProgress) -> FakeEngine:
        self.num_loads += 1
        progress(1, 2)
        await self.gate.wait()
        if self.error:
            raise self.error
        self.engines.append(FakeEngine())
        return self.engines[-1]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def with_pool(use: Callable[[ModelPool, FakeLoader, EventBus], Awaitable[None]]) -> None:
    async def run() -> None:
        loader, bus = FakeLoader(), EventBus()
        pool = ModelPool([ModelSpec("m", loader)], bus)
        try:
            await use(pool, loader, bus)
        finally:
            loader.gate.set()
            await pool.close()

    asyncio.run(run())


def test_requests_that_come_during_a_load_share_it() -> None:
    """Five requests for an unloaded model cause one load and all get the same engine."""

    async def use(pool: ModelPool, loader: FakeLoader, _bus: EventBus) -> None:
        async def request() -> FakeEngine:
            async with pool.lease("m", FakeEngine) as engine:
                return engine

        tasks = [asyncio.create_task(request()) for _ in range(5)]
        await asyncio.sleep(0)
        assert pool.view("m").state is ModelState.LOADING
        loader.gate.set()
        assert len({id(engine) for engine in await asyncio.gather(*tasks)}) == 1
        assert (loader.num_loads, pool.view("m").num_leases) == (1, 0)

    with_pool(use)


def test_every_transition_is_one_event_in_order() -> None:
    """Whoever watches sees unloaded -> loading -> ready -> draining -> unloaded, once each."""

    async def use(pool: ModelPool, loader: FakeLoader, bus: EventBus) -> None:
        with bus.subscribed() as events:
            loader.gate.set()
            await pool.load(["m"])
            await pool.close()
            seen = [event async for event in events]
        ways = [(e.old, e.new) for e in seen if isinstance(e, ModelStateChanged)]
        assert ways == [
            ("unloaded", "loading"),
            ("loading", "ready"),
            ("ready", "draining"),
            ("draining", "unloaded"),
        ]

    with_pool(use)


def test_a_failed_load_is_told_and_not_tried_again_at_once() -> None:
    """The waiting requests get the reason; the next one within the back-off gets it without a new load."""

    async def run() -> None:
        clock, loader = Clock(), FakeLoader()
        loader.error = ModelLoadError("no such weights.")
        loader.gate.set()
        slot = Slot(ModelSpec("m", loader), lambda _event: None, clock)
        for _ in range(2):
            with pytest.raises(ModelUnavailable, match="no such weights"):
                await slot.acquire()
        assert (slot.state, loader.num_loads) == (ModelState.FAILED, 1)
        clock.now, loader.error = FIRST_BACK_OFF_S, None
        await slot.acquire()
        assert (slot.state, loader.num_loads) == (ModelState.READY, 2)
        slot.release()
        await slot.close(drain_s=0)

    asyncio.run(run())


def test_a_dead_worker_makes_its_model_failed() -> None:
    """A model whose thread ended is not called ready."""

    async def use(pool: ModelPool, loader: FakeLoader, bus: EventBus) -> None:
        loader.gate.set()
        await pool.load(["m"])
        with bus.subscribed() as events:
            loader.engines[0].kill()
            event = await anext(events)
        assert isinstance(event, ModelStateChanged)
        assert (event.new, pool.view("m").state) == ("failed", ModelState.FAILED)
        assert pool.loaded("m", FakeEngine) is None

    with_pool(use)


@pytest.mark.parametrize(("lives_s", "is_given_up"), [(1.0, True), (LASTING_S, False)])
def test_a_model_whose_workers_die_again_and_again_is_given_up(lives_s: float, is_given_up: bool) -> None:
    """Three short lives in a row are told as a reason to end the process; a death a day is not."""

    async def run() -> None:
        loader, clock = FakeLoader(), Clock()
        events: list[Event] = []
        loader.gate.set()
        slot = Slot(ModelSpec("m", loader), events.append, clock)
        for num_deaths in range(1, MAX_DEATHS + 1):
            clock.now += MAX_BACK_OFF_S
            await slot.acquire()
            slot.release()
            clock.now += lives_s
            loader.engines[-1].kill()
            while slot.state is not ModelState.FAILED:
                await asyncio.sleep(0)
            assert (ModelGivenUp("m") in events) == (is_given_up and num_deaths == MAX_DEATHS)
        await slot.close(drain_s=0)

    asyncio.run(run())


def test_cancelling_a_request_that_waits_for_a_load_leaves_the_load_to_the_others() -> None:
    """One impatient client does not cost the others their model."""

    async def use(pool: ModelPool, loader: FakeLoader, _bus: EventBus) -> None:
        async def request() -> None:
            async with pool.lease("m", FakeEngine):
                pass

        impatient, patient = asyncio.create_task(request()), asyncio.create_task(request())
        await asyncio.sleep(0)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        loader.gate.set()
        await patient
        assert pool.view("m").num_leases == 0

    with_pool(use)


def test_close_waits_for_leases_and_refuses_new_ones() -> None:
    """Running requests finish, new ones are told that the server is stopping."""

    async def use(pool: ModelPool, loader: FakeLoader, _bus: EventBus) -> None:
        loader.gate.set()
        async with pool.lease("m", FakeEngine) as engine:
            closing = asyncio.create_task(pool.close(drain_s=60))
            while pool.view("m").state is ModelState.READY:
                await asyncio.sleep(0)
            assert engine.is_alive
            with pytest.raises(ServerStopping):
                async with pool.lease("m", FakeEngine):
                    pass
        await closing
        assert not engine.is_alive

    with_pool(use)


def test_closing_during_a_load_gives_the_load_up() -> None:
    """Stopping does not wait for a model nobody will use."""

    async def use(pool: ModelPool, loader: FakeLoader, _bus: EventBus) -> None:
        loading = asyncio.create_task(pool.load(["m"]))
        while not loader.num_loads:
            await asyncio.sleep(0)
        await pool.close()
        await asyncio.wait({loading})
        assert pool.view("m").state is ModelState.UNLOADED

    with_pool(use)


def test_a_lease_of_the_wrong_kind_is_a_bug_and_leaks_nothing() -> None:
    """Asking for a captioner as a text model raises and gives the lease back."""

    class OtherEngine(FakeEngine):
        pass

    async def use(pool: ModelPool, loader: FakeLoader, _bus: EventBus) -> None:
        loader.gate.set()
        with pytest.raises(TypeError):
            async with pool.lease("m", OtherEngine):
                pass
        assert pool.view("m").num_leases == 0

    with_pool(use)


@pytest.mark.parametrize("old", list(ModelState))
@pytest.mark.parametrize("new", list(ModelState))
def test_only_the_table_s_ways_can_be_gone(old: ModelState, new: ModelState) -> None:
    """A way that is not in the table raises; one that is does not."""
    if new in TRANSITIONS[old]:
        check_transition(old, new)
    else:
        with pytest.raises(RuntimeError):
            check_transition(old, new)
