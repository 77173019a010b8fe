"""EventBus: bounded fan-out."""

from __future__ import annotations

import asyncio

from periscope.events import EventBus, ModelGivenUp, ModelLoadProgress, RequestChanged


def progress(done: int) -> ModelLoadProgress:
    return ModelLoadProgress("m", done, 100)


def test_a_slow_subscriber_is_cut_off_and_the_others_are_not() -> None:
    """Memory stays bounded: who falls behind reads what fits, then the end."""

    async def run() -> None:
        bus = EventBus()
        with bus.subscribed(capacity=2) as slow, bus.subscribed(capacity=100) as steady:
            for i in range(5):
                bus.publish(progress(i))
            bus.close()
            assert [event async for event in slow] == [progress(0), progress(1)]
            assert [event async for event in steady] == [progress(i) for i in range(5)]

    asyncio.run(run())


def test_a_waiting_subscriber_is_woken_by_the_end() -> None:
    """Closing the bus ends every reader, so shutdown never waits for one."""

    async def run() -> None:
        bus = EventBus()
        with bus.subscribed() as events:
            reading = asyncio.create_task(anext(events, None))
            await asyncio.sleep(0)
            bus.close()
            assert await reading is None

    asyncio.run(run())


def test_cancelling_a_read_loses_no_event() -> None:
    """The await point of a read can be cancelled."""

    async def run() -> None:
        bus = EventBus()
        with bus.subscribed() as events:
            reading = asyncio.create_task(anext(events))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait({reading})
            bus.publish(progress(7))
            assert await anext(events) == progress(7)

    asyncio.run(run())


def test_a_subscriber_has_only_the_kinds_that_it_asked_for() -> None:
    """However many others there are, they neither wake it nor cut it off."""

    async def run() -> None:
        bus = EventBus()
        with bus.subscribed(ModelGivenUp, ModelLoadProgress, capacity=2) as events:
            reading = asyncio.create_task(anext(events))
            for i in range(5):
                await asyncio.sleep(0)
                bus.publish(RequestChanged(f"r{i}"))
            assert not reading.done()
            bus.publish(progress(7))
            bus.publish(ModelGivenUp("m"))
            assert [await reading, await anext(events)] == [progress(7), ModelGivenUp("m")]

    asyncio.run(run())
