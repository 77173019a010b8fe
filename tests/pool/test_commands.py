"""Commands to unload, pin and close, in every state of a model."""

from __future__ import annotations

import asyncio
import logging

import pytest

from periscope.core import ModelState
from periscope.errors import ModelUnavailable, ServerStopping
from periscope.pool.back_off import FIRST_BACK_OFF_S
from tests.pool.fakes import FakeEngine, FakeModel, World, cancelled, held, turns, until, with_world


def test_unloading_by_command_waits_for_earlier_requests() -> None:
    """Running requests finish; later ones wait, and then load the model again."""
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
def test_unloading_cancels_a_load_in_any_step(where: str) -> None:
    """A command to unload cancels a load that is queued, measured or running, and the model stays unloaded."""
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
def test_unloading_before_it_is_loaded_serves_waiting_requests(held_back: str) -> None:
    """The waiting request gets its model, which is unloaded after it; `unloaded` waits until then."""
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


def test_a_command_whose_last_request_was_cancelled_is_over() -> None:
    """The command does not unload a model that is requested later."""
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
    """A command that comes while the model is being freed applies to requests after the first command."""
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


def test_a_model_unloaded_after_its_worker_died_stays_unloaded() -> None:
    """Neither the immediate reload after a death nor a later one after a back-off undoes the command."""
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
def test_a_model_whose_worker_dies_while_draining_stays_unloaded(is_held: bool) -> None:
    """A worker that dies while its model drains, or a reload that has just begun, does not bring the model back."""
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


def test_a_pin_while_a_model_drains_keeps_it() -> None:
    """The later command counts, even for a model that is not loaded yet."""
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


def test_close_waits_for_leases_and_refuses_waiting_requests() -> None:
    """Running requests finish; waiting and new ones are refused, because the server is stopping."""

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


@pytest.mark.parametrize(("drain_s", "told"), [(0.0, []), (0.01, ["not ended within 0.01 s: 1"])])
def test_only_a_request_that_outlasts_its_time_is_told_of(
    drain_s: float, told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever closes without waiting cuts requests off on purpose, and the log has no warning of it."""

    async def use(world: World) -> None:
        async with world.pool.lease("m", FakeEngine) as engine:
            await world.pool.close(drain_s=drain_s)
            assert not engine.is_alive
        warnings = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
        assert [text.partition("have ")[2] for text in warnings] == told

    with_world([FakeModel("m")], use)


def test_closing_in_the_moment_a_load_begins_ends_it() -> None:
    """A load that has not made its first step is cancelled and cleaned up like any other."""

    async def use(world: World) -> None:
        world.pool.start_load("m")
        await world.pool.close()
        assert world.pool.status("m").state is ModelState.UNLOADED

    with_world([FakeModel("m")], use)


@pytest.mark.parametrize("held_back", ["may_measure", "may_load"])
def test_closing_during_a_load_cancels_it(held_back: str) -> None:
    """Stopping does not wait for a model that nobody will use."""
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
    """After it, no timer for a reload or for an idle model is pending."""

    async def use(world: World) -> None:
        for name in "ab":
            await world.pool.load(name)
        world.models["a"].engines[0].kill()
        await until(lambda: world.pool.status("a").state is ModelState.FAILED)
        assert world.timers.num_pending == 2
        await world.pool.close()
        assert world.timers.num_pending == 0

    with_world([FakeModel("a"), FakeModel("b", ttl_s=60.0)], use)
