"""Image formats that are read, and those that are refused by name. The format is recognised by a file's first bytes.

The Pillow plugin of the format is called directly: nothing else that Pillow can open is ever tried.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.util import find_spec
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


def _open_heic(file: io.BytesIO) -> ImageFile.ImageFile:
    """Pillow has no plugin for HEIC. libheif is loaded here because few servers are ever sent such a picture."""
    from pillow_heif import HeifImageFile

    picture: ImageFile.ImageFile = HeifImageFile(file)
    return picture


_FORMATS: Final = (
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
    # libheif decodes no more pixels than the header says, so the limit on them holds here, too.
    Format("HEIC", re.compile(rb".{4}ftyp(?:he[iv][cmsx]|mif1|msf1)", re.DOTALL), _open_heic),
)
#: Formats that clients send as images and that are not supported: a name for the error message, and their first bytes.
#: Documents and videos are taken where their bytes come with the request, and so only the web leads here.
_OTHER_FORMATS: Final = (
    ("a JPEG XL picture", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL ")),
    ("a JPEG 2000 picture", re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ")),
    ("an SVG drawing", re.compile(rb"(?:\xef\xbb\xbf)?\s{0,99}(?:<\?xml[^>]{0,200}>\s{0,99})?<svg[\s>]")),
    ("an icon file", re.compile(rb"\0\0\x01\0")),
    ("a PDF document", re.compile(rb"%PDF-")),
    ("a video", re.compile(rb".{4}ftyp|\x1aE\xdf\xa3", re.DOTALL)),
)
_TAKEN_AS_FILES: Final = ("a PDF document", "a video")
#: Pillow can be built without the first two, and the last one is an extra.
_MISSING: Final = {
    name
    for name, is_there in (
        ("WebP", WebPImagePlugin.SUPPORTED),
        ("AVIF", AvifImagePlugin.SUPPORTED),
        ("HEIC", find_spec("pillow_heif") is not None),
    )
    if not is_there
}
#: Names of the formats that are read, as error messages list them.
SUPPORTED_FORMATS: Final = tuple(entry.name for entry in _FORMATS if entry.name not in _MISSING)


def format_of(data: bytes, *, param: str, missing: Collection[str] = _MISSING) -> Format:
    """Pure: the format of an image file.

    Args:
        missing: names of formats that this server is without.

    Raises:
        ImageInvalid: it is none that is read; a format that clients often send is named.
    """
    found = next((entry for entry in _FORMATS if entry.magic.match(data)), None)
    if found is None:
        raise _unknown_format(data, param)
    if found.name in missing:
        fix = " or install `mlx-periscope[heif]` on the server" if found.name == "HEIC" else ""
        raise _not_supported(f"a {found.name} picture", fix, param)
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
    fix = ", or send all of it in a data: URL" if named in _TAKEN_AS_FILES else ""
    return _not_supported(named, fix, param)


def _not_supported(named: str, fix: str, param: str) -> ImageInvalid:
    return ImageInvalid(
        f"`{param}` is {named}, which is not supported. Convert it to JPEG or PNG and send that{fix}. "
        f"Supported are {', '.join(SUPPORTED_FORMATS)}.",
        param=param,
    )
