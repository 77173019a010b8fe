"""Pixels in the place of images, for models that see them: where they stand, how many, and how long they are held."""

from __future__ import annotations

from dataclasses import replace

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.core import Image, Message, TextPart
from periscope.errors import ImageInvalid
from periscope.vision.images.in_flight import BytesInFlight
from periscope.vision.images.limits import ImageLimits
from periscope.vision.intake import ImageIntake
from periscope.vision.native import NativeVision, num_left_out
from periscope.vision.settings import ProxySettings
from tests.vision.chats import BLUE, CUT_OFF, GREEN, RED, SETTINGS
from tests.vision.documents.pdfs import asked, file_part, picture_pdf, text_pdf
from tests.vision.fakes import conversation, encoded, run
from tests.vision.videos.movies import movie, video_part


def limited(**limits: int) -> ProxySettings:
    return replace(SETTINGS, limits=replace(ImageLimits(), **limits))


def what_stands_in(message: Message) -> list[str | tuple[int, int]]:
    """Its texts, and the sizes of its images."""
    return [
        part.text if isinstance(part, TextPart) else (part.width, part.height)
        for part in message.parts
        if isinstance(part, (TextPart, Image))
    ]


def test_each_image_becomes_pixels_where_it_stood() -> None:
    """In every turn, scaled down to the limit; texts are as they were, and the usage counts the images."""

    async def test() -> None:
        shown = await NativeVision().shown(conversation(["a", RED, "b"], [BLUE]), limited(max_side_px=320))
        with shown:
            assert [what_stands_in(message) for message in shown.messages] == [["a", (4, 3), "b"], [(320, 240)]]
            (red,) = (part for part in shown.messages[0].parts if isinstance(part, Image))
            assert red.rgb == b"\xff\0\0" * 12
            assert (shown.vision.num_images, shown.vision.num_failed) == (2, 0)

    run(test())


def test_files_are_dropped_and_pixels_held_until_the_answer_is_there() -> None:
    """What a request holds is what its rows need, and nothing once it has ended."""

    async def test() -> None:
        in_flight = BytesInFlight()
        native = NativeVision(ImageIntake(in_flight=in_flight))
        with await native.shown(conversation([RED, BLUE]), SETTINGS):
            assert in_flight.held_bytes == 3 * (4 * 3 + 640 * 480)
        assert in_flight.held_bytes == 0

    run(test())


def test_an_image_that_cannot_be_decoded_is_the_client_s_error_and_holds_nothing() -> None:
    """It names the part."""

    async def test() -> None:
        in_flight = BytesInFlight()
        native = NativeVision(ImageIntake(in_flight=in_flight))
        with pytest.raises(ImageInvalid) as caught:
            await native.shown(conversation([RED], [CUT_OFF]), SETTINGS)
        assert caught.value.param == "messages[1].content[0]"
        assert in_flight.held_bytes == 0

    run(test())


def test_beyond_the_limit_the_oldest_images_say_that_they_are_not_shown() -> None:
    """They keep their number and size; the newest are shown."""

    async def test() -> None:
        with await NativeVision().shown(conversation([RED], [GREEN], [BLUE]), limited(max_images=2)) as shown:
            (first, *others) = (what_stands_in(message) for message in shown.messages)
            assert others == [[(4, 3)], [(640, 480)]]
            assert shown.vision.num_failed == 1
            (told,) = first
            assert isinstance(told, str)
            assert told.startswith(
                "[Image 1, 4x3 px, could not be read: the model is shown at most the newest 2 images"
            )

    run(test())


@given(st.integers(0, 300), st.integers(1, 64))
def test_the_beginning_of_a_long_conversation_holds_for_several_turns(num_images: int, most: int) -> None:
    """Never more than the limit is shown, nor less than half of it; what is left out stays so and grows in steps."""
    left_out = num_left_out(num_images, most)
    assert num_images - left_out <= most
    assert not left_out or num_images - left_out >= most - max(most // 2, 1) + 1
    step = max(most // 2, 1)
    assert left_out % step == 0
    assert left_out <= num_left_out(num_images + 1, most) <= left_out + step


def test_an_image_that_is_not_all_of_its_file_is_shown_with_a_word() -> None:
    """The model sees the first frame of an animation, and knows that there are more."""
    frames = [PIL.Image.new("RGB", (6, 4), color) for color in ("red", "blue")]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])

    async def test() -> None:
        with await NativeVision().shown(conversation([moving]), SETTINGS) as shown:
            label, size = what_stands_in(shown.messages[0])
            assert label == "[This is image 1, the first of several frames.]"
            assert isinstance(size, tuple)

    run(test())


def test_pages_of_documents_are_shown_with_their_number_and_text_pages_are_text() -> None:
    """A scan is a picture for a model that sees; text is text."""

    async def test() -> None:
        scan = file_part(picture_pdf(PIL.Image.new("RGB", (40, 20), "red")), "scan.pdf")
        letter = file_part(text_pdf("Dear Sir"), "letter.pdf", param="messages[0].content[1]")
        with await NativeVision().shown([asked(scan, letter, "what?")], SETTINGS) as shown:
            label, page, text, question = what_stands_in(shown.messages[0])
            assert label == "[This is document 1, page 1.]"
            assert isinstance(page, tuple)
            assert isinstance(text, str)
            assert "Dear Sir" in text
            assert question == "what?"

    run(test())


def test_frames_of_a_video_are_shown_with_their_times() -> None:
    """In order, each with its pixels."""

    async def test() -> None:
        with await NativeVision().shown([asked(video_part(movie("red", "blue")), "what?")], SETTINGS) as shown:
            stands = what_stands_in(shown.messages[0])
            assert [part for part in stands if isinstance(part, tuple)] == [(64, 48)] * 2
            times = [part for part in stands if isinstance(part, str) and part.startswith("[This is video 1, at ")]
            assert len(times) == 2

    run(test())
