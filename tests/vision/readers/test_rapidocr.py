"""RapidOCR with the models of its wheel reads drawn screenshots to the letter."""

from __future__ import annotations

import logging

import PIL.Image
import pytest
from PIL import ImageDraw, ImageFont

from periscope.vision.images.decode import decode
from periscope.vision.images.limits import ImageLimits
from periscope.vision.readers.layout import text_of
from periscope.vision.readers.rapidocr import RapidOCRReader
from tests.vision.fakes import encoded, rgb_image
from tests.vision.readers.pictures import TRACEBACK, drawn_screenshot, screenshot


@pytest.fixture(scope="module")
def reader() -> RapidOCRReader:
    """One for all tests: loading it takes a second."""
    return RapidOCRReader()


def text_in(reader: RapidOCRReader, data: bytes) -> list[str]:
    image = decode(data, ImageLimits(max_side_px=2000), sha256="0", param="image")
    return [line.strip() for line in text_of(reader.read(image)).splitlines()]


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(screenshot(drawn_screenshot()), id="dark terminal"),
        pytest.param(screenshot(drawn_screenshot(colors=("white", "black"), size=14)), id="small print"),
        pytest.param(screenshot(drawn_screenshot(colors=("white", "navy")), is_turned=True), id="turned by EXIF"),
    ],
)
def test_a_traceback_is_read_to_the_letter(reader: RapidOCRReader, picture: bytes) -> None:
    """The lines that say what went wrong and where, in their order."""
    assert text_in(reader, picture) == [line.strip() for line in TRACEBACK]


def test_a_picture_without_text_has_none(reader: RapidOCRReader) -> None:
    """Also one of a single pixel."""
    assert text_in(reader, encoded(PIL.Image.effect_noise((200, 100), 40))) == []
    assert reader.read(rgb_image()) == ()


@pytest.mark.parametrize(
    ("size", "colours", "lines"),
    [
        ((1920, 1080), ("black", "#dddddd"), {(10, 10): "$ make test"}),
        ((1600, 1000), ("#1e1e1e", "#d4d4d4"), {(60, 40): "import os", (60, 70): "print(os.getcwd())"}),
        ((1414, 2000), ("white", "black"), {(171, 120): "Chapter 1", (700, 1900): "17"}),
    ],
    ids=["terminal", "editor", "page"],
)
def test_a_few_words_on_a_large_blank_screen_are_read(
    reader: RapidOCRReader, size: tuple[int, int], colours: tuple[str, str], lines: dict[tuple[int, int], str]
) -> None:
    """RapidOCR by itself finds none of them; they stand in their boxes where they are drawn."""
    picture, font = PIL.Image.new("RGB", size, colours[0]), ImageFont.load_default(20)
    for place, line in lines.items():
        ImageDraw.Draw(picture).text(place, line, fill=colours[1], font=font)
    boxes = reader.read(decode(encoded(picture), ImageLimits(max_side_px=2000), sha256="0", param="image"))
    assert [box.text for box in boxes] == list(lines.values())
    for (left, top), box in zip(lines, boxes, strict=True):
        assert abs(box.left - left) < 20
        assert box.top - 5 < top + 10 < box.bottom + 5


@pytest.mark.parametrize(("colour", "size"), [("orange", (180, 160)), ("blue", (177, 160)), ("yellow", (206, 160))])
def test_a_drawn_shape_is_no_letter(reader: RapidOCRReader, colour: str, size: tuple[int, int]) -> None:
    """A disc looks like an `O` or a zero; its block would tell the text model of text that is not there."""
    picture = PIL.Image.new("RGB", size, "white")
    ImageDraw.Draw(picture).ellipse((30, 30, 130, 130), fill=colour)
    assert text_in(reader, encoded(picture)) == []


@pytest.mark.parametrize("lines", [["7"], ["A"], ["if x == 1:", "7"]])
def test_a_sign_alone_is_text_where_it_is_sure(reader: RapidOCRReader, lines: list[str]) -> None:
    """The number on a door; and beside words every sign is."""
    assert text_in(reader, screenshot(drawn_screenshot(lines, size=40))) == lines


def test_the_log_keeps_its_form(caplog: pytest.LogCaptureFixture) -> None:
    """RapidOCR gives its logger a handler of its own; a server's log has one form."""
    assert RapidOCRReader().read(rgb_image()) == ()
    assert logging.getLogger("RapidOCR").handlers == []
    assert not caplog.records
