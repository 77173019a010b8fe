"""Formats that are not read are named, and HEIC is read where its extra is installed."""

from __future__ import annotations

import struct

import PIL.Image
import PIL.PngImagePlugin
import pytest

from periscope.errors import ImageInvalid
from periscope.vision.images.formats import format_of, supported_formats
from periscope.vision.images.limits import ImageLimits
from tests.vision.fakes import encoded
from tests.vision.images.decoding import (
    ORIENTATION,
    PARAM,
    decoded,
    header_of,
    heic,
    is_near,
    needs_heif,
    pixel,
)


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


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"mif1"])
def test_without_its_extra_heic_is_named(brand: bytes) -> None:
    """Whoever sends a photo of an iPhone reads what it is, how to convert it, and what the server needs."""
    with pytest.raises(ImageInvalid, match=r"is a HEIC picture.*Convert it to JPEG or PNG.*`mlx-periscope\[heif\]`"):
        format_of(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic", param=PARAM, missing={"HEIC"})


@needs_heif
def test_a_photo_of_an_iphone_is_read_upright() -> None:
    """With the extra `heif`: its size is known before it is decoded, turned as its EXIF says."""
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = 6
    picture = PIL.Image.new("RGB", (64, 32), "red")
    picture.paste("blue", (32, 0, 64, 32))
    data = heic(picture, exif=exif.tobytes())
    assert (header_of(data).width, header_of(data).height) == (32, 64)
    image = decoded(data, ImageLimits(max_side_px=16))
    assert (image.width, image.height, image.source_width, image.source_height) == (8, 16, 32, 64)
    assert is_near(pixel(image, 4, 2), (255, 0, 0))
    assert is_near(pixel(image, 4, 13), (0, 0, 255))
    assert "HEIC" in supported_formats()


@needs_heif
def test_a_heic_picture_is_bounded_by_its_header() -> None:
    """Neither one that says how large it is, nor one that says less than it holds, is decoded beyond the limit."""
    data = heic(PIL.Image.new("RGB", (400, 200), "red"))
    with pytest.raises(ImageInvalid, match=r"400 x 200 = 80,000 pixels; at most 79,999 are taken"):
        header_of(data, ImageLimits(max_source_pixels=79_999))
    size = data.index(b"ispe") + 8
    lying = data[:size] + struct.pack(">II", 64, 64) + data[size + 8 :]
    assert header_of(lying).width == 64
    for broken in (lying, data[:-40]):
        with pytest.raises(ImageInvalid, match="could not be read as an image"):
            decoded(broken)
