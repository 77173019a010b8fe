"""A service with one scripted text model that may look again, and a scripted captioner."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import aclosing
from typing import Any, ParamSpec, TypeAlias, TypeVar

from periscope.captions.cache import CaptionCache
from periscope.core import (
    Finished,
    FinishReason,
    Footprint,
    GenerationRequest,
    OutputEvent,
    Role,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    VisionMode,
)
from periscope.events import EventBus
from periscope.pool.contracts import LoadProgress, ModelSpec, PoolLimits
from periscope.pool.pool import ModelPool
from periscope.serving.generators import GeneratorFacts
from periscope.serving.models import ModelNames, ServedModel
from periscope.serving.requests import LiveRequests
from periscope.serving.service import ChatService
from periscope.vision.images.in_flight import BytesInFlight
from periscope.vision.intake import ImageIntake
from periscope.vision.proxy import VisionProxy
from periscope.vision.settings import ProxySettings
from tests.pool.fakes import FakeEngine, FakeMemory, FakeModel
from tests.serving.rooms import ScriptedCaptioner

P = ParamSpec("P")
T = TypeVar("T")
#: What the model writes, or why it cannot.
Round: TypeAlias = Sequence[OutputEvent] | Exception
USAGE = Usage(num_prompt_tokens=10, num_completion_tokens=4)
CAN_CALL = GeneratorFacts(context_length=4096, has_tools=True, has_reasoning=False, is_batched=True)


def call(arguments: Any, name: str = "look", index: int = 0) -> list[OutputEvent]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return [ToolCallStart(index, f"call_{index}", name), ToolCallDelta(index, text)]


def round_of(*events: OutputEvent) -> list[OutputEvent]:
    has_called = any(isinstance(event, ToolCallStart) for event in events)
    return [*events, Finished(FinishReason.TOOL_CALLS if has_called else FinishReason.STOP, USAGE)]


class ScriptedGenerator(FakeEngine):
    """Answers each request with the next of its rounds; `gate` holds every round back before its last event."""

    def __init__(self, *rounds: Round, facts: GeneratorFacts = CAN_CALL) -> None:
        super().__init__(FakeModel("m"))
        self.facts = facts
        self.rounds = list(rounds)
        self.asked: list[GenerationRequest] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[OutputEvent, None]:
        self.asked.append(request)
        told = self.rounds.pop(0)
        if isinstance(told, Exception):
            raise told
        *events, end = told
        for event in events:
            yield event
        await self.gate.wait()
        yield end


class InlineExecutor(Executor):
    """Runs what it is given at once, so that a request takes the same turns of the loop each time."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Rooms:
    """Owns a service with one model that may look twice, over a scripted generator."""

    def __init__(self, generator: ScriptedGenerator, max_looks: int) -> None:
        self.generator = generator
        self.captioner = ScriptedCaptioner()
        self.in_flight = BytesInFlight()

        async def load(_progress: LoadProgress) -> ScriptedGenerator:
            return generator

        async def measure() -> Footprint:
            return Footprint(100, 0)

        bus = EventBus()
        self.pool = ModelPool([ModelSpec("m", measure, load)], bus, PoolLimits(10**9), memory=FakeMemory())
        proxy = ProxySettings(max_looks=max_looks)
        model = ServedModel("m", (), 0, None, VisionMode.PROXY, captioner=self.captioner, proxy=proxy)
        self.requests = LiveRequests(bus.publish)
        self.captions = CaptionCache()
        intake = ImageIntake(executor=InlineExecutor(), in_flight=self.in_flight)
        vision = VisionProxy(self.captions, intake=intake)
        self.service = ChatService(ModelNames([model]), self.pool, vision, self.requests)

    async def answer(self, asked: GenerationRequest) -> list[OutputEvent]:
        async with aclosing(self.service.stream(asked)) as events:
            return [event async for event in events]

    def results(self) -> list[str]:
        """What the model has read of its looks."""
        messages = self.generator.asked[-1].messages
        return [message.text for message in messages if message.role is Role.TOOL]

    def holds_nothing(self) -> bool:
        status = self.pool.status("m")
        return (status.num_running, status.num_waiting, self.in_flight.held_bytes) == (0, 0, 0)


def with_rooms(
    use: Callable[[Rooms], Awaitable[None]],
    *rounds: Round,
    max_looks: int = 2,
    facts: GeneratorFacts = CAN_CALL,
) -> None:
    async def run() -> None:
        rooms = Rooms(ScriptedGenerator(*rounds, facts=facts), max_looks)
        try:
            await use(rooms)
        finally:
            rooms.generator.gate.set()
            rooms.captioner.gate.set()
            await rooms.pool.close()

    asyncio.run(asyncio.wait_for(run(), 20))
