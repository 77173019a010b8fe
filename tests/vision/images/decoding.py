"""Pictures as files and as pixels: what the tests of decoding compare."""

from __future__ import annotations

import io
from importlib.util import find_spec
from typing import Any

import PIL.Image
import PIL.PngImagePlugin
import pytest

from periscope.core import Image
from periscope.vision.images.decode import ImageHeader, decode, read_header
from periscope.vision.images.limits import ImageLimits

LIMITS = ImageLimits()
PARAM = "messages[0].content[1]"
ORIENTATION = 0x0112
needs_heif = pytest.mark.skipif(find_spec("pillow_heif") is None, reason="needs the extra `heif`")


def heic(picture: PIL.Image.Image, **options: Any) -> bytes:
    from pillow_heif import from_pillow

    file = io.BytesIO()
    from_pillow(picture).save(file, quality=90, **options)
    return file.getvalue()


def decoded(data: bytes, limits: ImageLimits = LIMITS) -> Image:
    return decode(data, limits, sha256="of the file", param=PARAM)


def header_of(data: bytes, limits: ImageLimits = LIMITS) -> ImageHeader:
    return read_header(data, limits, param=PARAM)


def pixel(image: Image, x: int = 0, y: int = 0) -> tuple[int, int, int]:
    start = (y * image.width + x) * 3
    red, green, blue = image.rgb[start : start + 3]
    return red, green, blue


def is_near(actual: tuple[int, int, int], wanted: tuple[int, int, int], tolerance: int = 6) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(actual, wanted, strict=True))
