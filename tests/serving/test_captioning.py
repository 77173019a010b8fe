"""Requests with images: captions before the answer, and what clients get when captioning fails, hangs or ends early."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from periscope.captions.cache import CaptionCache
from periscope.core import ImagePart, Message, Role, TextPart, Waiting, WaitStatus
from periscope.engine import InferenceEngine
from periscope.errors import CaptionFailed, InvalidRequest
from periscope.vision.proxy import VisionProxy
from periscope.vision.settings import ProxySettings
from tests.e2e.drawing import circle, data_url
from tests.serving.rooms import CIRCLE, SQUARE, Rooms, events_of, finished, request, user, with_rooms


def test_the_prompt_of_turn_two_starts_with_the_prompt_of_turn_one(tiny_text_model: Path) -> None:
    """For the same image the captioner does not run again, and every token of the earlier prompt is the same."""

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
    """The usage counts images, cache hits and caption tokens separately."""

    async def use(rooms: Rooms) -> None:
        one = finished(await events_of(rooms, request(user("what?", CIRCLE)))).vision
        two = finished(await events_of(rooms, request(user("what?", CIRCLE), user(SQUARE)))).vision
        assert one is not None
        assert two is not None
        assert (one.num_images, one.num_cache_hits, one.num_caption_tokens) == (1, 0, 5)
        assert (two.num_images, two.num_cache_hits, two.num_caption_tokens) == (2, 1, 5)

    with_rooms(tiny_text_model, use)


def test_text_is_served_while_the_captioner_hangs(tiny_text_model: Path) -> None:
    """A hanging captioner does not delay requests without images."""

    async def use(rooms: Rooms) -> None:
        rooms.captioner.gate.clear()
        looking = asyncio.create_task(events_of(rooms, request(user(CIRCLE))))
        await rooms.captioner.entered.wait()
        assert finished(await events_of(rooms, request(user("hi"))))
        rooms.captioner.gate.set()
        assert (await looking)[0] == Waiting(WaitStatus.CAPTIONING)

    with_rooms(tiny_text_model, use)


def test_a_disconnect_while_captioning_cancels_the_captioner(tiny_text_model: Path) -> None:
    """No image is captioned for a client that has disconnected."""

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


def test_captions_alone_come_in_order_and_share_the_cache(tiny_text_model: Path) -> None:
    """An image that a chat has had captioned is not captioned again; a model without a captioner says so."""

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
