"""Image formats that are read, and those that are refused by name. The format is recognised by a file's first bytes.

The Pillow plugin of the format is called directly: nothing else that Pillow can open is ever tried.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from periscope.errors import ImageInvalid


@dataclass(frozen=True, slots=True)
class Format:
    """A format that is read: how its files begin, and the Pillow plugin that reads them."""

    name: str
    magic: re.Pattern[bytes]
    open: Callable[[io.BytesIO], ImageFile.ImageFile]


_ALL_FORMATS: Final = (
    Format("JPEG", re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile),
    Format("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    Format("WebP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    Format("GIF", re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    Format("BMP", re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    Format("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImagePlugin.TiffImageFile),
    Format(
        "AVIF",
        # The brand stands first, or among those that the file is compatible with.
        re.compile(rb".{4}ftyp(?:avi[fs]|(?:mif1|msf1).{4}(?:.{4}){0,7}?avi[fs])", re.DOTALL),
        AvifImagePlugin.AvifImageFile,
    ),
)
#: Formats that clients send as images and that are not supported: a name for the error message, and their first bytes.
_OTHER_FORMATS: Final = (
    ("a HEIC picture", re.compile(rb".{4}ftyp(?:he[iv][cmsx]|mif1|msf1)", re.DOTALL)),
    ("a JPEG XL picture", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL ")),
    ("a JPEG 2000 picture", re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ")),
    ("an SVG drawing", re.compile(rb"(?:\xef\xbb\xbf)?\s{0,99}(?:<\?xml[^>]{0,200}>\s{0,99})?<svg[\s>]")),
    ("an icon file", re.compile(rb"\0\0\x01\0")),
    ("a PDF document", re.compile(rb"%PDF-")),
    ("a video", re.compile(rb".{4}ftyp|\x1aE\xdf\xa3", re.DOTALL)),
)
#: Pillow can be built without these two formats.
_MISSING: Final = {
    name for name, plugin in (("WebP", WebPImagePlugin), ("AVIF", AvifImagePlugin)) if not plugin.SUPPORTED
}
_FORMATS: Final = tuple(entry for entry in _ALL_FORMATS if entry.name not in _MISSING)
#: Their names, as error messages list them.
SUPPORTED_FORMATS: Final = tuple(entry.name for entry in _FORMATS)


def format_of(data: bytes, *, param: str) -> Format:
    """Pure: the format of an image file.

    Raises:
        ImageInvalid: it is none that is read; a format that clients often send is named.
    """
    found = next((entry for entry in _FORMATS if entry.magic.match(data)), None)
    if found is None:
        raise _unknown_format(data, param)
    return found


def unreadable(param: str) -> ImageInvalid:
    """The error for an image that is broken, cut off or of an unknown format."""
    return ImageInvalid(
        f"`{param}` could not be read as an image: it is cut off, broken or of another format. "
        f"Supported are {', '.join(SUPPORTED_FORMATS)}.",
        param=param,
    )


def _unknown_format(data: bytes, param: str) -> ImageInvalid:
    """The error for an unsupported format. A format that clients often send is named, with the way to convert it."""
    named = next((name for name, magic in _OTHER_FORMATS if magic.match(data)), None)
    if named is None:
        return unreadable(param)
    return ImageInvalid(
        f"`{param}` is {named}, which is not supported. Convert it to JPEG or PNG and send that. "
        f"Supported are {', '.join(SUPPORTED_FORMATS)}.",
        param=param,
    )
