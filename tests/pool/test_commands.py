"""Commands: unload, pin and close, whatever the model is doing when they come."""

from __future__ import annotations

import asyncio

import pytest

from periscope.core import ModelState
from periscope.errors import ModelUnavailable, ServerStopping
from periscope.pool.back_off import FIRST_BACK_OFF_S
from tests.pool.fakes import FakeEngine, FakeModel, World, cancelled, held, turns, until, with_world


def test_unloading_by_command_waits_for_those_who_were_there() -> None:
    """Running requests finish, later ones wait and then load it again."""
    model = FakeModel("m")

    async def use(world: World) -> None:
        running = held(world, "m")
        await until(lambda: world.pool.status("m").num_running == 1)
        world.pool.start_unload("m")
        later = held(world, "m")
        await turns()
        assert (world.pool.status("m").state, world.pool.status("m").num_waiting) == (ModelState.DRAINING, 1)
        await cancelled(running)
        await until(lambda: world.pool.status("m").num_running == 1)
        assert model.num_loads == 2
        await cancelled(later)
        world.pool.start_unload("m")
        await world.pool.unloaded("m")
        assert world.pool.status("m").held_bytes == 0

    with_world([model], use)


@pytest.mark.parametrize("where", ["measuring", "waiting for room", "loading"])
def test_unloading_calls_a_load_off_wherever_it_is(where: str) -> None:
    """A command to unload is not lost on a model that is not there yet: its load ends, and it stays away."""
    model, big = FakeModel("m"), FakeModel("big", weights_bytes=150)

    async def use(world: World) -> None:
        running = held(world, "big") if where == "waiting for room" else None
        await until(lambda: running is None or world.pool.status("big").num_running == 1)
        model.may_measure.clear() if where == "measuring" else model.may_load.clear()
        world.pool.start_load("m")
        asked = asyncio.create_task(world.pool.load("m"))
        await turns()
        world.pool.start_unload("m")
        await world.pool.unloaded("m")
        with pytest.raises(ModelUnavailable, match="unloaded by a later command"):
            await asked
        model.may_measure.set()
        model.may_load.set()
        if running:
            await cancelled(running)
        await turns()
        assert (world.pool.status("m").state, len(model.engines)) == (ModelState.UNLOADED, 0)
        async with world.pool.lease("m", FakeEngine):
            pass
        assert world.pool.status("m").state is ModelState.READY

    with_world([model, big], use, budget_bytes=200)


@pytest.mark.parametrize("held_back", ["may_measure", "may_load"])
def test_unloading_before_it_is_loaded_still_serves_who_waited(held_back: str) -> None:
    """The request gets its model, which goes after it; who waits for the unloading waits for that."""
    model = FakeModel("m")

    async def use(world: World) -> None:
        getattr(model, held_back).clear()
        waiting = held(world, "m")
        await turns()
        world.pool.start_unload("m")
        gone = asyncio.create_task(world.pool.unloaded("m"))
        await turns()
        assert not gone.done()
        getattr(model, held_back).set()
        await until(lambda: world.pool.status("m").num_running == 1)
        assert not gone.done()
        await cancelled(waiting)
        await gone
        assert (world.pool.status("m").state, model.num_loads) == (ModelState.UNLOADED, 1)

    with_world([model], use)


def test_a_command_whose_last_request_left_is_over() -> None:
    """It does not throw out the model when somebody asks for it later."""
    model = FakeModel("m")

    async def use(world: World) -> None:
        model.may_measure.clear()
        waiting = held(world, "m")
        await turns()
        world.pool.start_unload("m")
        await cancelled(waiting)
        await world.pool.unloaded("m")
        model.may_measure.set()
        await world.pool.load("m")
        await turns()
        assert (world.pool.status("m").state, model.num_loads) == (ModelState.READY, 1)

    with_world([model], use)


def test_unloading_twice_takes_effect_twice() -> None:
    """A command that comes while the model is being freed holds for who came after the first one."""
    model = FakeModel("m")

    async def use(world: World) -> None:
        await world.pool.load("m")
        model.may_unload.clear()
        world.pool.start_unload("m")
        later = held(world, "m")
        await turns()
        world.pool.start_unload("m")
        model.may_unload.set()
        await until(lambda: world.pool.status("m").num_running == 1)
        await cancelled(later)
        await world.pool.unloaded("m")
        assert model.num_loads == 2

    with_world([model], use)


