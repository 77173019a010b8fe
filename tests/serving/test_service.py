"""ChatService over a real (tiny) text model and a scripted captioner."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from periscope.core import (
    Finished,
    FinishReason,
    Footprint,
    GenerationParams,
    GenerationRequest,
    ImagePart,
    Message,
    OutputEvent,
    Role,
    TextDelta,
    TextPart,
    VisionMode,
    Waiting,
    WaitStatus,
    new_id,
)
from periscope.engine import InferenceEngine
from periscope.errors import (
    CaptionerUnavailable,
    CaptionFailed,
    ImageInvalid,
    ImageRejected,
    InvalidRequest,
    ModelNotFound,
    ModelUnavailable,
    ServerBusy,
    ServerStopping,
)
from periscope.events import EventBus
from periscope.pool.contracts import LoadProgress, ModelSpec, PoolLimits
from periscope.pool.pool import ModelPool
from periscope.serving.control import ControlService
from periscope.serving.disabled_images import PLACEHOLDER
from periscope.serving.health import HealthStatus
from periscope.serving.models import DisabledImages, ModelNames, ServedModel
from periscope.serving.requests import LiveRequests
from periscope.serving.service import ChatService
from periscope.vision.cache import CaptionCache
from periscope.vision.captioner import Caption, CaptionerId, CaptionOutcome, CaptionRequest, Tell
from periscope.vision.proxy import OnError, ProxySettings, VisionProxy
from tests.e2e.drawing import circle, data_url, square
from tests.pool.fakes import FakeMemory

CIRCLE, SQUARE = data_url(circle("red", 32)), data_url(square("blue", 48))
SHORT = GenerationParams(temperature=0.0, max_tokens=6)


class ScriptedCaptioner:
    """Describes by size; `gate` holds captions back, `failure` replaces them, `busy` is raised."""

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
    """Owns a service with one text model of each kind of vision, over one tiny engine."""

    def __init__(self, folder: Path, on_error: OnError = OnError.MARKER) -> None:
        self.captioner = ScriptedCaptioner()
        self.load_gate = asyncio.Event()
        self.load_gate.set()

        async def load(_progress: LoadProgress) -> InferenceEngine:
            await self.load_gate.wait()
            return await InferenceEngine.load(str(folder))

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
        self.service = ChatService(self.names, self.pool, VisionProxy(CaptionCache()), self.requests)
        self.control = ControlService(
            self.service,
            self.pool,
            self.names,
            self.requests,
            self.bus,
            version="1",
            read_memory=lambda: (1, 2, 3),
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
    """A user message; data: URLs become images."""
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


def test_a_text_chat_ends_with_its_reason_and_usage(tiny_text_model: Path) -> None:
    """Deltas, then one Finished with the counts of the text model and no vision usage."""

    async def use(rooms: Rooms) -> None:
        events = await events_of(rooms, request(user("hi")))
        assert isinstance(events[0], Waiting)
        assert events[0].status in {WaitStatus.WAITING_FOR_MODEL, WaitStatus.LOADING}
        end = finished(events)
        assert end.finish_reason in {FinishReason.LENGTH, FinishReason.STOP}
        assert end.usage.num_completion_tokens <= 6
        assert end.vision is None
        again = await events_of(rooms, request(user("hi")))
        assert again[:-1] == [event for event in events[:-1] if not isinstance(event, Waiting)]
        assert finished(again).usage == replace(end.usage, num_cached_tokens=end.usage.num_prompt_tokens - 1)

    with_rooms(tiny_text_model, use)


def test_the_prompt_of_turn_two_starts_with_the_prompt_of_turn_one(tiny_text_model: Path) -> None:
    """With the same image again, the captioner runs 0 times and every earlier prompt token is the same."""

    async def use(rooms: Rooms) -> None:
        proxy, settings = VisionProxy(CaptionCache()), ProxySettings()
        first = (user("what?", CIRCLE, "and", SQUARE),)
        second = (*first, Message(Role.ASSISTANT, (TextPart("a thing"),)), user("which?", CIRCLE))
        async with rooms.pool.lease("seeing", InferenceEngine) as engine:
            prompts = []
            for turn in (first, second):
                rewritten = await proxy.rewrite(turn, rooms.captioner, settings)
                prompts.append((await engine.render(rewritten.messages)).token_ids)
                text = engine.detokenize(prompts[-1])
            assert rooms.captioner.num_captions == 2
            opened = len(engine.tokenize("<|im_start|>assistant\n"))
            shared = prompts[0][:-opened]
            assert prompts[1][: len(shared)] == shared
            assert [f"[Image {n}, " in text for n in (1, 2, 3, 4)] == [True, True, True, False]

    with_rooms(tiny_text_model, use)


def test_images_are_captioned_once_and_counted(tiny_text_model: Path) -> None:
    """Usage tells images, cache hits and caption tokens apart."""

    async def use(rooms: Rooms) -> None:
        one = finished(await events_of(rooms, request(user("what?", CIRCLE)))).vision
        two = finished(await events_of(rooms, request(user("what?", CIRCLE), user(SQUARE)))).vision
        assert one is not None
        assert two is not None
        assert (one.num_images, one.num_cache_hits, one.num_caption_tokens) == (1, 0, 5)
        assert (two.num_images, two.num_cache_hits, two.num_caption_tokens) == (2, 1, 5)

    with_rooms(tiny_text_model, use)


@pytest.mark.parametrize("model", ["blind", "blind-alias"])
def test_disabled_vision_refuses_before_any_event(tiny_text_model: Path, model: str) -> None:
    """The refusal names the part, and neither captioner nor text model is touched."""

    async def use(rooms: Rooms) -> None:
        with pytest.raises(ImageRejected, match="blind") as caught:
            await events_of(rooms, request(user("what?", CIRCLE), model=model))
        assert caught.value.param == "messages[0].content[1]"
        assert not rooms.captioner.entered.is_set()
        assert rooms.pool.status("blind").state == "unloaded"

    with_rooms(tiny_text_model, use)


def test_a_placeholder_stands_for_old_images_and_tool_results_only() -> None:
    """Agents keep working without vision, but a new image is never silently dropped."""
    from periscope.serving.disabled_images import without_images

    model = ServedModel("agent", (), 0, None, VisionMode.DISABLED, disabled_images=DisabledImages.PLACEHOLDER)
    tool = Message(Role.TOOL, (ImagePart(CIRCLE, "messages[2].content[0]"),), tool_call_id="c")
    old, new = user(CIRCLE), user("go on")
    assert [message.text for message in without_images((old, new, tool), model)] == [PLACEHOLDER, "go on", PLACEHOLDER]
    with pytest.raises(ImageRejected):
        without_images((old, user(SQUARE)), model)


def test_native_vision_says_that_it_is_not_served_yet(tiny_text_model: Path) -> None:
    """A setting that cannot be honoured is an error, not silence."""

    async def use(rooms: Rooms) -> None:
        with pytest.raises(ModelUnavailable, match="native"):
            await events_of(rooms, request(user(CIRCLE), model="native"))

    with_rooms(tiny_text_model, use)


def test_a_broken_image_is_the_client_s_error_before_any_event(tiny_text_model: Path) -> None:
    """No status, no captioning: the 400 can still be a 400."""

    async def use(rooms: Rooms) -> None:
        events = rooms.service.stream(request(user("data:image/png;base64,AAAA")))
        with pytest.raises(ImageInvalid):
            await anext(events)

    with_rooms(tiny_text_model, use)


def test_a_failed_caption_is_a_marker_or_an_error_by_setting(tiny_text_model: Path) -> None:
    """The text model is told not to guess, or the client is told to come again."""

    async def marker(rooms: Rooms) -> None:
        rooms.captioner.failure = CaptionFailed("the captioner timed out")
        vision = finished(await events_of(rooms, request(user(CIRCLE)))).vision
        assert vision is not None
        assert vision.num_failed == 1

    async def error(rooms: Rooms) -> None:
        rooms.captioner.failure = CaptionFailed("the captioner timed out")
        with pytest.raises(CaptionerUnavailable):
            await events_of(rooms, request(user(CIRCLE)))

    with_rooms(tiny_text_model, marker)
    with_rooms(tiny_text_model, error, on_error=OnError.ERROR)


def test_text_is_served_while_the_captioner_hangs(tiny_text_model: Path) -> None:
    """One room's trouble does not spread."""

    async def use(rooms: Rooms) -> None:
        rooms.captioner.gate.clear()
        looking = asyncio.create_task(events_of(rooms, request(user(CIRCLE))))
        await rooms.captioner.entered.wait()
        assert finished(await events_of(rooms, request(user("hi"))))
        rooms.captioner.gate.set()
        assert (await looking)[0] == Waiting(WaitStatus.CAPTIONING)

    with_rooms(tiny_text_model, use)


