"""Queues of the pool: which requests wait, in which order, for how long, and which are granted."""

from __future__ import annotations

import asyncio
import itertools
import re
from contextlib import ExitStack

import pytest

from periscope.core import WaitStatus
from periscope.errors import ServerBusy
from periscope.events import ModelStateChanged
from periscope.pool.ticket import TicketState
from tests.pool.fakes import FakeEngine, FakeModel, World, cancelled, held, turns, until, with_world


def test_requests_beyond_the_batch_wait_in_order_and_know_their_place() -> None:
    """Positions count from 1 and fall when a request leaves, and places go to the first request in the queue."""

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
    """One request more than batch and queue hold gets ServerBusy with a retry time; a cancelled one makes room."""

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


def test_a_full_queue_tells_figures_that_add_up() -> None:
    """Also while the model loads, when those that will run at once wait, too."""
    model = FakeModel("m", max_running=2)
    model.may_load.clear()

    async def use(world: World) -> None:
        tasks = [held(world, "m") for _ in range(2 + 3)]
        await until(lambda: world.pool.status("m").num_waiting == 5)
        told = re.escape("it has 5 requests, and takes 2 at once and 3 that wait (`server.limits.max_waiting`)")
        with pytest.raises(ServerBusy, match=told), world.pool.ticket("m"):
            pass
        await cancelled(*tasks)

    with_world([model], use, max_waiting=3)


def test_a_wait_past_its_timeout_is_refused() -> None:
    """After wait_timeout_s without a place a request gets ServerBusy; the one that has a place goes on."""

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
    """A request waits for a model that takes ten minutes to load, and is told of the progress."""
    model = FakeModel("m")

    async def use(world: World) -> None:
        model.may_load.clear()
        with world.pool.ticket("m") as ticket:
            await until(lambda: ticket.told is not None and bool(ticket.told.progress))
            world.timers.advance(600.0)
            assert ticket.state is TicketState.WAITING
            model.may_load.set()
            await ticket.granted()

    with_world([model], use)


def test_cancelling_a_request_that_waits_for_a_load_leaves_the_load_to_the_others() -> None:
    """The load goes on for the other requests."""
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


def test_a_lease_of_the_wrong_kind_is_a_bug_and_leaks_nothing() -> None:
    """Leasing a captioner as a text model raises and releases the lease."""

    class OtherEngine(FakeEngine):
        pass

    async def use(world: World) -> None:
        with pytest.raises(TypeError):
            async with world.pool.lease("m", OtherEngine):
                pass
        assert world.pool.status("m").num_running == 0

    with_world([FakeModel("m")], use)


def test_sixty_requests_over_three_models_with_room_for_one() -> None:
    """All are answered, in order per model, and no model is loaded again before the others have had their turn."""
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
