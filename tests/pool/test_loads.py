"""Loads and memory: which models are loaded and unloaded, and what the ledger counts."""

from __future__ import annotations

import asyncio

import pytest

from periscope.core import ModelState, WaitStatus
from periscope.errors import ModelPinned, ModelUnavailable
from tests.pool.fakes import FakeEngine, FakeModel, World, cancelled, held, states_of, until, with_world


def test_requests_that_come_during_a_load_share_it() -> None:
    """Five requests for an unloaded model cause one load, and all get the same engine."""
    model = FakeModel("m", max_running=5)

    async def use(world: World) -> None:
        async def request() -> FakeEngine:
            async with world.pool.lease("m", FakeEngine) as engine:
                return engine

        model.may_load.clear()
        tasks = [asyncio.create_task(request()) for _ in range(5)]
        await until(lambda: world.pool.status("m").state is ModelState.LOADING)
        model.may_load.set()
        assert len({id(engine) for engine in await asyncio.gather(*tasks)}) == 1
        assert (model.num_measures, model.num_loads, world.pool.status("m").num_running) == (1, 1, 0)

    with_world([model], use)


def test_every_transition_is_one_event_in_order() -> None:
    """Watchers see unloaded, loading, ready, draining and unloaded, once each and in this order."""

    async def use(world: World) -> None:
        await world.pool.load("m")
        await world.pool.close()
        assert states_of(world, "m") == ["loading", "ready", "draining", "unloaded"]

    with_world([FakeModel("m")], use)


def test_the_least_recently_used_is_evicted_and_the_ledger_is_right() -> None:
    """Of two idle models the least recently used is unloaded; the ledger counts reserved, loaded and freed bytes."""
    models = [FakeModel(name, weights_bytes=100, reserve_bytes=20) for name in "abc"]

    async def use(world: World) -> None:
        for name in "ab":
            async with world.pool.lease(name, FakeEngine):
                world.timers.advance(1.0)
        async with world.pool.lease("a", FakeEngine):
            world.timers.advance(1.0)
        models[2].may_load.clear()
        with world.pool.ticket("c") as ticket:
            await until(lambda: world.pool.status("c").state is ModelState.LOADING)
            assert world.resident_bytes() == 240
            assert [world.pool.status(name).state for name in "ab"] == ["ready", "unloaded"]
            models[2].may_load.set()
            await ticket.granted()
        assert world.resident_bytes() == 240

    with_world(models, use, budget_bytes=250)


def test_a_busy_model_finishes_its_requests_before_it_is_evicted() -> None:
    """The running request keeps its engine; new requests for that model wait for its next load."""
    models = [FakeModel("a"), FakeModel("b")]

    async def use(world: World) -> None:
        running = held(world, "a")
        await until(lambda: world.pool.status("a").num_running == 1)
        with world.pool.ticket("b") as first:
            await until(lambda: world.pool.status("a").state is ModelState.DRAINING)
            with world.pool.ticket("a") as late:
                assert models[0].engines[0].is_alive
                assert {t.told and t.told.status for t in (first, late)} == {WaitStatus.WAITING_FOR_MODEL}
                await cancelled(running)
                await first.granted()
                assert not models[0].engines[0].is_alive
                first.close()
                await late.granted()
        assert (models[0].num_loads, models[1].num_loads) == (2, 1)

    with_world(models, use, budget_bytes=150)


def test_a_draining_model_is_kept_when_the_other_is_not_wanted() -> None:
    """When the request that it drains for is cancelled, the model is ready again."""

    async def use(world: World) -> None:
        running = held(world, "a")
        await until(lambda: world.pool.status("a").num_running == 1)
        with world.pool.ticket("b"):
            await until(lambda: world.pool.status("a").state is ModelState.DRAINING)
        assert world.pool.status("a").state is ModelState.READY
        async with world.pool.lease("a", FakeEngine):
            pass
        await cancelled(running)
        assert world.models["a"].num_loads == 1

    with_world([FakeModel("a"), FakeModel("b")], use, budget_bytes=150)


