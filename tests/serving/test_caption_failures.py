"""The table of a captioner's failures: what becomes of its pictures, what the status says, and how it recovers.

Every row is tried with both values of `on_error`. In each of them text is answered as ever, also beside a picture.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import pytest

from periscope.captions.cache import CaptionCache
from periscope.core import Footprint, Image, ModelKind, TextPart, VisionMode
from periscope.errors import (
    CaptionerUnavailable,
    EngineClosed,
    GenerationFailed,
    ImageInvalid,
    ModelLoadError,
    ServerBusy,
)
from periscope.events import EventBus
from periscope.pool.back_off import FIRST_BACK_OFF_S
from periscope.pool.contracts import LoadProgress, ModelSpec, PooledEngine, PoolLimits
from periscope.pool.pool import ModelPool
from periscope.serving.health import HealthStatus, Notices
from periscope.serving.models import ModelNames, ServedModel
from periscope.serving.requests import LiveRequests
from periscope.serving.service import ChatService
from periscope.vision.backends.leased import ImageDescriber, LeasedCaptioner
from periscope.vision.backends.remote import RemoteCaptioner
from periscope.vision.captioner import CaptionerId
from periscope.vision.proxy import VisionProxy
from periscope.vision.settings import OnError, ProxySettings
from tests.pool.fakes import FakeEngine, FakeMemory, FakeModel, HandTimers
from tests.serving.rooms import CIRCLE, request, user
from tests.serving.test_generators import ScriptedGenerator
from tests.vision.backends.asking import HTML, error
from tests.vision.backends.lookalikes import CHAT, SLAMMED, Lookalike, Reply, answer, captioner_at, lookalike, vllm

PATIENCE_S = 30.0
#: The models differ in how long they let the captioner work.
HURRIED, PATIENT = "hurried", "patient"
TIMEOUTS = {HURRIED: 0.05, PATIENT: PATIENCE_S}
BROKEN_PNG = CIRCLE[:-40]
#: What a user says around a picture, in forms that a rewrite might touch.
BEFORE, AFTER = " Was  ist\tdas?\r\n<image> [Image 1] ", "\u200bAnd \u00e9 e\u0301 {{ this }}?\n"
NOT_AVAILABLE, FAILED = "the captioner is not available", "the captioner failed"
TIMED_OUT, NOTHING = "the captioner timed out", "the captioner returned nothing"


@runtime_checkable
class PooledDescriber(PooledEngine, ImageDescriber, Protocol):
    """A captioner of the pool."""


class Eyes(FakeEngine):
    """A loaded captioner that says what its model is set to say. None never comes, an exception is raised."""

    def __init__(self, model: EyesModel) -> None:
        super().__init__(model)
        self._model = model

    async def describe(
        self, _image: Image, _prompt: str, _max_tokens: int, *, on_start: Callable[[], None]
    ) -> tuple[str, int]:
        on_start()
        match self._model.says:
            case None:
                await asyncio.Event().wait()
                raise AssertionError
            case EngineClosed() as gone:
                self.kill()
                raise gone
            case Exception() as failure:
                raise failure
            case text:
                return text, 4


@dataclass(eq=False)
class EyesModel(FakeModel):
    """A captioner in the pool; `says` is its answer to every picture."""

    says: str | Exception | None = "A red circle."

    async def _load(self, progress: LoadProgress) -> FakeEngine:
        await super()._load(progress)
        self.engines[-1] = Eyes(self)
        return self.engines[-1]


class Stage:
    """Owns a service whose captioner a row breaks and mends.

    Args:
        remote: the captioner, if it is on another server, which is then `server`; else it is in the pool.
    """

    def __init__(
        self, on_error: OnError, remote: RemoteCaptioner | None = None, server: Lookalike | None = None
    ) -> None:
        self.eyes = EyesModel("eyes", kind=ModelKind.CAPTIONER)
        self.timers = HandTimers()
        self._server = server
        self._generator = ScriptedGenerator()
        bus = EventBus()
        specs = [ModelSpec(name, self._measure, self._load) for name in TIMEOUTS]
        specs += [] if remote else [self.eyes.spec]
        self.pool = ModelPool(specs, bus, PoolLimits(10**9), memory=FakeMemory(), timers=self.timers)
        kind: type[PooledDescriber] = PooledDescriber  # type: ignore[type-abstract]  # nobody makes one of it
        captioner = remote or LeasedCaptioner(
            lambda tell: self.pool.lease("eyes", kind, tell=tell), CaptionerId("eyes", "1"), wait_timeout_s=PATIENCE_S
        )
        models = [
            ServedModel(
                *(name, (), 0, None, VisionMode.PROXY),
                captioner=captioner,
                proxy=ProxySettings(on_error=on_error, timeout_s=timeout_s),
            )
            for name, timeout_s in TIMEOUTS.items()
        ]
        notices = Notices(bus.publish)
        self.service = ChatService(
            ModelNames(models),
            self.pool,
            VisionProxy(CaptionCache(), report_problem=notices.put),
            LiveRequests(bus.publish),
            [] if remote is None else [remote],
            notices=notices,
        )

    @property
    def server(self) -> Lookalike:
        """The captioner's server."""
        assert self._server is not None
        return self._server

    async def _measure(self) -> Footprint:
        return Footprint(100, 0)

    async def _load(self, _progress: LoadProgress) -> ScriptedGenerator:
        return self._generator

    async def prompt_of(self, *parts: str, model: str = PATIENT) -> list[str]:
        """Ask the model, and return the texts of the message that it got."""
        async with aclosing(self.service.stream(request(user(*parts), model=model))) as events:
            async for _ in events:
                pass
        parts_seen = self._generator.asked[-1].messages[-1].parts
        return [part.text for part in parts_seen if isinstance(part, TextPart)]

    async def problems_like(self, pattern: str) -> None:
        """Return once the status says it; a captioner on another server is first asked how it is."""
        while not re.search(pattern, "\n".join(self.service.health().problems)):
            await asyncio.sleep(0)


