"""The demo captioner with many more images than its batch takes, and a timeout that all of them together exceed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from periscope.captions.cache import CaptionCache
from periscope.core import CaptionedImage, ImagePart, Tell
from periscope.engine import EngineConfig, VisionLanguageEngine
from periscope.errors import ServerBusy
from periscope.vision.backends.leased import LeasedCaptioner
from periscope.vision.captioner import CaptionerId
from periscope.vision.proxy import VisionProxy
from periscope.vision.settings import ProxySettings
from tests.e2e.drawing import circle, data_url
from tests.engine.vision.test_vision_language import CAPTIONER

NUM_REQUESTS = 12
CONFIG = EngineConfig(max_num_seqs=1)


def image_of(number: int) -> ImagePart:
    """An image that is different for each request."""
    return ImagePart(data_url(circle(f"#{20 * number:02x}{255 - 20 * number:02x}40", 64)), "image")


class ProcessorTime(asyncio.SelectorEventLoop):
    """A loop whose clock is the CPU time of this process, so that a busy machine does not shorten timeouts."""

    def time(self) -> float:
        return time.process_time()


class Crowd:
    """Owns a captioner over the demo model. Every request of the crowd gets its lease at once."""

    def __init__(self, engine: VisionLanguageEngine, *, wait_timeout_s: float = 600.0) -> None:
        @asynccontextmanager
        async def lease(_: Tell) -> AsyncIterator[VisionLanguageEngine]:
            yield engine

        self.captioner = LeasedCaptioner(lease, CaptionerId("eyes", "1"), wait_timeout_s=wait_timeout_s)

    async def describe(self, *, timeout_s: float) -> list[tuple[CaptionedImage, ...] | BaseException]:
        vision, settings = VisionProxy(CaptionCache()), ProxySettings(timeout_s=timeout_s, max_tokens=12)
        asked = (vision.describe((image_of(number),), self.captioner, settings) for number in range(NUM_REQUESTS))
        return await asyncio.gather(*asked, return_exceptions=True)


def failures(told: list[tuple[CaptionedImage, ...] | BaseException]) -> list[str]:
    return [image.error for images in told if not isinstance(images, BaseException) for image in images if image.error]


def test_a_crowd_is_captioned_although_it_takes_longer_than_one_timeout() -> None:
    """Half the time of all images is enough for one request, because waiting for other requests does not count."""

    async def run() -> None:
        async with await VisionLanguageEngine.load(CAPTIONER, CONFIG) as engine:
            began = asyncio.get_running_loop().time()
            unhurried = await Crowd(engine).describe(timeout_s=600.0)
            took_s = asyncio.get_running_loop().time() - began
            hurried = await Crowd(engine).describe(timeout_s=took_s / 2)
            assert failures(hurried) == []
            assert hurried == unhurried

    with asyncio.Runner(loop_factory=ProcessorTime) as runner:
        runner.run(run())


def test_a_request_that_waits_too_long_in_a_crowd_is_busy() -> None:
    """Some images are captioned, other requests get `ServerBusy`, and no image gets a marker."""

    async def run() -> None:
        async with await VisionLanguageEngine.load(CAPTIONER, CONFIG) as engine:
            told = await Crowd(engine, wait_timeout_s=0.05).describe(timeout_s=600.0)
            assert failures(told) == []
            refused = [each for each in told if isinstance(each, BaseException)]
            assert 0 < len(refused) < NUM_REQUESTS
            assert all(isinstance(each, ServerBusy) and each.retry_after_s >= 1 for each in refused)
            while engine.num_rows:
                await asyncio.sleep(0)

    asyncio.run(run())
