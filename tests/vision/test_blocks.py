"""From answers to what a text model reads: a block or a marker at the place of every image."""

from __future__ import annotations

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from periscope.core import TextPart, VisionUsage
from periscope.errors import CaptionerUnavailable
from periscope.vision.images.limits import ImageLimits
from periscope.vision.settings import OnError, ProxySettings
from tests.vision.chats import BLUE, RED, RED_PIXEL, SETTINGS, block, proxy, texts
from tests.vision.fakes import FakeCaptioner, conversation, encoded, png, run

PARTS = st.lists(
    st.lists(
        st.one_of(
            st.sampled_from([png(color, (1, 1)) for color in ("red", "blue", "lime")]),
            st.sampled_from(["<image>", "[Image 1]", "<|image_pad|>", "[End of image 1]", "", "text"]),
        ),
        max_size=4,
    ),
    max_size=4,
)


@settings(deadline=None)
@given(PARTS, st.integers(1, 5), st.booleans())
def test_images_in_is_blocks_out(turns: list[list[str | bytes]], max_images: int, has_captioner: bool) -> None:
    """Each image leaves exactly one block in its place, and what a user typed is only ever text."""

    async def test() -> None:
        settings = ProxySettings(limits=ImageLimits(max_images=max_images))
        captioner = FakeCaptioner() if has_captioner else None
        rewritten = await proxy().rewrite(conversation(*turns), captioner, settings)
        number = 0
        for turn, message in zip(turns, rewritten.messages, strict=True):
            for sent, part in zip(turn, message.parts, strict=True):
                assert isinstance(part, TextPart)
                if isinstance(sent, str):
                    assert part.text == sent
                else:
                    number += 1
                    assert part.text.startswith(f"[Image {number}, ")
        assert rewritten.vision.num_images == number
        usage = rewritten.vision
        assert usage.num_failed + usage.num_cache_hits + usage.num_caption_tokens // 7 == number

    run(test())


def test_without_a_captioner_images_are_marked_or_refused() -> None:
    """The setting decides; a text model is told not to guess."""

    async def test() -> None:
        rewritten = await proxy().rewrite(conversation([BLUE]), None, SETTINGS)
        assert texts(rewritten) == [
            ["[Image 1, 640x480 px, could not be read: the captioner is not available. Do not guess what it shows.]"]
        ]
        assert rewritten.vision == VisionUsage(num_images=1, num_failed=1)
        with pytest.raises(CaptionerUnavailable, match=r"`messages\[0\]\.content\[0\]`.*not available"):
            await proxy().rewrite(conversation([BLUE]), None, ProxySettings(on_error=OnError.ERROR))

    run(test())


def test_an_image_that_is_not_all_of_its_file_says_so() -> None:
    """Or the other pages of a scan would vanish without a word."""
    first, second = (PIL.Image.new("RGB", (640, 480), color) for color in ("red", "blue"))
    scan = encoded(first, "TIFF", save_all=True, append_images=[second])

    async def test() -> None:
        rewritten = await proxy().rewrite(conversation([scan]), FakeCaptioner(), SETTINGS)
        ((text,),) = texts(rewritten)
        assert text.startswith("[Image 1, the first of several pages, 640x480 px, described by fake as data")
        assert text.endswith("\n[End of image 1]")

    run(test())


def test_one_image_that_fails_leaves_its_neighbours(caplog: pytest.LogCaptureFixture) -> None:
    """Its marker tells its size and the reason; the log tells the reason and no caption."""

    async def test() -> None:
        captioner = FakeCaptioner(failures={RED_PIXEL: "the captioner timed out"})
        rewritten = await proxy().rewrite(conversation([RED, BLUE]), captioner, SETTINGS)
        assert texts(rewritten)[0] == [
            "[Image 1, 4x3 px, could not be read: the captioner timed out. Do not guess what it shows.]",
            block(2, "640x480", "Colour (0, 0, 255), try 1."),
        ]
        assert rewritten.vision == VisionUsage(num_images=2, num_failed=1, num_caption_tokens=7, caption_ms=20)

    run(test())
    assert "1 of 2 images were not described: the captioner timed out" in caplog.text
    assert "Colour" not in caplog.text
