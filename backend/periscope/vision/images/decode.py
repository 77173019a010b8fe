"""Decodes the bytes of an image file into an upright 8-bit RGB `Image`. Only this module and `formats` use Pillow.

Pure, but it blocks, so it runs in an executor thread. Pillow's process-wide pixel limit is left as it is; our own limit
is checked on the header, before pixels are decoded.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import PIL.Image
from PIL import ExifTags, ImageFile
from PIL.Image import Resampling, Transpose

from periscope.core import Image
from periscope.errors import ImageInvalid
from periscope.vision.images.formats import format_of, unreadable
from periscope.vision.images.limits import ImageLimits

#: EXIF orientation -> what makes the picture upright.
_UPRIGHT: Final = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_SIDEWAYS: Final = (Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90)
#: Captioners of the Qwen2-VL kind raise on a picture that is more than 200 times as long as wide, and all of them cut
#: pictures into patches, of 28 pixels at most: a strip thinner than both is padded.
_MAX_ASPECT: Final = 100
_MIN_STRIP_PX: Final = 28
#: What the processors of most vision models use. Lanczos, a little sharper, takes half as long again.
_FILTER: Final = Resampling.BICUBIC
#: Cheap box reduction may do the first part of a downscale, down to twice the size wanted (Pillow's own default).
_REDUCING_GAP: Final = 2.0


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What is known of an image without decoding its pixels.

    Attributes:
        width, height: in pixels, upright.
        sha256: hex digest of the whole file.
        series: what the file holds several of, "pages" or "frames", of which this is the first; empty if it is alone.
    """

    width: int
    height: int
    sha256: str
    series: str = ""


def read_header(data: bytes, limits: ImageLimits, *, param: str) -> ImageHeader:
    """Pure, may block: check the format and the size of an image file without decoding its pixels.

    Raises:
        ImageInvalid: unreadable, of another format, or over `limits.max_source_pixels`.
    """
    with _reading(limits, param):
        picture = _open(data, limits, param)
        width, height = _upright_size(picture, _transposition(picture))
        return ImageHeader(width, height, hashlib.sha256(data).hexdigest(), _series(picture))


def decode(data: bytes, limits: ImageLimits, *, sha256: str, param: str) -> Image:
    """Pure, may block: decode an image file and scale it down to `limits.max_side_px`.

    Of several pages or frames the first is taken. A strip that is too thin for captioners is padded with white.

    Args:
        sha256: of the data, from its header, so that it is not taken twice.

    Raises:
        ImageInvalid: as `read_header`, or the pixels are broken or cut off.
    """
    with _reading(limits, param):
        picture = _open(data, limits, param)
        transposition = _transposition(picture)
        source_width, source_height = _upright_size(picture, transposition)
        shown = _flat_rgb(_downscale(picture, limits.max_side_px))
        if transposition is not None:
            shown = shown.transpose(transposition)
        shown = _padded(shown)
        return Image(
            rgb=shown.tobytes(),
            width=shown.width,
            height=shown.height,
            source_width=source_width,
            source_height=source_height,
            sha256=sha256,
        )


def crop(image: Image, box: tuple[int, int, int, int], *, sha256: str) -> Image:
    """Pure, may block: a part of a decoded image; a thin strip is padded as by `decode`.

    Args:
        box: left, top, right and bottom in pixels, inside of the image and not empty.
        sha256: identifies the part.
    """
    part = PIL.Image.frombytes("RGB", (image.width, image.height), image.rgb).crop(box)
    shown = _padded(part)
    return Image(
        rgb=shown.tobytes(),
        width=shown.width,
        height=shown.height,
        source_width=part.width,
        source_height=part.height,
        sha256=sha256,
    )


def scaled(image: Image, max_side_px: int) -> Image:
    """Pure, may block: the image, at most `max_side_px` long; a thin strip is padded as by `decode`."""
    scale = min(1.0, max_side_px / max(image.width, image.height))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    shown = _padded(PIL.Image.frombytes("RGB", (image.width, image.height), image.rgb).resize(size, _FILTER))
    return replace(image, rgb=shown.tobytes(), width=shown.width, height=shown.height)


@contextmanager
def _reading(limits: ImageLimits, param: str) -> Iterator[None]:
    """Turn whatever Pillow raises into `ImageInvalid`: the client sent the bytes and can mend them."""
    try:
        yield
    except ImageInvalid:
        raise
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise _too_many_pixels("too many", limits, param) from error
    except Exception as error:
        raise unreadable(param) from error