def test_leaving_while_captioning_cancels_the_captioner(tiny_text_model: Path) -> None:
    """Nobody describes an image for a client that has gone."""

    async def use(rooms: Rooms) -> None:
        rooms.captioner.gate.clear()
        events = rooms.service.stream(request(user(CIRCLE)))
        assert await anext(events) == Waiting(WaitStatus.CAPTIONING)
        await events.aclose()
        assert rooms.captioner.cancelled.is_set()
        looking = asyncio.create_task(events_of(rooms, request(user(SQUARE))))
        rooms.captioner.entered.clear()
        await rooms.captioner.entered.wait()
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking

    with_rooms(tiny_text_model, use)


def test_a_server_is_ready_when_its_default_model_was_loaded_at_start_and_stays_so(tiny_text_model: Path) -> None:
    """Until it is there the server is starting, from the first moment on; later loads and unloads change nothing."""

    async def use(rooms: Rooms) -> None:
        rooms.load_gate.clear()
        loading = asyncio.create_task(rooms.pool.preload(["seeing", "blind"]))
        await asyncio.sleep(0)
        while rooms.pool.status("blind").state != "loading":
            assert rooms.service.health().status is HealthStatus.STARTING
            await asyncio.sleep(0)
        rooms.load_gate.set()
        await loading
        assert rooms.service.health().status is HealthStatus.READY
        rooms.pool.start_unload("seeing")
        await rooms.pool.unloaded("seeing")
        rooms.load_gate.clear()
        waiting = asyncio.create_task(events_of(rooms, request(user("hi"))))
        while rooms.pool.status("seeing").state != "loading":
            await asyncio.sleep(0)
        assert rooms.service.health().status is HealthStatus.READY
        rooms.load_gate.set()
        assert finished(await waiting)

    with_rooms(tiny_text_model, use)