@asynccontextmanager
async def local(on_error: OnError) -> AsyncGenerator[Stage]:
    """The captioner is in the pool."""
    stage = Stage(on_error)
    yield stage
    await stage.pool.close()


@asynccontextmanager
async def remote(on_error: OnError) -> AsyncGenerator[Stage]:
    """The captioner is on another server, which is watched as the product does."""
    async with lookalike(vllm()) as server, captioner_at(f"{server.url}/v1", num_retries=0) as (captioner, _):
        watching = asyncio.create_task(captioner.watch())
        await captioner.checked()
        stage = Stage(on_error, captioner, server)
        yield stage
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await stage.pool.close()


Change: TypeAlias = Callable[[Stage], None]


@dataclass(frozen=True)
class Row:
    """One failure.

    Attributes:
        reason: why the picture could not be read, as the marker says it; None if the captioner is only busy.
        why: what the status says; None if nothing is wrong.
        model: which of the models is asked while it is broken.
    """

    breaks: Change
    mends: Change
    reason: str | None
    why: str | None
    model: str = PATIENT


def load_fails(message: str, *, is_missing: bool = False) -> Row:
    def breaks(stage: Stage) -> None:
        setattr(stage.eyes, "measure_error" if is_missing else "load_error", ModelLoadError(message))

    def mends(stage: Stage) -> None:
        stage.eyes.measure_error = stage.eyes.load_error = None
        stage.timers.advance(FIRST_BACK_OFF_S)

    return Row(breaks, mends, NOT_AVAILABLE, f"eyes: {message}")


def says(answer_: str | Exception | None, reason: str, why: str, model: str = PATIENT) -> Row:
    def breaks(stage: Stage) -> None:
        stage.eyes.says = answer_

    def mends(stage: Stage) -> None:
        stage.eyes.says = "A red circle."
        stage.timers.advance(0)

    return Row(breaks, mends, reason, why, model)


def replies(reply: Reply | None, reason: str | None, why: str | None, model: str = PATIENT) -> Row:
    """A server that gives this reply to a picture; None never comes."""

    def breaks(stage: Stage) -> None:
        stage.server.routes[CHAT] = reply or Reply(gate=asyncio.Event())

    def mends(stage: Stage) -> None:
        stage.server.routes.update(vllm())

    return Row(breaks, mends, reason, why, model)