def _too_many_pixels(actual: str, limits: ImageLimits, param: str) -> ImageInvalid:
    return ImageInvalid(
        f"The image in `{param}` has {actual} pixels; at most {limits.max_source_pixels:,} are taken "
        "(`max_source_pixels`). Send it scaled down.",
        param=param,
    )


def _open(data: bytes, limits: ImageLimits, param: str) -> ImageFile.ImageFile:
    picture = format_of(data, param=param).open(io.BytesIO(data))
    num_pixels = picture.width * picture.height
    if num_pixels > limits.max_source_pixels:
        raise _too_many_pixels(f"{picture.width} x {picture.height} = {num_pixels:,}", limits, param)
    return picture


def _transposition(picture: ImageFile.ImageFile) -> Transpose | None:
    """The transposition that EXIF asks for; None if there is none, or EXIF is broken.

    It is read before the pixels are loaded, so that `read_header` and `decode` agree on the size.
    """
    if picture.format == "TIFF":
        return None  # Pillow turns TIFF upright itself while it loads the pixels; its size is upright from the start
    try:
        # The base class's method: PNG's own would decode the whole picture to look for EXIF behind it.
        orientation = PIL.Image.Image.getexif(picture).get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - EXIF parsers raise anything on broken bytes, and the picture is still good
        return None
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _series(picture: ImageFile.ImageFile) -> str:
    """What the file holds several of, see `ImageHeader`. They are not counted, which would take reading all of them."""
    try:
        has_more = bool(getattr(picture, "is_animated", False))  # of a GIF, the first frame is skipped to know it
    except Exception:  # noqa: BLE001 - plugins raise anything on broken bytes, and the first one is still good
        return ""
    return ("pages" if picture.format == "TIFF" else "frames") if has_more else ""


def _upright_size(picture: PIL.Image.Image, transposition: Transpose | None) -> tuple[int, int]:
    width, height = picture.size
    return (height, width) if transposition in _SIDEWAYS else (width, height)


def _downscale(picture: ImageFile.ImageFile, max_side_px: int) -> PIL.Image.Image:
    scale = max_side_px / max(picture.size)
    if scale >= 1:
        return _scalable(picture)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    # JPEG only: decodes at 1/2, 1/4 or 1/8 where that is still twice the size wanted.
    picture.draft(None, (round(width * _REDUCING_GAP), round(height * _REDUCING_GAP)))
    return _scalable(picture).resize((width, height), _FILTER, reducing_gap=_REDUCING_GAP)


def _scalable(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Load the pixels, in a mode whose neighbouring pixels can be averaged: 8 bits per channel, no palette."""
    picture.load()
    if picture.mode.startswith(("I", "F")):
        return _to_8_bits(picture)
    if picture.has_transparency_data:
        return picture if picture.mode in ("LA", "RGBA") else picture.convert("RGBA")
    return picture.convert("RGB") if picture.mode in ("1", "P") else picture


def _to_8_bits(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Convert gray of 16 or 32 bits, or of floats. `I;16` has the full scale of its type; else the values decide."""
    if picture.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
        picture = picture.convert("I")
    else:
        low, high = _full_scale(*picture.getextrema())
    factor = 255.0 / (high - low)
    gray = picture.point(lambda value: value * factor - low * factor).convert("L")
    gray.info.pop("transparency", None)  # a 16-bit gray value: means nothing now
    return gray


def _full_scale(low: float, high: float) -> tuple[float, float]:
    """Pure: the values that mean black and white. Ranges of 0..1, 8 and 16 bits are kept, others are stretched."""
    for full in (1.0, 255.0, 65535.0):
        if low >= 0.0 and high <= full and (full > 1.0 or isinstance(high, float)):
            return 0.0, full
    if not high - low < float("inf"):
        raise ValueError("the values are not finite")
    return (low, high) if high > low else (0.0, abs(high))


def _flat_rgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    if picture.mode not in ("LA", "RGBA"):
        return picture.convert("RGB")
    flat = PIL.Image.new("RGB", picture.size, "white")
    flat.paste(picture.convert("RGB"), mask=picture.getchannel("A"))
    return flat


def _padded(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Centre a thin strip in a white picture that is wide enough; return any other picture as it is."""
    long, short = max(picture.size), min(picture.size)
    if long <= short * _MAX_ASPECT:
        return picture
    least = max(_MIN_STRIP_PX, -(-long // _MAX_ASPECT))
    width, height = (max(side, least) for side in picture.size)
    canvas = PIL.Image.new("RGB", (width, height), "white")
    canvas.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
    return canvas
