"""Under overload requests are refused early, and waiting or refused requests cost the others nothing."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import ExitStack, aclosing
from pathlib import Path

import pytest

from periscope.core import (
    GenerationParams,
    GenerationRequest,
    ImagePart,
    Message,
    Role,
    TextDelta,
    TextPart,
    Waiting,
    WaitStatus,
)
from periscope.errors import ServerBusy, ServerStopping
from periscope.vision.settings import OnError
from tests.e2e.drawing import circle, data_url
from tests.serving.rooms import CIRCLE, SQUARE, Rooms, events_of, finished, request, user, with_rooms
from tests.tiny_models import write_text_model


class Url(str):
    """A `data:` URL whose last reference can be waited for."""

    __slots__ = ("__weakref__",)


def test_a_full_queue_is_an_error_before_any_captioner_works(tiny_text_model: Path) -> None:
    """No captions are made for a request that its text model refuses."""

    async def use(rooms: Rooms) -> None:
        with ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(rooms.pool.ticket("seeing"))
            with pytest.raises(ServerBusy, match="seeing is busy"):
                await events_of(rooms, request(user("what?", CIRCLE)))
            assert not rooms.captioner.entered.is_set()
        assert finished(await events_of(rooms, request(user("what?", CIRCLE))))

    with_rooms(tiny_text_model, use)


def test_a_place_is_kept_while_images_are_described_and_others_are_served(tiny_text_model: Path) -> None:
    """It counts in the queue, holds no lease, and is still there when the captions are made."""

    async def use(rooms: Rooms) -> None:
        rooms.captioner.gate.clear()
        looking = [asyncio.create_task(events_of(rooms, request(user(image)))) for image in (CIRCLE, SQUARE)]
        while rooms.pool.status("seeing").num_waiting < 2:
            await asyncio.sleep(0)
        assert finished(await events_of(rooms, request(user("hi"))))
        assert (rooms.pool.status("seeing").num_running, rooms.pool.status("seeing").num_waiting) == (0, 2)
        with rooms.pool.ticket("seeing"), rooms.pool.ticket("seeing"):
            with pytest.raises(ServerBusy):  # for those with images: others have room to wait
                await events_of(rooms, request(user(CIRCLE)))
            rooms.captioner.gate.set()
            await asyncio.sleep(0)
        for task in looking:
            assert finished(await task).vision is not None
        assert rooms.pool.status("seeing").num_running == rooms.pool.status("seeing").num_waiting == 0

    with_rooms(tiny_text_model, use)


@pytest.mark.parametrize("on_error", OnError)
def test_a_busy_captioner_is_busy_for_chats_and_for_captions(tiny_text_model: Path, on_error: OnError) -> None:
    """Whatever `on_error` is, no answer says that an image could not be read."""

    async def use(rooms: Rooms) -> None:
        rooms.captioner.busy = ServerBusy("Its queue is full.", retry_after_s=9)
        for asked in (events_of(rooms, request(user(CIRCLE))), rooms.service.caption("", (ImagePart(CIRCLE, "i"),))):
            with pytest.raises(ServerBusy) as caught:
                await asked
            assert caught.value.retry_after_s == 9
        assert rooms.pool.status("seeing").num_waiting == 0
        assert rooms.control.requests() == ()

    with_rooms(tiny_text_model, use, on_error=on_error)


def test_a_stopping_server_refuses_requests_whose_images_are_captioned(tiny_text_model: Path) -> None:
    """Their places are refused at once, the captioner is cancelled, and no image gets a marker."""

    async def use(rooms: Rooms) -> None:
        rooms.captioner.gate.clear()
        looking = asyncio.create_task(events_of(rooms, request(user(CIRCLE))))
        await rooms.captioner.entered.wait()
        await rooms.pool.close()
        with pytest.raises(ServerStopping):
            await looking
        assert rooms.captioner.cancelled.is_set()

    with_rooms(tiny_text_model, use)


def test_images_are_freed_once_they_are_captioned(tiny_text_model: Path) -> None:
    """During the answer nothing holds the client's image; the list of requests still counts it."""

    async def use(rooms: Rooms) -> None:
        url = Url(CIRCLE)
        watched = weakref.ref(url)
        message = Message(Role.USER, (TextPart("what?"), ImagePart(url, "messages[0].content[1]")))
        params = GenerationParams(temperature=1.0, seed=1, max_tokens=1000)
        events = rooms.service.stream(GenerationRequest("t", "", (message,), params))
        del message, url
        async with aclosing(events):
            async for event in events:
                if event == Waiting(WaitStatus.CAPTIONING):
                    assert watched() is not None
                if isinstance(event, TextDelta):
                    break
            gc.collect()
            assert watched() is None
            (row,) = rooms.control.requests()
            assert (row.status, row.num_images) == ("generating", 1)

    with_rooms(tiny_text_model, use)


def test_twenty_turns_with_a_screenshot_each_go_on_in_the_prompt_cache(tmp_path: Path) -> None:
    """In every turn the whole prompt of the last turn is cached, except its last few tokens."""

    async def use(rooms: Rooms) -> None:
        messages: tuple[Message, ...] = ()
        num_before = 0
        for number in range(20):
            messages = (*messages, user(data_url(circle("red", 33 + number))))
            usage = finished(await events_of(rooms, GenerationRequest("t", "", messages))).usage
            assert usage.num_cached_tokens >= num_before - 16
            assert usage.num_prompt_tokens > num_before
            num_before = usage.num_prompt_tokens
        assert rooms.captioner.num_captions == 20

    with_rooms(write_text_model(tmp_path / "long", context_length=4096), use)
