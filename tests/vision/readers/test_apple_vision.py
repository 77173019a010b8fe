"""Apple's Vision through a fake of `ocrmac`: what it is asked, and where its boxes stand."""

from __future__ import annotations

from typing import Any

import PIL.Image
import pytest

from periscope.core import Image
from periscope.vision.readers.apple_vision import AppleVisionReader
from periscope.vision.readers.reader import TextBox

IMAGE = Image(rgb=bytes([255, 0, 0] * 8), width=4, height=2, source_width=4, source_height=2, sha256="0")


class FakeOCR:
    """Answers as `ocrmac.ocrmac.OCR` does: text, confidence, and x, y, width, height from the lower left, 0 to 1."""

    asked: list[dict[str, Any]]

    def __init__(self, picture: PIL.Image.Image, **options: Any) -> None:
        assert picture.getpixel((3, 1)) == (255, 0, 0)
        FakeOCR.asked.append(options)

    def recognize(self) -> list[tuple[str, float, tuple[float, float, float, float]]]:
        return [("top", 1.0, (0.25, 0.5, 0.5, 0.5))]


@pytest.mark.parametrize(
    ("languages", "asked"),
    [
        ((), {"recognition_level": "accurate"}),
        (("de-DE",), {"recognition_level": "accurate", "language_preference": ["de-DE"]}),
    ],
)
def test_boxes_are_in_pixels_from_the_upper_left(languages: tuple[str, ...], asked: dict[str, Any]) -> None:
    """The upper half of a picture of 4 x 2 pixels ends at y = 1; languages are only named if there are any."""
    FakeOCR.asked = []
    assert AppleVisionReader(languages, recognize=FakeOCR).read(IMAGE) == (TextBox("top", 1.0, 0.0, 3.0, 1.0),)
    assert FakeOCR.asked == [asked]


def test_languages_are_part_of_the_revision() -> None:
    """A text that was read in other languages is another text."""
    english, german = (AppleVisionReader((each,), recognize=FakeOCR).revision for each in ("en-US", "de-DE"))
    assert english != german