NONE_OF = r"Captioner eyes described none of the last 1 new images: "
TOO_LONG = NONE_OF + r".*longer than 0\.05 s \(`vision_proxy\.timeout_s`\)"
LOCAL: dict[str, Row] = {
    "not on this disk": load_fails("eyes is not on this disk.", is_missing=True),
    "load failed": load_fails("The weights are of another shape."),
    "hangs": says(None, TIMED_OUT, TOO_LONG, HURRIED),
    "fails at a picture": says(GenerationFailed("Out of memory."), FAILED, NONE_OF + "Out of memory"),
    "has a bug": says(ZeroDivisionError("SECRET"), FAILED, NONE_OF + "it failed with ZeroDivisionError"),
    "dies": says(EngineClosed("gone"), NOT_AVAILABLE, "eyes: Its worker ended unexpectedly"),
    "says nothing": says(" \n", NOTHING, NONE_OF + NOTHING),
}
REMOTE: dict[str, Row] = {
    "500": replies(error("boom", 500), FAILED, NONE_OF + ".*boom"),
    "is too slow": replies(None, TIMED_OUT, TOO_LONG, HURRIED),
    "429": replies(error("slow down", 429), None, None),
    "401": replies(error("Unauthorized", 401), NOT_AVAILABLE, r"eyes: .*401.*`remote\.api_key_env`"),
    "blind": replies(error("x is not a multimodal model", 400), NOT_AVAILABLE, "eyes: .*cannot see pictures"),
    "garbage": replies(Reply(b"{nonsense"), FAILED, NONE_OF),
    "a web page": replies(HTML, FAILED, NONE_OF),
    "closes the connection": replies(SLAMMED, FAILED, NONE_OF),
    "says nothing": replies(Reply(answer("")), NOTHING, NONE_OF + NOTHING),
}


@pytest.mark.parametrize("on_error", OnError)
@pytest.mark.parametrize("name", [*LOCAL, *(f"server: {name}" for name in REMOTE)])
def test_a_failure_costs_its_pictures_and_is_told_and_mended(name: str, on_error: OnError) -> None:
    """By setting a marker or an error; every other word as it was sent; why in the status; then all is well again."""
    is_remote = name.startswith("server: ")
    row = REMOTE[name.removeprefix("server: ")] if is_remote else LOCAL[name]

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), (remote if is_remote else local)(on_error) as stage:
            row.breaks(stage)
            if row.reason is None:
                with pytest.raises(ServerBusy):
                    await stage.prompt_of(BEFORE, CIRCLE, AFTER, model=row.model)
            elif on_error is OnError.ERROR:
                with pytest.raises(CaptionerUnavailable, match=row.reason):
                    await stage.prompt_of(BEFORE, CIRCLE, AFTER, model=row.model)
            else:
                before, marker, after = await stage.prompt_of(BEFORE, CIRCLE, AFTER, model=row.model)
                assert (before, after) == (BEFORE, AFTER)
                assert marker == f"[Image 1, 32x32 px, could not be read: {row.reason}. Do not guess what it shows.]"
            assert await stage.prompt_of(BEFORE) == [BEFORE]
            if row.why is not None:
                await stage.problems_like(row.why)
                assert stage.service.health().status is HealthStatus.DEGRADED
            row.mends(stage)
            before, block, after = await stage.prompt_of(BEFORE, CIRCLE, AFTER)
            assert (before, after) == (BEFORE, AFTER)
            assert "\nA red circle.\n" in block
            assert (stage.service.health().status, stage.service.health().problems) == (HealthStatus.READY, ())

    asyncio.run(run())


@pytest.mark.parametrize("on_error", OnError)
def test_a_picture_that_is_none_is_the_clients_fault(on_error: OnError) -> None:
    """Whatever the setting, the client is told which part it is; nothing is said against the captioner."""

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), local(on_error) as stage:
            with pytest.raises(ImageInvalid) as caught:
                await stage.prompt_of(BEFORE, BROKEN_PNG, AFTER)
            assert caught.value.param == "messages[0].content[1]"
            assert stage.service.health().problems == ()
            assert len(await stage.prompt_of(BEFORE, CIRCLE, AFTER)) == 3

    asyncio.run(run())