def test_a_dead_model_that_was_unloaded_stays_away() -> None:
    """Neither its first return, at once, nor a later one, after a back-off, undoes the command."""
    model = FakeModel("m")

    async def use(world: World) -> None:
        for back_off_s in (0.0, FIRST_BACK_OFF_S):
            await world.pool.load("m")
            num_loads = model.num_loads
            model.engines[-1].kill()
            await until(lambda: world.pool.status("m").state is ModelState.FAILED)
            assert world.pool.status("m").retry_in_s == back_off_s
            world.pool.start_unload("m")
            world.timers.advance(1000.0)
            await turns()
            assert (world.pool.status("m").state, model.num_loads) == (ModelState.UNLOADED, num_loads)

    with_world([model], use)


@pytest.mark.parametrize("is_held", [True, False], ids=["serving its last", "being measured again"])
def test_a_model_that_dies_on_its_way_out_stays_out(is_held: bool) -> None:
    """A worker that ends while its model is told to go, or a return that has begun by then, brings nothing back."""
    model = FakeModel("m")

    async def use(world: World) -> None:
        running = held(world, "m")
        await until(lambda: world.pool.status("m").num_running == 1)
        if is_held:
            world.pool.start_unload("m")
        model.may_measure.clear()
        model.engines[0].kill()
        await until(lambda: world.pool.status("m").state is ModelState.FAILED)
        world.timers.advance(0.0)
        await turns()
        if not is_held:
            world.pool.start_unload("m")
        model.may_measure.set()
        await cancelled(running)
        world.timers.advance(1000.0)
        await turns()
        assert not world.pool.status("m").state.is_resident
        assert model.num_loads == 1

    with_world([model], use)


def test_a_pin_while_a_model_is_told_to_go_keeps_it() -> None:
    """The later command holds, also for a model that is not there yet."""
    model = FakeModel("m")

    async def use(world: World) -> None:
        model.may_measure.clear()
        running = held(world, "m")
        await turns()
        world.pool.start_unload("m")
        world.pool.pin("m", is_pinned=True)
        model.may_measure.set()
        await until(lambda: world.pool.status("m").num_running == 1)
        await cancelled(running)
        await turns()
        assert world.pool.status("m").state is ModelState.READY

    with_world([model], use)


def test_close_waits_for_leases_and_refuses_those_who_wait() -> None:
    """Running requests finish, waiting and new ones are told that the server is stopping."""

    async def use(world: World) -> None:
        async with world.pool.lease("m", FakeEngine) as engine:
            with world.pool.ticket("m") as waiting:
                closing = asyncio.create_task(world.pool.close(drain_s=60))
                with pytest.raises(ServerStopping):
                    await waiting.granted()
            assert engine.is_alive
            with pytest.raises(ServerStopping), world.pool.ticket("m"):
                pass
        await closing
        assert not engine.is_alive

    with_world([FakeModel("m", max_running=1)], use)


def test_closing_in_the_moment_a_load_begins_ends_it() -> None:
    """A load that has not made its first step is given up as tidily as any other."""

    async def use(world: World) -> None:
        world.pool.start_load("m")
        await world.pool.close()
        assert world.pool.status("m").state is ModelState.UNLOADED

    with_world([FakeModel("m")], use)


@pytest.mark.parametrize("held_back", ["may_measure", "may_load"])
def test_closing_during_a_load_gives_the_load_up(held_back: str) -> None:
    """Stopping does not wait for a model nobody will use."""
    model = FakeModel("m")

    async def use(world: World) -> None:
        getattr(model, held_back).clear()
        loading = asyncio.create_task(world.pool.preload(["m"]))
        await until(lambda: model.num_measures == 1 and (held_back == "may_measure" or model.num_loads == 1))
        await world.pool.close()
        await loading
        assert world.pool.status("m").state is ModelState.UNLOADED

    with_world([model], use)


def test_closing_leaves_no_timer_behind() -> None:
    """Neither the return of a model whose worker died nor the end of another's idleness is due after it."""

    async def use(world: World) -> None:
        for name in "ab":
            await world.pool.load(name)
        world.models["a"].engines[0].kill()
        await until(lambda: world.pool.status("a").state is ModelState.FAILED)
        assert world.timers.num_pending == 2
        await world.pool.close()
        assert world.timers.num_pending == 0

    with_world([FakeModel("a"), FakeModel("b", ttl_s=60.0)], use)
