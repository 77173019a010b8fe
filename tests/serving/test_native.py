"""A native model's request, from its images to its lease: what it holds while it runs, and that it lets go of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from periscope.captions.cache import CaptionCache
from periscope.core import Footprint, GenerationParams, TextDelta, VisionMode
from periscope.demo import EMBEDDED_MODELS
from periscope.engine import EngineConfig
from periscope.errors import ImageInvalid
from periscope.events import EventBus
from periscope.pool.contracts import LoadProgress, ModelSpec, PoolLimits
from periscope.pool.pool import ModelPool
from periscope.serving.generation import LocalGenerator
from periscope.serving.models import ModelNames, ServedModel
from periscope.serving.requests import LiveRequests
from periscope.serving.service import ChatService
from periscope.vision.images.in_flight import BytesInFlight
from periscope.vision.intake import ImageIntake
from periscope.vision.native import NativeVision
from periscope.vision.proxy import VisionProxy
from tests.pool.fakes import FakeMemory
from tests.serving.rooms import CIRCLE, SQUARE, request, user

LONG = GenerationParams(temperature=0.0, max_tokens=1500, logit_bias=((0, -100.0), (2, -100.0)))


async def measure() -> Footprint:
    return Footprint(1000, 0)


async def load(_progress: LoadProgress) -> LocalGenerator:
    return await LocalGenerator.load(str(EMBEDDED_MODELS["embedded:captioner"]), EngineConfig(has_vision=True))


def test_pixels_are_held_while_the_answer_is_made_and_let_go_with_it() -> None:
    """Not the files; also if the client leaves in the middle, or an image is broken. Then the row is given up."""

    async def use() -> None:
        bus, in_flight = EventBus(), BytesInFlight()
        pool = ModelPool([ModelSpec("eyes", measure, load)], bus, PoolLimits(budget_bytes=10**9), memory=FakeMemory())
        service = ChatService(
            ModelNames([ServedModel("eyes", (), 0, None, VisionMode.NATIVE)]),
            pool,
            VisionProxy(CaptionCache()),
            LiveRequests(bus.publish),
            native=NativeVision(ImageIntake(in_flight=in_flight)),
        )
        try:
            answering = service.stream(replace(request(user(CIRCLE, SQUARE), model="eyes"), params=LONG))
            async for event in answering:
                if isinstance(event, TextDelta):
                    break
            assert in_flight.held_bytes == 3 * (32 * 32 + 48 * 48)
            await answering.aclose()
            assert in_flight.held_bytes == 0
            assert pool.status("eyes").num_running == 0
            with pytest.raises(ImageInvalid):
                await anext(service.stream(request(user(CIRCLE, "data:image/png;base64,AAAA"), model="eyes")))
            assert in_flight.held_bytes == 0
        finally:
            await pool.close()

    asyncio.run(use())
