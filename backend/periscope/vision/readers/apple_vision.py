"""Apple's Vision framework as a text reader, through `ocrmac`. It runs on the Neural Engine: no GPU time, no model."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import PIL.Image

from periscope.core import Image
from periscope.vision.readers.reader import TextBox


class AppleVisionReader:
    """Reads with `VNRecognizeTextRequest`, accurate mode. Stateless.

    Args:
        languages: BCP 47 tags in order of preference (`en-US`); empty lets the framework detect the language.
        recognize: takes a PIL image and keyword arguments, as `ocrmac.ocrmac.OCR` does; tests pass a fake.
    """

    name = "apple_vision"

    def __init__(self, languages: tuple[str, ...] = (), *, recognize: Any = None) -> None:
        self._languages = languages
        self._recognize = recognize

    @property
    def revision(self) -> str:
        """The framework comes with the system, so its version is the system's."""
        return f"{version('ocrmac') if self._recognize is None else ''}/{platform.mac_ver()[0]}/{self._languages}"

    def read(self, image: Image) -> tuple[TextBox, ...]:
        """Runs of text with their boxes; see `TextReader`."""
        if self._recognize is None:
            from ocrmac.ocrmac import OCR

            self._recognize = OCR
        picture = PIL.Image.frombuffer("RGB", (image.width, image.height), image.rgb, "raw", "RGB", 0, 1)
        options = {"language_preference": list(self._languages)} if self._languages else {}
        found = self._recognize(picture, recognition_level="accurate", **options).recognize()
        return tuple(_box(text, box, image) for text, _confidence, box in found)


def _box(text: str, box: tuple[float, float, float, float], image: Image) -> TextBox:
    """The box from Vision's x, y, width and height: fractions of the image, with y upwards from its lower edge."""
    x, y, width, height = box
    bottom = (1.0 - y) * image.height
    return TextBox(text, x * image.width, bottom - height * image.height, (x + width) * image.width, bottom)
