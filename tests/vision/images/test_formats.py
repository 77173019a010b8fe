"""Formats that cannot be read are named by their first bytes."""

from __future__ import annotations

import PIL.Image
import PIL.PngImagePlugin
import pytest

from periscope.errors import ImageInvalid
from tests.vision.fakes import encoded
from tests.vision.images.test_decode import PARAM, decoded, header_of, is_near, pixel


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\xff\x0a\0\0", "a JPEG XL picture"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"<svg>", "an SVG drawing"),
        (b"\0\0\x01\0\x01\0", "an icon file"),
        (b"%PDF-1.7", "a PDF document"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "a video"),
    ],
)
def test_a_format_that_people_send_is_named(data: bytes, name: str) -> None:
    """Whoever sends one reads what it is and what to do, not that it is broken."""
    for read in (decoded, header_of):
        with pytest.raises(ImageInvalid) as refused:
            read(data)
        told = f"`{PARAM}` is {name}, which is not supported. Convert it to JPEG or PNG and send that"
        assert refused.value.message.startswith(told)
        assert ("data: URL" in refused.value.message) == (name in ("a PDF document", "a video"))


def test_avif_is_told_by_its_other_brands_too() -> None:
    """Its container is HEIC's, and the first brand may be the container's."""
    data = encoded(PIL.Image.new("RGB", (20, 10), (200, 100, 50)), "AVIF")
    assert data[4:12] == b"ftypavif"
    assert is_near(pixel(decoded(data[:8] + b"mif1" + data[12:])), (200, 100, 50))
