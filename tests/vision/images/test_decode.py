"""Bytes of every format and mode become the right upright RGB pixels, or an error the client can mend."""

from __future__ import annotations

import hashlib
import struct
import zlib
from typing import Any

import PIL.Image
import PIL.PngImagePlugin
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from periscope.errors import ImageInvalid
from periscope.vision.images.decode import crop, read_header
from periscope.vision.images.formats import supported_formats
from periscope.vision.images.limits import ImageLimits
from tests.vision.fakes import encoded, png
from tests.vision.images.decoding import (
    LIMITS,
    ORIENTATION,
    PARAM,
    decoded,
    header_of,
    is_near,
    pixel,
)


def test_a_part_is_cut_out() -> None:
    """The pixels that the box names; a part that is too thin for captioners is padded like a picture that is."""
    whole = decoded(encoded(PIL.Image.linear_gradient("L").convert("RGB")))
    part = crop(whole, (10, 20, 200, 150), sha256="of the part")
    assert (part.width, part.height, part.sha256) == (190, 130, "of the part")
    assert pixel(part) == pixel(whole, 10, 20)
    assert pixel(part, 189, 129) == pixel(whole, 199, 149)
    strip = crop(whole, (0, 7, 256, 8), sha256="of the strip")
    assert (strip.width, strip.height, strip.source_width, strip.source_height) == (256, 28, 256, 1)
    assert pixel(strip, 0, 13) == pixel(whole, 0, 7)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_every_format_is_read(format_name: str) -> None:
    """The formats we name are the formats we take."""
    data = encoded(PIL.Image.new("RGB", (20, 10), (200, 100, 50)), format_name)
    image = decoded(data)
    assert (image.width, image.height, image.source_width, image.source_height) == (20, 10, 20, 10)
    assert len(image.rgb) == 20 * 10 * 3
    assert is_near(pixel(image), (200, 100, 50))
    assert image.sha256 == "of the file"
    assert header_of(data).sha256 == hashlib.sha256(data).hexdigest()
    assert format_name.lower() in {name.lower() for name in supported_formats()}


def gradient(mode: str, values: list[Any]) -> PIL.Image.Image:
    picture = PIL.Image.new(mode, (len(values), 1))
    picture.putdata(values)
    return picture


@pytest.mark.parametrize(
    ("picture", "format_name", "gray"),
    [
        (gradient("I;16", [0, 32768, 65535]), "PNG", [0, 127, 255]),
        (gradient("I;16", [0, 32768, 65535]), "TIFF", [0, 127, 255]),
        (gradient("I;16", [0, 300, 257]), "TIFF", [0, 1, 1]),
        (gradient("I", [0, 100, 255]), "TIFF", [0, 100, 255]),
        (gradient("I", [0, 32768, 65535]), "TIFF", [0, 127, 255]),
        (gradient("I", [-100_000, 0, 100_000]), "TIFF", [0, 127, 255]),
        (gradient("I", [70_000, 70_000]), "TIFF", [255, 255]),
        (gradient("F", [0.0, 0.5, 1.0]), "TIFF", [0, 127, 255]),
        (gradient("F", [0.0, 100.0, 255.0]), "TIFF", [0, 100, 255]),
        (gradient("F", [-1.0, 0.0, 1.0]), "TIFF", [0, 127, 255]),
        (gradient("F", [0.0, 0.0]), "TIFF", [0, 0]),
        (gradient("L", [0, 100, 255]), "PNG", [0, 100, 255]),
        (gradient("1", [0, 255]), "PNG", [0, 255]),
    ],
)
def test_gray_of_any_depth_keeps_its_scale(picture: PIL.Image.Image, format_name: str, gray: list[int]) -> None:
    """16 and 32 bits and floats become 8 bits without being cut off at white."""
    image = decoded(encoded(picture, format_name))
    assert [pixel(image, x)[0] for x in range(image.width)] == pytest.approx(gray, abs=1)
    assert all(len(set(pixel(image, x))) == 1 for x in range(image.width))


def test_floats_without_a_range_are_refused() -> None:
    """Values that have no brightest one cannot be scaled."""
    for values in ([0.0, float("inf")], [float("-inf"), 0.0], [float("nan"), 0.0]):
        with pytest.raises(ImageInvalid):
            decoded(encoded(gradient("F", values), "TIFF"))


def transparent_palette() -> PIL.Image.Image:
    picture = PIL.Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putdata([0, 1])
    return picture


