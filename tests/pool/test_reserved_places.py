"""Reserved places are granted in order, count in the queue, and keep no model in memory."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from periscope.core import ModelState
from periscope.errors import ModelLoadError, ModelUnavailable, ServerBusy, ServerStopping
from periscope.pool.back_off import MAX_DEATHS
from periscope.pool.ticket import TicketState
from tests.pool.fakes import FakeEngine, FakeModel, World, cancelled, held, turns, until, with_world


def test_a_reserved_place_counts_and_loads_nothing() -> None:
    """It fills the queue for others that reserve, and its model is not even measured before it begins to wait."""
    model = FakeModel("m", max_running=1)

    async def use(world: World) -> None:
        with world.pool.ticket("m", is_reserved=True) as first, world.pool.ticket("m", is_reserved=True):
            await turns()
            assert (model.num_measures, world.pool.status("m").num_waiting) == (0, 2)
            with pytest.raises(ServerBusy, match="has 2 requests"), world.pool.ticket("m", is_reserved=True):
                pass
            await first.granted()
            assert (first.state, world.pool.status("m").num_waiting) == (TicketState.GRANTED, 1)
        assert world.pool.status("m").num_running == world.pool.status("m").num_waiting == 0

    with_world([model], use, max_waiting=1)


def test_reserved_places_refuse_no_request_without_images() -> None:
    """If requests that wait for a hanging captioner fill the queue, requests without images are still served."""

    async def use(world: World) -> None:
        with ExitStack() as stack:
            kept = [stack.enter_context(world.pool.ticket("m", is_reserved=True)) for _ in range(2)]
            with world.pool.ticket("m") as ticket:
                await ticket.granted()
                for each in kept:
                    each.start_waiting()
                assert [each.state for each in kept] == [TicketState.WAITING] * 2
                with pytest.raises(ServerBusy, match="has 3 requests"), world.pool.ticket("m"):
                    pass
            await kept[0].granted()

    with_world([FakeModel("m", max_running=1)], use, max_waiting=1)


def test_the_first_reserved_place_goes_first_once_it_waits() -> None:
    """Until it waits others go before it; it counts in the positions of those behind it, so that these never rise."""

    async def use(world: World) -> None:
        running = held(world, "m")
        await until(lambda: world.pool.status("m").num_running == 1)
        with ExitStack() as stack:
            first = stack.enter_context(world.pool.ticket("m", is_reserved=True))
            second, third = (stack.enter_context(world.pool.ticket("m")) for _ in range(2))
            assert [t.told and t.told.position for t in (first, second, third)] == [1, 2, 3]
            await cancelled(running)
            assert (first.state, second.state) == (TicketState.RESERVED, TicketState.GRANTED)
            first.start_waiting()
            assert [t.told and t.told.position for t in (first, third)] == [1, 2]
            second.close()
            assert (first.state, third.state) == (TicketState.GRANTED, TicketState.WAITING)

    with_world([FakeModel("m", max_running=1)], use)


def test_the_wait_of_a_reserved_place_begins_after_its_captions() -> None:
    """However long captions take, the request then has the whole time to wait."""

    async def use(world: World) -> None:
        running = held(world, "m")
        await until(lambda: world.pool.status("m").num_running == 1)
        with world.pool.ticket("m", is_reserved=True) as ticket:
            world.timers.advance(1000.0)
            ticket.start_waiting()
            world.timers.advance(29.0)
            assert ticket.state is TicketState.WAITING
            world.timers.advance(1.0)
            with pytest.raises(ServerBusy, match="30 s"):
                await ticket.granted()
        await cancelled(running)

    with_world([FakeModel("m", max_running=1)], use)


def test_memory_for_one_model_is_enough_for_requests_that_need_two() -> None:
    """Twelve requests with a reserved place each use the captioner, then the text model, with two loads of each."""
    models = [FakeModel("text", max_running=4), FakeModel("captioner", max_running=4)]

    async def use(world: World) -> None:
        answered: list[int] = []

        async def request(number: int) -> None:
            with world.pool.ticket("text", is_reserved=True) as place:
                async with world.pool.lease("captioner", FakeEngine):
                    await turns(1 + number % 5)
                await place.granted()
                answered.append(number)
                assert world.resident_bytes() <= 150
                await turns(2)

        await world.pool.load("text")
        await asyncio.gather(*(request(number) for number in range(12)))
        assert sorted(answered) == list(range(12))
        assert (models[0].num_loads, models[1].num_loads) == (2, 1)

    with_world(models, use, budget_bytes=150)


def test_a_reserved_place_is_refused_with_its_model() -> None:
    """It is refused when the pool closes, and when its model fails."""
    model = FakeModel("m")

    async def use(world: World) -> None:
        with world.pool.ticket("m", is_reserved=True) as ticket:
            hearing = asyncio.create_task(ticket.refused())
            await world.pool.load("m")
            for _ in range(MAX_DEATHS - 1):
                assert not hearing.done()
                await world.pool.load("m")
                model.engines[-1].kill()
                await until(lambda: world.pool.status("m").state is ModelState.FAILED)
            with pytest.raises(ModelUnavailable, match="worker ended"):
                await hearing
        model.load_error = ModelLoadError("gone.")
        with world.pool.ticket("captioner", is_reserved=True) as ticket:
            hearing = asyncio.create_task(ticket.refused())
            await turns()
            await world.pool.close()
            with pytest.raises(ServerStopping):
                await hearing
            with pytest.raises(ServerStopping):
                await ticket.granted()

    with_world([model, FakeModel("captioner")], use)
