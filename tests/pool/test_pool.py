"""ModelPool and its slots: queues, switches, failures, commands; with engines made of events and time by hand."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import ExitStack

import pytest

from periscope.core import ModelState, Waiting, WaitStatus
from periscope.errors import ModelLoadError, ModelPinned, ModelUnavailable, PeriscopeError, ServerBusy, ServerStopping
from periscope.events import ModelGivenUp, ModelStateChanged
from periscope.pool.back_off import FIRST_BACK_OFF_S, LASTING_S, MAX_DEATHS
from periscope.pool.state import TRANSITIONS, check_transition
from periscope.pool.ticket import TicketState
from tests.pool.fakes import FakeEngine, FakeModel, World, turns, until, with_world


def held(world: World, name: str) -> asyncio.Task[None]:
    """A request that uses the model until its task is cancelled."""

    async def use() -> None:
        async with world.pool.lease(name, FakeEngine):
            await asyncio.Event().wait()

    return asyncio.create_task(use())


async def cancelled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def ways(world: World, name: str) -> list[str]:
    """The states a model has gone through."""
    return [event.new for event in world.events if isinstance(event, ModelStateChanged) and event.model == name]


def test_requests_that_come_during_a_load_share_it() -> None:
    """Five requests for an unloaded model cause one load and all get the same engine."""
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
    """Whoever watches sees unloaded -> loading -> ready -> draining -> unloaded, once each."""

    async def use(world: World) -> None:
        await world.pool.load("m")
        await world.pool.close()
        assert ways(world, "m") == ["loading", "ready", "draining", "unloaded"]

    with_world([FakeModel("m")], use)


def test_requests_beyond_the_batch_wait_in_order_and_know_their_place() -> None:
    """Positions count from 1, move up when somebody leaves, and places go to the first in the queue."""

    async def use(world: World) -> None:
        running = [held(world, "m"), held(world, "m")]
        await until(lambda: world.pool.status("m").num_running == 2)
        with ExitStack() as stack:
            first, second, third = (stack.enter_context(world.pool.ticket("m")) for _ in range(3))
            assert [t.told and t.told.position for t in (first, second, third)] == [1, 2, 3]
            assert first.told is not None
            assert first.told.status is WaitStatus.QUEUED
            first.close()
            assert [t.told and t.told.position for t in (second, third)] == [1, 2]
            await cancelled(running[0])
            assert (second.state, third.state) == (TicketState.GRANTED, TicketState.WAITING)
            assert world.pool.status("m").num_waiting == 1
        await cancelled(running[1])
        assert world.pool.status("m").num_running == world.pool.status("m").num_waiting == 0

    with_world([FakeModel("m", max_running=2)], use)


def test_a_full_queue_refuses_at_once_and_a_place_that_is_left_is_free() -> None:
    """One more than batch and queue hold gets ServerBusy with a time to wait; after a cancellation there is room."""

    async def use(world: World) -> None:
        tasks = [held(world, "m") for _ in range(2 + 10)]
        await until(lambda: world.pool.status("m").num_waiting == 10)
        with pytest.raises(ServerBusy, match="max_waiting") as caught, world.pool.ticket("m"):
            pass
        assert caught.value.retry_after_s >= 1
        await cancelled(tasks.pop())
        with world.pool.ticket("m") as ticket:
            assert ticket.told is not None
            assert ticket.told.position == 10
        await cancelled(*tasks)

    with_world([FakeModel("m", max_running=2)], use, max_waiting=10)


def test_a_wait_past_its_timeout_is_refused() -> None:
    """After wait_timeout_s without a place the request gets ServerBusy; the one that has a place goes on."""

    async def use(world: World) -> None:
        running = held(world, "m")
        await until(lambda: world.pool.status("m").num_running == 1)
        with world.pool.ticket("m") as ticket:
            world.timers.advance(29.0)
            assert ticket.state is TicketState.WAITING
            world.timers.advance(1.0)
            with pytest.raises(ServerBusy, match="30 s"):
                await ticket.granted()
        assert world.pool.status("m").num_running == 1
        await cancelled(running)

    with_world([FakeModel("m", max_running=1)], use)


def test_a_long_load_is_not_a_long_wait() -> None:
    """A model that takes ten minutes to load is waited for, and the progress is told."""
    model = FakeModel("m")

    async def use(world: World) -> None:
        model.may_load.clear()
        with world.pool.ticket("m") as ticket:
            await until(lambda: ticket.told is not None and bool(ticket.told.progress))
            world.timers.advance(600.0)
            assert world.pool.wait_for("m") == Waiting(WaitStatus.LOADING, "m", None, 0.5, 600.0)
            assert ticket.state is TicketState.WAITING
            model.may_load.set()
            await ticket.granted()
            assert world.pool.wait_for("m") is None

    with_world([model], use)


def test_the_least_recently_used_makes_room_and_the_ledger_holds() -> None:
    """Of two idle models the one used longer ago goes; reserved, measured and freed bytes are all in the ledger."""
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


def test_a_busy_model_finishes_what_it_has_before_it_goes() -> None:
    """The running request keeps its engine; newcomers to that model wait for its next load; the switch then happens."""
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


def test_a_model_is_kept_when_the_one_it_makes_way_for_leaves() -> None:
    """Nobody's impatience costs a model its place in memory: a drain that is not wanted any more ends."""

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