@pytest.mark.parametrize(
    ("data", "first", "second"),
    [
        (encoded(gradient("RGBA", [(255, 0, 0, 255), (0, 0, 0, 0)])), (255, 0, 0), (255, 255, 255)),
        (encoded(gradient("RGBA", [(255, 0, 0, 128), (0, 0, 0, 128)])), (255, 127, 127), (127, 127, 127)),
        (encoded(gradient("LA", [(10, 255), (10, 0)])), (10, 10, 10), (255, 255, 255)),
        (encoded(transparent_palette(), transparency=1), (255, 0, 0), (255, 255, 255)),
        (encoded(transparent_palette(), "GIF", transparency=1), (255, 0, 0), (255, 255, 255)),
        (encoded(transparent_palette()), (255, 0, 0), (0, 0, 255)),
        (encoded(gradient("RGB", [(1, 2, 3), (9, 9, 9)]), transparency=(9, 9, 9)), (1, 2, 3), (255, 255, 255)),
        (encoded(gradient("CMYK", [(0, 0, 0, 0), (0, 255, 255, 0)]), "TIFF"), (255, 255, 255), (255, 0, 0)),
    ],
    ids=["rgba", "half", "la", "palette", "gif", "opaque palette", "rgb with a see-through colour", "cmyk"],
)
def test_alpha_lies_over_white(data: bytes, first: tuple[int, int, int], second: tuple[int, int, int]) -> None:
    """What is transparent shows white, in every mode that can be transparent; inks become light."""
    image = decoded(data)
    assert is_near(pixel(image, 0), first, 2)
    assert is_near(pixel(image, 1), second, 2)


def test_alpha_survives_a_downscale_without_dark_edges() -> None:
    """Colour under full transparency does not bleed into what is seen."""
    picture = PIL.Image.new("RGBA", (400, 400), (0, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 200, 400))
    image = decoded(encoded(picture), ImageLimits(max_side_px=50))
    assert min(pixel(image, x, 20)[0] for x in range(image.width)) >= 250


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("max_side_px", [1024, 20])
def test_pictures_stand_upright(orientation: int, format_name: str, max_side_px: int) -> None:
    """Whatever way the camera was held, the red corner is top left and the sizes are those a person sees."""
    upright = PIL.Image.new("RGB", (64, 32), "white")
    upright.paste("red", (0, 0, 32, 16))
    turn_back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL.Image.Transpose that undoes the orientation
    stored = upright.transpose(PIL.Image.Transpose(turn_back[orientation])) if orientation > 1 else upright
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    options: dict[str, Any] = {"tiffinfo": {ORIENTATION: orientation}} if format_name == "TIFF" else {"exif": exif}
    data = encoded(stored, format_name, **options)
    limits = ImageLimits(max_side_px=max_side_px)
    image = decoded(data, limits)
    header = header_of(data, limits)
    assert (image.source_width, image.source_height) == (header.width, header.height) == (64, 32)
    assert (image.width, image.height) == ((64, 32) if max_side_px == 1024 else (20, 10))
    assert is_near(pixel(image, 2, 2), (255, 0, 0), 40)
    assert is_near(pixel(image, image.width - 3, image.height - 3), (255, 255, 255), 40)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # Pillow's JPEG reader looks for dpi there
def test_broken_exif_is_ignored() -> None:
    """A picture is still good when its metadata is not."""
    assert is_near(
        pixel(decoded(encoded(PIL.Image.new("RGB", (8, 8), "red"), "JPEG", exif=b"Exif\0\0MM\0*junk"))), (254, 0, 0)
    )


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((3000, 1500), (1024, 512)),
        ((1500, 3000), (512, 1024)),
        ((1024, 11), (1024, 11)),
        ((1, 1), (1, 1)),
        ((30_000, 400), (1024, 14)),
    ],
)
@pytest.mark.parametrize("format_name", ["JPEG", "PNG"])
def test_large_pictures_are_scaled_down(size: tuple[int, int], shown: tuple[int, int], format_name: str) -> None:
    """The longest side is cut to the limit, the shape is kept, small pictures stay as they are."""
    image = decoded(encoded(PIL.Image.new("RGB", size, "blue"), format_name))
    assert (image.width, image.height) == shown
    assert (image.source_width, image.source_height) == size
    assert is_near(pixel(image), (0, 0, 254))


@pytest.mark.parametrize(
    ("format_name", "series"),
    [("GIF", "frames"), ("WEBP", "frames"), ("PNG", "frames"), ("AVIF", "frames"), ("TIFF", "pages")],
)
def test_of_several_frames_or_pages_the_first_is_seen_and_told_to_be_one_of_them(format_name: str, series: str) -> None:
    """A picture alone in its file is not."""
    first, second = (PIL.Image.new("RGB", (5, 5), color) for color in ("red", "blue"))
    data = encoded(first, format_name, save_all=True, append_images=[second])
    assert is_near(pixel(decoded(data)), (255, 0, 0))
    assert header_of(data).series == series
    assert header_of(encoded(first, format_name)).series == ""


def test_what_is_broken_behind_the_first_frame_does_not_matter() -> None:
    first, second = (PIL.Image.new("RGB", (5, 5), color) for color in ("red", "blue"))
    alone = encoded(first, "GIF")
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    for num_bytes in range(len(alone), len(data)):
        assert header_of(data[:num_bytes]).width == 5


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


