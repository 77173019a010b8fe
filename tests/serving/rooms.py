"""A service over a real (tiny) text model and a scripted captioner, and requests to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

from periscope.captions.cache import CaptionCache
from periscope.captions.caption import Caption, CaptionOutcome
from periscope.core import (
    Finished,
    Footprint,
    GenerationParams,
    GenerationRequest,
    ImagePart,
    Message,
    OutputEvent,
    Role,
    Tell,
    TextPart,
    VisionMode,
    Waiting,
    WaitStatus,
    new_id,
)
from periscope.errors import CaptionFailed, ServerBusy
from periscope.events import EventBus
from periscope.hub import Downloads
from periscope.pool.contracts import LoadProgress, ModelSpec, PoolLimits
from periscope.pool.pool import ModelPool
from periscope.serving.control import ControlService
from periscope.serving.generation import LocalGenerator
from periscope.serving.models import DisabledImages, ModelNames, ServedModel
from periscope.serving.requests import LiveRequests
from periscope.serving.service import ChatService
from periscope.status import ServerIdentity
from periscope.vision.captioner import CaptionerId, CaptionRequest
from periscope.vision.proxy import VisionProxy
from periscope.vision.settings import OnError, ProxySettings
from tests.e2e.drawing import circle, data_url, square
from tests.pool.fakes import FakeMemory, reload_nothing

CIRCLE, SQUARE = data_url(circle("red", 32)), data_url(square("blue", 48))


SHORT = GenerationParams(temperature=0.0, max_tokens=6)


class ScriptedCaptioner:
    """Describes images by their size; `gate` blocks captions, `failure` replaces them, `busy` is raised."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.failure: CaptionFailed | None = None
        self.busy: ServerBusy | None = None
        self.num_captions = 0

    @property
    def id(self) -> CaptionerId:
        return CaptionerId("scripted", "1")

    async def caption(self, request: CaptionRequest, tell: Tell) -> tuple[CaptionOutcome, ...]:
        tell(Waiting(WaitStatus.CAPTIONING))
        self.entered.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.busy is not None:
            raise self.busy
        self.num_captions += len(request.images)
        return tuple(self.failure or Caption(f"a thing of {image.width} px", 5) for image in request.images)


class Rooms:
    """Owns a service with one text model of each vision mode, over one tiny engine."""

    def __init__(self, folder: Path, on_error: OnError = OnError.MARKER) -> None:
        self.captioner = ScriptedCaptioner()
        self.load_gate = asyncio.Event()
        self.load_gate.set()

        async def load(_progress: LoadProgress) -> LocalGenerator:
            await self.load_gate.wait()
            return await LocalGenerator.load(str(folder))

        def served(name: str, vision: VisionMode, disabled: DisabledImages = DisabledImages.REJECT) -> ServedModel:
            proxy = ProxySettings(on_error=on_error) if vision is VisionMode.PROXY else None
            captioner = self.captioner if proxy else None
            return ServedModel(name, (f"{name}-alias",), 0, None, vision, SHORT, captioner, proxy, disabled)

        async def measure() -> Footprint:
            return Footprint(1000, 0)

        names = ("seeing", "blind", "agent", "native")
        self.bus = EventBus()
        specs = [ModelSpec(name, measure, load, aliases=(f"{name}-alias",), max_running=2) for name in names]
        self.pool = ModelPool(specs, self.bus, PoolLimits(budget_bytes=10**9, max_waiting=2), memory=FakeMemory())
        models = [
            served("seeing", VisionMode.PROXY),
            served("blind", VisionMode.DISABLED),
            served("agent", VisionMode.DISABLED, DisabledImages.PLACEHOLDER),
            served("native", VisionMode.NATIVE),
        ]
        self.requests = LiveRequests(self.bus.publish)
        self.names = ModelNames(models)
        self.service = ChatService(self.names, self.pool, VisionProxy(captions := CaptionCache()), self.requests)
        self.control = ControlService(
            self.service,
            self.pool,
            self.names,
            self.requests,
            self.bus,
            captions=captions,
            identity=ServerIdentity("1"),
            read_memory=lambda: (1, 2, 3),
            reload=reload_nothing,
            downloads=Downloads(self.bus.publish),
            sources=lambda asked, _: [(asked, None)],
        )


def with_rooms(folder: Path, use: Callable[[Rooms], Awaitable[None]], *, on_error: OnError = OnError.MARKER) -> None:
    async def run() -> None:
        rooms = Rooms(folder, on_error)
        try:
            await use(rooms)
        finally:
            await rooms.pool.close()

    asyncio.run(run())


def user(*parts: str) -> Message:
    """A user message in which data: URLs are images."""
    return Message(
        Role.USER,
        tuple(
            ImagePart(p, f"messages[0].content[{i}]") if p.startswith("data:") else TextPart(p)
            for i, p in enumerate(parts)
        ),
    )


def request(*messages: Message, model: str = "") -> GenerationRequest:
    return GenerationRequest(new_id("t-"), model, messages)


async def events_of(rooms: Rooms, asked: GenerationRequest) -> list[OutputEvent]:
    async with aclosing(rooms.service.stream(asked)) as events:
        return [event async for event in events]


def finished(events: list[OutputEvent]) -> Finished:
    last = events[-1]
    assert isinstance(last, Finished)
    assert sum(isinstance(event, Finished) for event in events) == 1
    return last