@pytest.mark.parametrize("where", ["measure", "load"])
def test_a_failed_load_is_told_and_not_tried_again_at_once(where: str) -> None:
    """The waiting requests get the reason; the next one within the back-off gets it without a new load."""
    error = ModelLoadError("no such weights.")
    model = FakeModel(
        "m", measure_error=error if where == "measure" else None, load_error=error if where == "load" else None
    )

    async def use(world: World) -> None:
        for _ in range(2):
            with pytest.raises(ModelUnavailable, match="no such weights"):
                async with world.pool.lease("m", FakeEngine):
                    pass
        assert (world.pool.status("m").state, model.num_measures) == (ModelState.FAILED, 1)
        assert world.pool.status("m").held_bytes == 0
        world.timers.advance(FIRST_BACK_OFF_S)
        model.measure_error = model.load_error = None
        async with world.pool.lease("m", FakeEngine):
            assert world.pool.status("m").error is None

    with_world([model], use)


def test_files_that_cannot_be_used_move_nobody() -> None:
    """A model whose files are broken fails before anything was unloaded for it."""
    models = [FakeModel("good"), FakeModel("broken", measure_error=ModelLoadError("half a file."))]

    async def use(world: World) -> None:
        await world.pool.load("good")
        with pytest.raises(ModelUnavailable, match="half a file"):
            await world.pool.load("broken")
        assert world.pool.status("good").state is ModelState.READY

    with_world(models, use, budget_bytes=150)


def test_what_never_fits_is_said_with_both_numbers() -> None:
    """The error names what the model takes and what there is, and the model's view keeps it."""

    async def use(world: World) -> None:
        with pytest.raises(ModelUnavailable, match=r"3\.0 GB.*2\.0 GB"):
            await world.pool.load("m")
        assert world.pool.status("m").state is ModelState.FAILED

    with_world([FakeModel("m", weights_bytes=3_000_000_000)], use, budget_bytes=2_000_000_000)


def test_loading_at_start_pushes_nobody_out() -> None:
    """Of two that do not fit together the first stays; the second is loaded when somebody asks for it."""

    async def use(world: World) -> None:
        await world.pool.preload(["a", "b"])
        assert [view.state for view in world.pool.statuses()] == ["ready", "unloaded"]
        async with world.pool.lease("b", FakeEngine):
            assert world.pool.status("a").state is ModelState.UNLOADED

    with_world([FakeModel("a"), FakeModel("b")], use, budget_bytes=150)


def test_memory_kept_for_speed_is_given_back_only_when_a_load_needs_it() -> None:
    """Caches survive a load that fits beside them, and make room for one that does not."""

    async def use(world: World) -> None:
        await world.pool.load("a")
        engine, world.memory.active = world.models["a"].engines[0], 500
        await world.pool.load("b")
        assert engine.num_releases == 0
        world.memory.active = 950
        await world.pool.load("c")
        assert engine.num_releases == 1

    with_world([FakeModel(name) for name in "abc"], use, budget_bytes=1000)


def test_what_is_promised_to_a_load_is_told_until_it_is_taken() -> None:
    """Requests of other models learn of bytes not read yet, and of those that a process of its own takes."""
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


def test_a_model_whose_requests_take_more_than_was_promised_holds_more() -> None:
    """A load waits for long conversations to end instead of taking memory that is not there; then both stay."""
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
    """The view counts down from the last use; a use starts it anew; work in flight stops it."""

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
    """Neither a command, nor another model's need, nor idleness takes it; unpinned, each of them does."""

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


def test_a_load_in_the_back_off_is_refused_at_once() -> None:
    """Who asks for it and does not wait hears of it all the same."""
    model = FakeModel("m", load_error=ModelLoadError("no such weights."))

    async def use(world: World) -> None:
        with pytest.raises(ModelUnavailable):
            await world.pool.load("m")
        with pytest.raises(ModelUnavailable, match="no such weights"):
            world.pool.start_load("m")
        assert world.pool.status("m").num_waiting == 0

    with_world([model], use)