@pytest.mark.parametrize("size", [(13_000, 13_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1), (8000, 6251)])
def test_huge_pictures_are_refused_from_the_header(size: tuple[int, int]) -> None:
    """A header is enough to refuse: nothing behind it is read, and Pillow's own limit has no say and no warning."""
    data = png_header(*size) + chunk(b"IDAT", b"")
    for read in (header_of, decoded):
        with pytest.raises(ImageInvalid) as caught:
            read(data, LIMITS)
        assert f"{size[0]} x {size[1]} = {size[0] * size[1]:,} pixels; at most 50,000,000" in caught.value.message
        assert "`max_source_pixels`" in caught.value.message
        assert caught.value.param == PARAM


def test_pillows_global_limit_is_left_alone() -> None:
    """Other users of Pillow in this process keep its protection, and ours is checked without it."""
    before = PIL.Image.MAX_IMAGE_PIXELS
    header = png_header(10_000, 10_000) + chunk(b"IDAT", b"")
    assert read_header(header, ImageLimits(max_source_pixels=10**9), param=PARAM).width == 10_000
    assert before == PIL.Image.MAX_IMAGE_PIXELS


def test_a_gif_frame_beyond_its_screen_counts() -> None:
    """A tiny screen does not hide a huge frame."""
    gif = (
        b"GIF89a"
        + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0)
        + b"\2\0;"
    )
    with pytest.raises(ImageInvalid, match="max_source_pixels"):
        read_header(gif, LIMITS, param=PARAM)


def text_bomb() -> bytes:
    """A few kilobytes that unpack to more text than Pillow takes."""
    body = b"comment\0\0" + zlib.compress(bytes(PIL.PngImagePlugin.MAX_TEXT_CHUNK * 4))
    return png_header(1, 1) + chunk(b"zTXt", body) + chunk(b"IDAT", zlib.compress(bytes(4))) + chunk(b"IEND", b"")


NOISE = PIL.Image.effect_noise((64, 64), 80).convert("RGB")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"RIFF\0\0\0\0WEBP",
        b"\0\0\0\x1cftypavif",
        b"\0\0\0\x18ftypheic",
        b"%PDF-1.7",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"P6 1 1 255 abc",
        png_header(0, 5) + chunk(b"IDAT", b""),
        png_header(5, 5) + chunk(b"IEND", b""),
        text_bomb(),
        *(encoded(NOISE, name)[:-600] for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")),
    ],
)
def test_what_is_no_whole_picture_is_the_clients_fault(data: bytes) -> None:
    """Cut off, broken, empty or another format: a client error that names the field and the formats."""
    with pytest.raises(ImageInvalid) as caught:
        decoded(data)
    assert caught.value.param == PARAM
    assert PARAM in caught.value.message
    assert "JPEG, PNG, WebP, GIF, BMP, TIFF" in caught.value.message


@settings(deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]), st.data())
def test_damaged_bytes_never_raise_anything_else(format_name: str, draw: st.DataObject) -> None:
    """Any damage ends in a picture or in ImageInvalid."""
    data = bytearray(encoded(PIL.Image.new("RGB", (9, 7), "green"), format_name))
    for _ in range(draw.draw(st.integers(1, 8))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        image = decoded(bytes(data), ImageLimits(max_source_pixels=100_000))
    except ImageInvalid:
        return
    assert len(image.rgb) == image.width * image.height * 3


def test_the_header_tells_the_digest_and_needs_no_pixels() -> None:
    """Reading the header of a cut-off picture works: what is in the cache is not decoded again."""
    data = png(size=(30, 20))
    header = header_of(data)
    assert (header.width, header.height, header.sha256) == (30, 20, hashlib.sha256(data).hexdigest())
    assert read_header(data[:-20], LIMITS, param=PARAM).width == 30


@pytest.mark.parametrize(
    ("size", "shown", "corner"),
    [
        ((1093, 5), (1024, 28), (255, 255, 255)),
        ((1, 4000), (28, 1024), (255, 255, 255)),
        ((1, 101), (28, 101), (255, 255, 255)),
        ((100, 1), (100, 1), (255, 0, 0)),
        ((1, 1), (1, 1), (255, 0, 0)),
        ((1000, 10), (1000, 10), (255, 0, 0)),
    ],
)
def test_a_strip_is_padded_until_captioners_take_it(
    size: tuple[int, int], shown: tuple[int, int], corner: tuple[int, int, int]
) -> None:
    """White edges on both sides, the strip in the middle with its proportions; its size is told as it was."""
    image = decoded(png("red", size))
    assert (image.width, image.height) == shown
    assert (image.source_width, image.source_height) == size
    assert pixel(image, (shown[0] - 1) // 2, (shown[1] - 1) // 2) == (255, 0, 0)
    assert pixel(image) == corner


def test_a_wide_limit_keeps_the_proportions_bearable() -> None:
    """Where larger pictures are shown, a strip has to be wider, too."""
    image = decoded(png("red", (8000, 3)), ImageLimits(max_side_px=8192))
    assert (image.width, image.height) == (8000, 80)
