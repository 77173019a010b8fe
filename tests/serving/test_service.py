"""ChatService over a real (tiny) text model: answers, models, and requests that are cancelled on their way."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from periscope.core import FinishReason, GenerationParams, GenerationRequest, TextDelta, VisionMode, Waiting, WaitStatus
from periscope.engine import InferenceEngine
from periscope.errors import ModelNotFound, ServerStopping
from periscope.serving.health import HealthStatus
from tests.serving.rooms import Rooms, events_of, finished, request, user, with_rooms


def test_a_text_chat_ends_with_its_reason_and_usage(tiny_text_model: Path) -> None:
    """It gives deltas, then one Finished with the counts of the text model and no vision usage."""

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


def test_a_request_cancelled_while_the_model_loads_gives_up_its_place(tiny_text_model: Path) -> None:
    """A cancelled request holds no lease, and the load goes on for others."""

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


def test_a_request_cancelled_while_decoding_frees_row_and_lease(tiny_text_model: Path) -> None:
    """Closing the stream in the middle of an answer releases everything."""

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


def test_the_status_tells_how_fast_answers_are_written(tiny_text_model: Path) -> None:
    """Nothing while a request waits, something as soon as its answer has begun."""

    async def use(rooms: Rooms) -> None:
        rates: dict[type, float] = {}
        async with aclosing(rooms.service.stream(request(user("hi")))) as events:
            async for event in events:
                rates.setdefault(type(event), rooms.control.status().tokens_per_s)
        assert rates[Waiting] == 0
        assert rates[TextDelta] > 0

    with_rooms(tiny_text_model, use)


def test_unknown_models_and_a_stopping_server_say_so(tiny_text_model: Path) -> None:
    """The error for an unknown model lists the names that exist; a stopping server accepts no new request."""

    async def use(rooms: Rooms) -> None:
        with pytest.raises(ModelNotFound, match="seeing, blind"):
            await events_of(rooms, request(user("hi"), model="gpt-9"))
        rooms.service.stop_admitting()
        assert rooms.service.health().status is HealthStatus.STOPPING
        with pytest.raises(ServerStopping):
            await events_of(rooms, request(user("hi")))

    with_rooms(tiny_text_model, use)


def test_models_are_told_before_anything_is_loaded(tiny_text_model: Path) -> None:
    """The list does not block, is in order, and has each model's vision."""

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
