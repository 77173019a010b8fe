"""BytesInFlight: bounded, in order, and nothing is lost when somebody leaves."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from periscope.captions.cache import CaptionCache
from periscope.errors import ServerBusy
from periscope.vision.blocks import Rewritten
from periscope.vision.images.in_flight import BytesInFlight
from periscope.vision.intake import ImageIntake
from periscope.vision.proxy import VisionProxy
from periscope.vision.settings import ProxySettings
from tests.vision.fakes import FakeCaptioner, cancelled, conversation, png, run, settled


def holding(in_flight: BytesInFlight, num_bytes: int, gate: asyncio.Event, order: list[int]) -> asyncio.Task[None]:
    async def hold() -> None:
        async with in_flight.admitted(num_bytes):
            order.append(num_bytes)
            await gate.wait()

    return asyncio.create_task(hold())


def test_who_does_not_fit_waits_and_nobody_overtakes() -> None:
    """Room goes to the first in the queue, also where a smaller one behind it would fit."""

    async def test() -> None:
        in_flight, order = BytesInFlight(100), list[int]()
        gates = [asyncio.Event() for _ in range(3)]
        tasks = [holding(in_flight, size, gate, order) for size, gate in zip((60, 70, 10), gates, strict=True)]
        await settled()
        assert (order, in_flight.held_bytes) == ([60], 60)
        gates[0].set()
        await settled()
        assert (order, in_flight.held_bytes) == ([60, 70, 10], 80)
        for gate in gates:
            gate.set()
        await asyncio.gather(*tasks)
        assert in_flight.held_bytes == 0

    run(test())


def test_a_request_larger_than_the_bound_is_let_in_alone() -> None:
    """It waits until nobody else is there, and then nobody else is let in."""

    async def test() -> None:
        in_flight, order = BytesInFlight(100), list[int]()
        gates = [asyncio.Event() for _ in range(3)]
        tasks = [holding(in_flight, size, gate, order) for size, gate in zip((1, 900), gates, strict=False)]
        await settled()
        assert order == [1]
        gates[0].set()
        await settled()
        tasks.append(holding(in_flight, 2, gates[2], order))
        await settled()
        assert (order, in_flight.held_bytes) == ([1, 900], 900)
        gates[1].set()
        gates[2].set()
        await asyncio.gather(*tasks)
        assert (order, in_flight.held_bytes) == ([1, 900, 2], 0)

    run(test())


def test_too_much_that_waits_is_refused_at_once_and_a_wait_has_an_end() -> None:
    """Pictures take memory while they wait, too: both are ServerBusy with a time to come again."""

    async def test() -> None:
        in_flight, order, gate = BytesInFlight(100, wait_timeout_s=0.02), list[int](), asyncio.Event()
        running = holding(in_flight, 100, gate, order)
        waiting = holding(in_flight, 60, gate, order)
        await settled()
        with pytest.raises(ServerBusy, match="max_image_bytes_in_flight") as caught:
            async with in_flight.admitted(41):
                pass
        assert caught.value.retry_after_s >= 1
        with pytest.raises(ServerBusy, match=r"0\.02 s"):
            await waiting
        gate.set()
        await running
        assert (order, in_flight.held_bytes) == ([100], 0)

    run(test())


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 120), st.integers(0, 3), st.booleans()), max_size=12))
def test_whoever_leaves_whenever_leaves_nothing(steps: list[tuple[int, int, bool]]) -> None:
    """Under any order of arrivals, ends and cancellations: within the bound, and all is given back."""

    async def test() -> None:
        in_flight = BytesInFlight(100)
        tasks: list[tuple[asyncio.Task[None], asyncio.Event]] = []
        for size, leaver, is_cancelled in steps:
            gate = asyncio.Event()
            tasks.append((holding(in_flight, size, gate, []), gate))
            if leaver < len(tasks):
                task, gate = tasks.pop(leaver)
                if is_cancelled:
                    task.cancel()
                gate.set()
            for _ in range(size % 7):
                await asyncio.sleep(0)
            assert in_flight.held_bytes <= 120
        for _, gate in tasks:
            gate.set()
        await asyncio.wait_for(asyncio.gather(*(task for task, _ in tasks), return_exceptions=True), 5)
        await settled()
        assert in_flight.held_bytes == 0

    run(test())


def test_images_are_read_and_described_within_the_bound() -> None:
    """A second request waits while the first is captioned, is cancelled without a trace, or goes on after it."""

    async def test() -> None:
        gate = asyncio.Event()
        in_flight, captioner = BytesInFlight(300), FakeCaptioner(gate=gate)
        vision = VisionProxy(CaptionCache(), intake=ImageIntake(in_flight=in_flight))

        def rewriting(color: str) -> asyncio.Task[Rewritten]:
            return asyncio.create_task(vision.rewrite(conversation([png(color)]), captioner, ProxySettings()))

        first, second = rewriting("red"), rewriting("blue")
        await captioner.started.wait()
        await settled()
        assert len(captioner.requests) == 1
        await cancelled(second)
        third = rewriting("lime")
        await settled()
        gate.set()
        assert [rewritten.vision.num_failed for rewritten in await asyncio.gather(first, third)] == [0, 0]
        assert in_flight.held_bytes == 0

    run(test())