def test_loading_at_start_evicts_no_model() -> None:
    """Of two models that do not fit together, the first stays; the second is loaded when a request asks for it."""

    async def use(world: World) -> None:
        await world.pool.preload(["a", "b"])
        assert [view.state for view in world.pool.statuses()] == ["ready", "unloaded"]
        async with world.pool.lease("b", FakeEngine):
            assert world.pool.status("a").state is ModelState.UNLOADED

    with_world([FakeModel("a"), FakeModel("b")], use, budget_bytes=150)


def test_memory_kept_for_speed_is_freed_only_when_a_load_needs_it() -> None:
    """Caches survive a load that fits beside them, and are freed for one that does not."""

    async def use(world: World) -> None:
        await world.pool.load("a")
        engine, world.memory.active = world.models["a"].engines[0], 500
        await world.pool.load("b")
        assert engine.num_releases == 0
        world.memory.active = 950
        await world.pool.load("c")
        assert engine.num_releases == 1

    with_world([FakeModel(name) for name in "abc"], use, budget_bytes=1000)


def test_bytes_promised_to_a_load_are_reported_until_they_are_taken() -> None:
    """Other models know of the bytes that a load will still take, and of those in a process of its own."""
    models = [FakeModel("a", weights_bytes=100, reserve_bytes=20), FakeModel("isolated", is_isolated=True)]

    async def use(world: World) -> None:
        models[0].may_load.clear()
        world.pool.start_load("a")
        await until(lambda: world.pool.status("a").load_done_bytes == 50)
        assert world.memory.promised_bytes == 120 - 50
        models[0].may_load.set()
        await world.pool.load("a")
        assert world.memory.promised_bytes == 0
        await world.pool.load("isolated")
        assert world.memory.promised_bytes == 100

    with_world(models, use)


def test_a_model_whose_requests_exceed_its_reserve_holds_more() -> None:
    """A load waits until long conversations have ended instead of taking memory that is not there; then both fit."""
    models = [FakeModel("a"), FakeModel("b")]

    async def use(world: World) -> None:
        running = held(world, "a")
        await until(lambda: world.pool.status("a").num_running == 1)
        models[0].engines[0].working_bytes = 80
        assert world.pool.status("a").held_bytes == 180
        with world.pool.ticket("b") as ticket:
            await until(lambda: world.pool.status("a").state is ModelState.DRAINING)
            models[0].engines[0].working_bytes = 0
            await cancelled(running)
            await ticket.granted()
        assert [view.state for view in world.pool.statuses()] == ["ready", "ready"]

    with_world(models, use, budget_bytes=250)


def test_an_idle_model_is_unloaded_with_a_visible_countdown() -> None:
    """The status counts down from the last use. A use restarts it, and running requests stop it."""

    async def use(world: World) -> None:
        await world.pool.load("m")
        world.timers.advance(40.0)
        assert (world.pool.status("m").idle_s, world.pool.status("m").unload_in_s) == (40.0, 20.0)
        running = held(world, "m")
        await until(lambda: world.pool.status("m").num_running == 1)
        world.timers.advance(1000.0)
        assert (world.pool.status("m").state, world.pool.status("m").unload_in_s) == (ModelState.READY, None)
        await cancelled(running)
        world.timers.advance(59.0)
        assert world.pool.status("m").state is ModelState.READY
        world.timers.advance(1.0)
        await until(lambda: world.pool.status("m").state is ModelState.UNLOADED)

    with_world([FakeModel("m", ttl_s=60.0)], use)


def test_a_pinned_model_stays_until_it_is_unpinned() -> None:
    """Neither a command, nor another model's load, nor idleness unloads it; once unpinned, each of them does."""

    async def use(world: World) -> None:
        await world.pool.load("a")
        with pytest.raises(ModelPinned, match="Unpin"):
            world.pool.start_unload("a")
        world.timers.advance(1000.0)
        with pytest.raises(ModelUnavailable, match="pinned"):
            await world.pool.load("b")
        assert world.pool.status("a").state is ModelState.READY
        world.pool.pin("a", is_pinned=False)
        await until(lambda: world.pool.status("a").state is ModelState.UNLOADED)

    with_world([FakeModel("a", is_pinned=True, ttl_s=60.0), FakeModel("b")], use, budget_bytes=150)
