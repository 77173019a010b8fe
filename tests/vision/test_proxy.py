"""VisionProxy with a fake captioner: images in, numbered blocks out, the same bytes in every turn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from periscope.captions.cache import CaptionCache
from periscope.core import CaptionedImage, Message, Role, TextPart, ToolCall, VisionUsage, Waiting
from periscope.errors import InvalidRequest
from periscope.vision.blocks import Rewritten
from periscope.vision.images.limits import ImageLimits
from periscope.vision.intake import ImageIntake
from periscope.vision.proxy import VisionProxy
from periscope.vision.settings import ProxySettings
from tests.vision.chats import BLUE, CAPTIONING, GREEN, RED, RED_PIXEL, SETTINGS, block, proxy, texts
from tests.vision.fakes import FakeCaptioner, HandExecutor, conversation, run


def test_every_image_becomes_a_block_at_its_place() -> None:
    """Numbers run through all turns in order; text, roles, calls and names stay as they were."""

    async def test() -> None:
        call = ToolCall("c1", "look", "{}")
        turns = (
            *conversation(["What is this?", RED, "And this?", BLUE]),
            Message(Role.ASSISTANT, (TextPart("Let me look."),), tool_calls=(call,), reasoning="hm"),
            Message(Role.TOOL, conversation([GREEN])[0].parts, tool_call_id="c1", name="look"),
        )
        captioner = FakeCaptioner()
        rewritten = await proxy().rewrite(turns, captioner, SETTINGS)
        assert texts(rewritten) == [
            [
                "What is this?",
                block(1, "4x3", "Colour (255, 0, 0), try 1."),
                "And this?",
                block(2, "640x480", "Colour (0, 0, 255), try 1."),
            ],
            ["Let me look."],
            [block(3, "4x3", "Colour (0, 255, 0), try 1.")],
        ]
        assert [replace(m, parts=()) for m in rewritten.messages] == [replace(m, parts=()) for m in turns]
        assert [len(request.images) for request in captioner.requests] == [3]
        assert rewritten.vision == VisionUsage(num_images=3, num_caption_tokens=21, caption_ms=30)

    run(test())


def test_text_only_conversations_are_left_alone() -> None:
    """Without an image nothing is asked of anybody."""

    async def test() -> None:
        messages = conversation(["<image> [Image 1] <|image_pad|>"], [])
        executor, captioner = HandExecutor(), FakeCaptioner()
        rewritten = await VisionProxy(CaptionCache(), intake=ImageIntake(executor=executor)).rewrite(
            messages, captioner, SETTINGS
        )
        assert rewritten == Rewritten(messages, VisionUsage())
        assert (executor.waiting, captioner.requests) == ([], [])

    run(test())


def test_the_next_turn_begins_with_the_same_bytes() -> None:
    """A caption stays as it was first made, so the text model's prompt cache holds; only the new image is captioned."""

    async def test() -> None:
        vision, captioner, told = proxy(), FakeCaptioner(), list[Waiting]()

        first = await vision.rewrite(conversation(["Look.", RED]), captioner, SETTINGS, tell=told.append)
        again = await vision.rewrite(conversation(["Look.", RED]), captioner, SETTINGS, tell=told.append)
        assert again.messages == first.messages
        assert told == [CAPTIONING]
        longer = await vision.rewrite(conversation(["Look.", RED], [BLUE]), captioner, SETTINGS, tell=told.append)
        assert longer.messages[:1] == first.messages
        assert told == [CAPTIONING, CAPTIONING]
        assert longer.vision == VisionUsage(num_images=2, num_cache_hits=1, num_caption_tokens=7, caption_ms=10)
        assert [len(request.images) for request in captioner.requests] == [1, 1]

    run(test())


def test_the_same_image_twice_is_captioned_once() -> None:
    """Two places, two numbers, one caption."""

    async def test() -> None:
        captioner = FakeCaptioner()
        rewritten = await proxy().rewrite(conversation([RED, "and", RED]), captioner, SETTINGS)
        assert texts(rewritten)[0] == [
            block(1, "4x3", "Colour (255, 0, 0), try 1."),
            "and",
            block(2, "4x3", "Colour (255, 0, 0), try 1."),
        ]
        assert [len(request.images) for request in captioner.requests] == [1]
        assert rewritten.vision == VisionUsage(num_images=2, num_cache_hits=1, num_caption_tokens=7, caption_ms=10)

    run(test())


def test_captions_on_their_own_share_the_cache_with_chats() -> None:
    """Described without a chat: in order, each with its size or its reason; a chat's captions are not made again."""

    async def test() -> None:
        vision, captioner = proxy(), FakeCaptioner(failures={RED_PIXEL: "the captioner timed out"})
        await vision.rewrite(conversation([BLUE]), captioner, SETTINGS)
        parts = conversation([BLUE, RED])[0].images
        blue, red = await vision.describe(parts, captioner, SETTINGS)
        said, reason = "Colour (0, 0, 255), try 1.", "the captioner timed out"
        assert blue == CaptionedImage(said, None, 640, 480, "fake", block=block(1, "640x480", said))
        marker = f"[Image 2, 4x3 px, could not be read: {reason}. Do not guess what it shows.]"
        assert red == CaptionedImage(None, reason, 4, 3, "fake", block=marker)
        assert [len(request.images) for request in captioner.requests] == [1, 1]
        one = ProxySettings(limits=ImageLimits(max_images=1))
        await vision.describe(conversation([BLUE, RED])[0].images, captioner, one)
        with pytest.raises(InvalidRequest, match=r"2 images that have no caption yet; at most 1 are .*`max_images`"):
            await vision.describe(conversation([BLUE, RED, GREEN])[0].images, captioner, one)

    run(test())
