"""The service works with any `TextGenerator`: here a scripted one in place of an engine or another server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

import pytest

from periscope.captions.cache import CaptionCache
from periscope.core import (
    Finished,
    FinishReason,
    Footprint,
    GenerationParams,
    GenerationRequest,
    OutputEvent,
    TextDelta,
    TokenText,
    Usage,
    VisionMode,
    Waiting,
)
from periscope.errors import InvalidRequest, ServerStopping
from periscope.events import EventBus
from periscope.pool.contracts import LoadProgress, ModelSpec, PoolLimits
from periscope.pool.pool import ModelPool
from periscope.serving.generators import GeneratorFacts
from periscope.serving.models import ModelNames, ServedModel
from periscope.serving.requests import LiveRequests
from periscope.serving.service import ChatService
from periscope.vision.proxy import VisionProxy
from periscope.vision.settings import ProxySettings
from tests.pool.fakes import FakeEngine, FakeMemory, FakeModel
from tests.serving.rooms import CIRCLE, ScriptedCaptioner, request, user

USAGE = Usage(num_prompt_tokens=7, num_completion_tokens=2, num_cached_tokens=0)
DEFAULTS = GenerationParams(temperature=0.0, max_tokens=6)


class ScriptedGenerator(FakeEngine):
    """Answers every request with two words. `failure` is raised before the first, `gate` blocks the second."""

    facts = GeneratorFacts(context_length=4096, has_tools=True, has_reasoning=False, is_batched=True)

    def __init__(self) -> None:
        super().__init__(FakeModel("remote"))
        self.asked: list[GenerationRequest] = []
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.num_open = 0

    async def tokens_of(self, prompt: str | GenerationRequest, *, adds_special_tokens: bool) -> tuple[TokenText, ...]:
        text = prompt if isinstance(prompt, str) else prompt.messages[-1].text
        words = ["<s>", *text.split()] if adds_special_tokens else text.split()
        return tuple(TokenText(number, word, word.encode()) for number, word in enumerate(words))

    async def text_of(self, token_ids: Sequence[int]) -> str:
        if self.failure is not None:
            raise self.failure
        return " ".join(map(str, token_ids))

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[OutputEvent, None]:
        self.asked.append(request)
        self.num_open += 1
        try:
            if self.failure is not None:
                raise self.failure
            yield TextDelta("Good")
            await self.gate.wait()
            yield TextDelta(" day")
            yield Finished(FinishReason.STOP, USAGE)
        finally:
            self.num_open -= 1


class Rooms:
    """Owns a service with one model in proxy mode over a scripted generator."""

    def __init__(self) -> None:
        self.generator = ScriptedGenerator()

        async def load(_progress: LoadProgress) -> ScriptedGenerator:
            return self.generator

        async def measure() -> Footprint:
            return Footprint(100, 0)

        bus = EventBus()
        self.pool = ModelPool([ModelSpec("m", measure, load)], bus, PoolLimits(10**9), memory=FakeMemory())
        captioner, proxy = ScriptedCaptioner(), ProxySettings()
        model = ServedModel("m", (), 0, None, VisionMode.PROXY, DEFAULTS, captioner=captioner, proxy=proxy)
        requests = LiveRequests(bus.publish)
        self.service = ChatService(ModelNames([model]), self.pool, VisionProxy(CaptionCache()), requests)

    async def answer(self, *parts: str) -> list[OutputEvent]:
        async with aclosing(self.service.stream(request(user(*parts)))) as events:
            return [event async for event in events if not isinstance(event, Waiting)]


def with_rooms(use: Callable[[Rooms], Awaitable[None]]) -> None:
    async def run() -> None:
        rooms = Rooms()
        try:
            await use(rooms)
        finally:
            await rooms.pool.close()

    asyncio.run(asyncio.wait_for(run(), 20))


def test_a_generator_of_any_kind_answers() -> None:
    """Its events are passed on; it gets the model's defaults, and captions in place of images."""

    async def use(rooms: Rooms) -> None:
        first, second, end = await rooms.answer("What is this?", CIRCLE)
        assert (first, second) == (TextDelta("Good"), TextDelta(" day"))
        assert isinstance(end, Finished)
        assert (end.finish_reason, end.usage) == (FinishReason.STOP, USAGE)
        assert end.vision is not None
        assert end.vision.num_images == 1
        (asked,) = rooms.generator.asked
        assert asked.params == DEFAULTS
        assert "a thing of 32 px" in asked.messages[-1].text
        assert not any(message.images for message in asked.messages)

    with_rooms(use)


def test_texts_and_chats_are_tokenized_by_the_model_that_is_named() -> None:
    """A picture in a chat by its description, as in an answer; a refusal gives the place back."""

    async def use(rooms: Rooms) -> None:
        told = await rooms.service.tokenize("m", "good day", adds_special_tokens=True)
        assert [token.text for token in told.tokens] == ["<s>", "good", "day"]
        assert told.context_length == 4096
        chat = await rooms.service.tokenize_chat(request(user("What is this?", CIRCLE)))
        assert "a thing of 32 px" in " ".join(token.text for token in chat.tokens)
        assert await rooms.service.detokenize("m", [7, 8]) == "7 8"
        rooms.generator.failure = InvalidRequest("no such token", param="tokens")
        with pytest.raises(InvalidRequest, match="no such token"):
            await rooms.service.detokenize("m", [9])
        assert rooms.pool.status("m").num_running == 0
        rooms.service.stop_admitting()
        with pytest.raises(ServerStopping):
            await rooms.service.tokenize("m", "good day", adds_special_tokens=True)

    with_rooms(use)


def test_without_pictures_there_is_no_vision_usage() -> None:
    """The generator's `Finished` is passed on unchanged."""

    async def use(rooms: Rooms) -> None:
        assert (await rooms.answer("hi"))[-1] == Finished(FinishReason.STOP, USAGE)

    with_rooms(use)


def test_a_generator_that_refuses_gives_its_place_back() -> None:
    """Its error reaches the client unchanged, and the lease is released."""

    async def use(rooms: Rooms) -> None:
        rooms.generator.failure = InvalidRequest("The schema cannot be used.", param="response_format")
        with pytest.raises(InvalidRequest, match="schema"):
            await rooms.answer("hi")
        assert rooms.pool.status("m").num_running == 0
        rooms.generator.failure = None
        assert len(await rooms.answer("hi")) == 3

    with_rooms(use)


def test_a_disconnect_ends_the_generators_work() -> None:
    """A remote request is cancelled like a local one: its stream is closed with the client's."""

    async def use(rooms: Rooms) -> None:
        rooms.generator.gate.clear()
        events = rooms.service.stream(request(user("hi")))
        while not isinstance(await anext(events), TextDelta):
            pass
        assert rooms.generator.num_open == 1
        await events.aclose()
        assert rooms.generator.num_open == 0
        assert rooms.pool.status("m").num_running == 0

    with_rooms(use)


def test_the_list_of_models_tells_a_loaded_generators_facts() -> None:
    """Before the load they are unknown."""

    async def use(rooms: Rooms) -> None:
        (card,) = rooms.service.models()
        assert (card.context_length, card.has_tools, card.is_batched) == (None, None, None)
        await rooms.answer("hi")
        (card,) = rooms.service.models()
        assert (card.context_length, card.has_tools, card.has_reasoning, card.is_batched) == (4096, True, False, True)

    with_rooms(use)
