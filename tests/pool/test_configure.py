"""Another list of models, whatever the models are doing when it comes."""

from __future__ import annotations

import asyncio

import pytest

from periscope.core import ModelState
from periscope.errors import ModelLoadError, ModelUnavailable
from periscope.events import ModelRemoved
from tests.pool.fakes import FakeEngine, FakeModel, World, cancelled, held, turns, until, with_world


def configure(world: World, *models: FakeModel, replaced: str = "", loads: str = "") -> None:
    world.pool.configure([model.spec for model in models], replaced=replaced.split(), loads=loads.split())


async def resident(world: World, name: str) -> FakeEngine:
    async with world.pool.lease(name, FakeEngine) as engine:
        return engine


def test_what_stays_is_not_touched_and_the_rest_changes_hands() -> None:
    """A model that is as before keeps its engine.

    One that runs in another way serves those who have it, then is loaded anew; a removed one serves them, then is gone;
    a new one is there at once, in the order of the file.
    """
    kept, old, new, gone, fresh = (FakeModel(name) for name in ("kept", "changed", "changed", "gone", "fresh"))

    async def use(world: World) -> None:
        engine = await resident(world, "kept")
        running = [held(world, "changed"), held(world, "gone")]
        await until(lambda: world.pool.status("gone").num_running == 1)
        configure(world, fresh, kept, new, replaced="changed")
        assert [row.name for row in world.pool.statuses()] == ["fresh", "kept", "changed", "gone"]
        later = held(world, "changed")
        with pytest.raises(ModelUnavailable, match=r"gone was removed from models\.yaml"):
            await resident(world, "gone")
        await turns()
        assert world.pool.status("changed").state == world.pool.status("gone").state == ModelState.DRAINING
        await cancelled(*running)
        await until(lambda: world.pool.status("changed").num_running == 1)
        assert (old.num_loads, new.num_loads) == (1, 1)
        await until(lambda: ModelRemoved("gone") in world.events)
        assert [row.name for row in world.pool.statuses()] == ["fresh", "kept", "changed"]
        with pytest.raises(ModelUnavailable, match="removed"):
            await resident(world, "gone")
        assert await resident(world, "kept") is engine
        assert (await resident(world, "fresh")).model is fresh
        await cancelled(later)

    with_world([kept, old, gone], use)


@pytest.mark.parametrize("where", ["measuring", "loading", "failing to load", "failed", "unloaded"])
def test_a_model_is_replaced_wherever_it_is(where: str) -> None:
    """The next request gets the new one, and nothing that went wrong with the old one is held against it."""
    old, new = FakeModel("m", weights_bytes=100), FakeModel("m", weights_bytes=200)

    async def use(world: World) -> None:
        gate = {"measuring": old.may_measure, "loading": old.may_load, "failing to load": old.may_load}.get(where)
        old.load_error = ModelLoadError("broken") if "fail" in where else None
        if gate is not None:
            gate.clear()
        waiting = None if where == "unloaded" else asyncio.create_task(resident(world, "m"))
        await turns()
        if where == "failed":
            assert waiting is not None
            with pytest.raises(ModelUnavailable):
                await waiting
            waiting = None
        configure(world, new, replaced="m")
        if gate is not None:
            gate.set()
        assert (await resident(world, "m")).model is new
        assert (new.num_measures, world.pool.status("m").held_bytes) == (1, 200)
        if waiting is not None:
            assert (await waiting).model is (old if where == "loading" else new)

    with_world([old], use)


def test_other_terms_hold_at_once() -> None:
    """A pin and a time to live come and go without a load."""
    plain, pinned = FakeModel("m"), FakeModel("m", is_pinned=True, ttl_s=5.0)

    async def use(world: World) -> None:
        await resident(world, "m")
        configure(world, pinned)
        world.timers.advance(60.0)
        await turns()
        assert (world.pool.status("m").state, world.pool.status("m").is_pinned) == (ModelState.READY, True)
        configure(world, FakeModel("m", ttl_s=5.0))
        world.timers.advance(60.0)
        await turns()
        assert world.pool.status("m").state == ModelState.UNLOADED
        assert (plain.num_loads, pinned.num_loads) == (1, 0)

    with_world([plain], use)


def test_a_pin_by_command_stays_when_the_file_says_what_it_said() -> None:
    """Only what changed in the file overrules what an operator did."""

    async def use(world: World) -> None:
        world.pool.pin("m", is_pinned=True)
        configure(world, FakeModel("m", ttl_s=1.0))
        assert world.pool.status("m").is_pinned

    with_world([FakeModel("m")], use)


def test_what_was_in_memory_or_is_to_be_loaded_comes_back_by_itself() -> None:
    """As at start: if there is room, and nothing else makes way for it."""
    old, new, fresh, big = FakeModel("m"), FakeModel("m"), FakeModel("fresh"), FakeModel("big", weights_bytes=900)

    async def use(world: World) -> None:
        await resident(world, "m")
        configure(world, new, fresh, big, replaced="m", loads="fresh big")
        await until(lambda: world.pool.status("fresh").state == ModelState.READY)
        await until(lambda: world.pool.status("m").state == ModelState.READY)
        await turns()
        assert (new.num_loads, fresh.num_loads, big.num_loads) == (1, 1, 0)

    with_world([old], use, budget_bytes=1000)


def test_a_reserved_place_of_a_removed_model_is_honoured() -> None:
    """Its captions were being made: the model comes back for it, and goes again."""
    model = FakeModel("m")

    async def use(world: World) -> None:
        with world.pool.ticket("m", is_reserved=True) as ticket:
            configure(world, FakeModel("other"))
            await turns()
            ticket.start_waiting()
            async for _ in ticket.updates():
                pass
            assert ticket.engine(FakeEngine).model is model
        await until(lambda: ModelRemoved("m") in world.events)
        assert not model.engines[-1].is_alive

    with_world([model], use)


def test_a_removed_model_may_come_back_before_it_is_gone() -> None:
    """Whoever undoes a change finds everything as it was."""
    model, again = FakeModel("m"), FakeModel("m")

    async def use(world: World) -> None:
        running = held(world, "m")
        await until(lambda: world.pool.status("m").num_running == 1)
        configure(world, FakeModel("other"))
        configure(world, again)
        later = held(world, "m")
        await cancelled(running)
        await until(lambda: world.pool.status("m").num_running == 1)
        assert again.num_loads == 1
        await turns()
        assert [row.name for row in world.pool.statuses()] == ["m"]
        await cancelled(later)

    with_world([model], use)


def test_a_removed_model_whose_worker_died_does_not_return() -> None:
    """Its return was due; it is forgotten instead."""
    model = FakeModel("m")

    async def use(world: World) -> None:
        await resident(world, "m")
        model.engines[0].kill()
        await until(lambda: world.pool.status("m").state == ModelState.FAILED)
        configure(world, FakeModel("other"))
        await until(lambda: ModelRemoved("m") in world.events)
        world.timers.advance(1000.0)
        await turns()
        assert model.num_loads == 1

    with_world([model], use)