def test_closing_in_the_moment_a_load_begins_ends_it() -> None:
    """A load that has not made its first step is given up as tidily as any other."""

    async def use(world: World) -> None:
        world.pool.start_load("m")
        await world.pool.close()
        assert world.pool.status("m").state is ModelState.UNLOADED

    with_world([FakeModel("m")], use)


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


def test_a_dead_worker_makes_its_model_failed_and_it_comes_back_at_once() -> None:
    """A model whose thread ended is not called ready, and after a first death it is loaded again unasked."""
    model = FakeModel("m")

    async def use(world: World) -> None:
        await world.pool.load("m")
        model.engines[0].kill()
        await until(lambda: "failed" in ways(world, "m"))
        assert world.pool.loaded("m", FakeEngine) is None
        world.timers.advance(0.0)
        await until(lambda: world.pool.status("m").state is ModelState.READY)
        assert model.num_loads == 2

    with_world([model], use)


@pytest.mark.parametrize(
    ("lives_s", "is_isolated", "is_given_up"), [(1.0, False, True), (LASTING_S, False, False), (1.0, True, False)]
)
def test_a_model_whose_workers_die_again_and_again_is_given_up(
    lives_s: float, is_isolated: bool, is_given_up: bool
) -> None:
    """Three short lives in a row end the process, a death a day does not, and a process of its own never does."""
    model = FakeModel("m", is_isolated=is_isolated)

    async def use(world: World) -> None:
        for num_deaths in range(1, MAX_DEATHS + 1):
            await world.pool.load("m")
            world.timers.advance(lives_s)
            model.engines[-1].kill()
            await until(lambda: world.pool.status("m").state is ModelState.FAILED)
            assert (ModelGivenUp("m") in world.events) == (is_given_up and num_deaths == MAX_DEATHS)
            world.timers.advance(world.pool.status("m").retry_in_s or 0.0)

    with_world([model], use)


def test_cancelling_a_request_that_waits_for_a_load_leaves_the_load_to_the_others() -> None:
    """One impatient client does not cost the others their model."""
    model = FakeModel("m")

    async def use(world: World) -> None:
        model.may_load.clear()
        impatient, patient = held(world, "m"), held(world, "m")
        await until(lambda: model.num_loads == 1)
        await cancelled(impatient)
        model.may_load.set()
        await until(lambda: world.pool.status("m").num_running == 1)
        await cancelled(patient)
        assert world.pool.status("m").num_running == 0

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


def test_a_lease_of_the_wrong_kind_is_a_bug_and_leaks_nothing() -> None:
    """Asking for a captioner as a text model raises and gives the lease back."""

    class OtherEngine(FakeEngine):
        pass

    async def use(world: World) -> None:
        with pytest.raises(TypeError):
            async with world.pool.lease("m", OtherEngine):
                pass
        assert world.pool.status("m").num_running == 0

    with_world([FakeModel("m")], use)


def test_sixty_requests_over_three_models_with_room_for_one() -> None:
    """All are answered, in order per model, and no model is loaded again while others have not had their turn."""
    names = "abc"

    async def use(world: World) -> None:
        answered: dict[str, list[int]] = {name: [] for name in names}

        async def client(number: int) -> None:
            for turn in range(5):
                name = names[(number + turn * 7) % 3]
                with world.pool.ticket(name) as ticket:
                    await ticket.granted()
                    answered[name].append(ticket.facts.number)
                    await turns(3)
                assert world.resident_bytes() <= 150

        await asyncio.gather(*(client(number) for number in range(12)))
        assert sum(map(len, answered.values())) == 60
        assert all(numbers == sorted(numbers) for numbers in answered.values())
        loads = [event.model for event in world.events if isinstance(event, ModelStateChanged) and event.new == "ready"]
        assert len(loads) <= 15
        assert all(one != two for one, two in itertools.pairwise(loads))

    with_world([FakeModel(name, max_running=16) for name in names], use, budget_bytes=150, max_waiting=60)


def test_an_unforeseen_error_of_a_load_is_one_sentence() -> None:
    """A bug inside a loader fails the model like any other reason, and names its kind."""

    class Odd(PeriscopeError):
        pass

    async def use(world: World) -> None:
        with pytest.raises(ModelUnavailable, match="odd"):
            await world.pool.load("m")

    with_world([FakeModel("m", load_error=Odd("something odd."))], use)


@pytest.mark.parametrize("old", list(ModelState))
@pytest.mark.parametrize("new", list(ModelState))
def test_only_the_table_s_ways_can_be_gone(old: ModelState, new: ModelState) -> None:
    """A way that is not in the table raises; one that is does not."""
    if new in TRANSITIONS[old]:
        check_transition(old, new)
    else:
        with pytest.raises(RuntimeError):
            check_transition(old, new)
