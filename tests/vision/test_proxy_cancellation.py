"""VisionProxy when clients leave: at every point where a request waits, nothing leaks and nobody else is hurt."""

from __future__ import annotations

import asyncio

import pytest

from periscope.captions.cache import CaptionCache
from periscope.errors import EngineClosed
from periscope.vision.intake import ImageIntake
from periscope.vision.proxy import VisionProxy
from periscope.vision.settings import ProxySettings
from tests.vision.fakes import FakeCaptioner, HandExecutor, cancelled, conversation, png, run, settled

SETTINGS = ProxySettings()
RED, BLUE = png("red"), png("blue")


@pytest.mark.parametrize("num_steps", [0, 1])
def test_cancelled_while_images_are_read(num_steps: int) -> None:
    """During either step in the executor: what was not begun never is, and the captioner is not asked."""

    async def test() -> None:
        executor, captioner = HandExecutor(), FakeCaptioner()
        vision = VisionProxy(CaptionCache(), intake=ImageIntake(executor=executor))
        task = asyncio.create_task(vision.rewrite(conversation([RED, BLUE]), captioner, SETTINGS))
        await settled()
        for _ in range(num_steps):
            assert executor.run_waiting() == 2
            await settled()
        assert len(executor.waiting) == 2
        await cancelled(task)
        assert executor.run_waiting() == 0
        assert captioner.requests == []

    run(test())


def test_cancelled_while_its_own_caption_is_made() -> None:
    """The captioner is stopped before the request is gone."""

    async def test() -> None:
        captioner = FakeCaptioner(gate=asyncio.Event())
        task = asyncio.create_task(VisionProxy(CaptionCache()).rewrite(conversation([RED]), captioner, SETTINGS))
        await captioner.started.wait()
        await cancelled(task)
        assert captioner.num_cancelled == 1

    run(test())


@pytest.mark.parametrize("leaver", [0, 1], ids=["who began it", "who joined"])
def test_cancelled_while_another_waits_for_the_same_caption(leaver: int) -> None:
    """Whoever leaves, the other gets the caption, made once."""

    async def test() -> None:
        gate, told = asyncio.Event(), asyncio.Event()
        vision, captioner = VisionProxy(CaptionCache()), FakeCaptioner(gate=gate)
        tasks = [asyncio.create_task(vision.rewrite(conversation([RED]), captioner, SETTINGS))]
        await captioner.started.wait()
        tasks.append(
            asyncio.create_task(vision.rewrite(conversation([RED]), captioner, SETTINGS, tell=lambda _: told.set()))
        )
        await told.wait()
        await cancelled(tasks.pop(leaver))
        gate.set()
        rewritten = await tasks[0]
        assert "\nColour (255, 0, 0), try 1.\n" in rewritten.messages[0].text
        assert (len(captioner.requests), captioner.num_cancelled) == (1, 0)

    run(test())


def test_a_failed_caption_of_another_request_is_not_waited_for_twice() -> None:
    """If what a request counted on fails while it decodes the rest, it decodes and captions that image itself."""

    async def test() -> None:
        gate = asyncio.Event()
        executor, failing, working = HandExecutor(), FakeCaptioner(gate=gate, error=EngineClosed("x")), FakeCaptioner()
        cache = CaptionCache()
        other = asyncio.create_task(VisionProxy(cache).rewrite(conversation([RED]), failing, SETTINGS))
        await failing.started.wait()
        task = asyncio.create_task(
            VisionProxy(cache, intake=ImageIntake(executor=executor)).rewrite(
                conversation([RED, BLUE]), working, SETTINGS
            )
        )
        await settled()
        assert executor.run_waiting() == 2
        await settled()
        assert len(executor.waiting) == 1  # blue; red is being captioned for the other request
        gate.set()
        assert (await other).vision.num_failed == 1
        for num_decoded in (1, 1):
            await settled()
            assert executor.run_waiting() == num_decoded
        assert (await task).vision.num_failed == 0
        assert [len(request.images) for request in working.requests] == [2]

    run(test())