def test_leaving_while_the_model_loads_gives_the_place_up(tiny_text_model: Path) -> None:
    """A cancelled request holds no lease; the load goes on for the others."""

    async def use(rooms: Rooms) -> None:
        rooms.load_gate.clear()
        waiting = asyncio.create_task(events_of(rooms, request(user("hi"))))
        while rooms.pool.status("seeing").state != "loading":
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        rooms.load_gate.set()
        assert finished(await events_of(rooms, request(user("hi"))))
        assert rooms.pool.status("seeing").num_running == 0

    with_rooms(tiny_text_model, use)


def test_leaving_while_decoding_frees_row_and_lease(tiny_text_model: Path) -> None:
    """Closing in the middle of an answer gives everything back."""

    async def use(rooms: Rooms) -> None:
        asked = GenerationRequest("t", "", (user("hi"),), GenerationParams(temperature=1.0, seed=1, max_tokens=1500))
        events = rooms.service.stream(asked)
        async for event in events:
            if isinstance(event, TextDelta):
                break
        assert rooms.pool.status("seeing").num_running == 1
        await events.aclose()
        assert rooms.pool.status("seeing").num_running == 0
        engine = rooms.pool.loaded("seeing", InferenceEngine)
        assert engine is not None
        while engine.num_rows:
            await asyncio.sleep(0)

    with_rooms(tiny_text_model, use)


def test_unknown_models_and_a_stopping_server_say_so(tiny_text_model: Path) -> None:
    """The names that exist are in the message; a stopping server takes nothing new."""

    async def use(rooms: Rooms) -> None:
        with pytest.raises(ModelNotFound, match="seeing, blind"):
            await events_of(rooms, request(user("hi"), model="gpt-9"))
        rooms.service.stop_admitting()
        assert rooms.service.health().status is HealthStatus.STOPPING
        with pytest.raises(ServerStopping):
            await events_of(rooms, request(user("hi")))

    with_rooms(tiny_text_model, use)


def test_captions_alone_come_in_order_and_share_the_cache(tiny_text_model: Path) -> None:
    """What a chat has had described is not described again, and a model without eyes says so."""

    async def use(rooms: Rooms) -> None:
        parts = (ImagePart(CIRCLE, "images[0]"), ImagePart(SQUARE, "images[1]"))
        await events_of(rooms, request(user(CIRCLE)))
        captions = await rooms.service.caption("", parts)
        assert [(c.text, c.width, c.captioner) for c in captions] == [
            ("a thing of 32 px", 32, "scripted"),
            ("a thing of 48 px", 48, "scripted"),
        ]
        assert rooms.captioner.num_captions == 2
        rooms.captioner.failure = CaptionFailed("the captioner timed out")
        (failed,) = await rooms.service.caption("", (ImagePart(data_url(circle("green", 40)), "images[0]"),))
        assert (failed.text, failed.error) == (None, "the captioner timed out")
        with pytest.raises(InvalidRequest, match="no captioner"):
            await rooms.service.caption("blind", parts)
        assert len(await rooms.service.caption("", parts * 5)) == 10
        nine = tuple(ImagePart(data_url(circle("green", 40 + i)), f"images[{i}]") for i in range(9))
        with pytest.raises(InvalidRequest, match="at most 8"):
            await rooms.service.caption("", nine)

    with_rooms(tiny_text_model, use)


def test_models_are_told_before_anything_is_loaded(tiny_text_model: Path) -> None:
    """The list is instant, in order, with each model's vision."""

    async def use(rooms: Rooms) -> None:
        cards = rooms.service.models()
        assert [(card.name, card.vision, card.is_loaded) for card in cards] == [
            ("seeing", VisionMode.PROXY, False),
            ("blind", VisionMode.DISABLED, False),
            ("agent", VisionMode.DISABLED, False),
            ("native", VisionMode.NATIVE, False),
        ]
        assert {card.is_batched for card in cards} == {None}
        await rooms.pool.preload(["seeing"])
        assert rooms.service.models()[0].is_loaded
        assert rooms.service.models()[0].is_batched is True
        assert rooms.service.models()[0].context_length == 2048

    with_rooms(tiny_text_model, use)
