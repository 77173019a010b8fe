"""Image formats that are read, and those that are refused by name. The format is recognised by a file's first bytes.

The Pillow plugin of the format is called directly: nothing else that Pillow can open is ever tried.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Final, cast

from PIL import ImageFile, features

from periscope.errors import ImageInvalid


@dataclass(frozen=True, slots=True)
class Format:
    """A format that is read: how its files begin, and the class that reads them, by the module that it is in.

    The module, and the C library that some have, is imported for the first picture of the format: few servers are ever
    sent all of them.
    """

    name: str
    magic: re.Pattern[bytes]
    module: str
    reader: str
    is_optional: bool = False

    def open(self, file: io.BytesIO) -> ImageFile.ImageFile:
        """Read the header.

        Raises:
            Exception: the file is broken, in whichever way the plugin says it.
        """
        reader = getattr(import_module(self.module), self.reader)
        return cast("ImageFile.ImageFile", reader(file))


_FORMATS: Final = (
    Format("JPEG", re.compile(rb"\xff\xd8\xff"), "PIL.JpegImagePlugin", "JpegImageFile"),
    Format("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), "PIL.PngImagePlugin", "PngImageFile"),
    Format("WebP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "PIL.WebPImagePlugin", "WebPImageFile", is_optional=True),
    Format("GIF", re.compile(rb"GIF8[79]a"), "PIL.GifImagePlugin", "GifImageFile"),
    Format("BMP", re.compile(rb"BM"), "PIL.BmpImagePlugin", "BmpImageFile"),
    Format("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]"), "PIL.TiffImagePlugin", "TiffImageFile"),
    Format(
        "AVIF",
        # The brand stands first, or among those that the file is compatible with.
        re.compile(rb".{4}ftyp(?:avi[fs]|(?:mif1|msf1).{4}(?:.{4}){0,7}?avi[fs])", re.DOTALL),
        "PIL.AvifImagePlugin",
        "AvifImageFile",
        is_optional=True,
    ),
    # libheif decodes no more pixels than the header says, so the limit on them holds here, too.
    Format(
        "HEIC",
        re.compile(rb".{4}ftyp(?:he[iv][cmsx]|mif1|msf1)", re.DOTALL),
        "pillow_heif",
        "HeifImageFile",
        is_optional=True,
    ),
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


@functools.cache
def _missing_formats() -> frozenset[str]:
    """Names of the formats that this server is without: Pillow can be built without two, and one is an extra.

    Loads the libraries of those that are there.
    """
    found = {"WebP": features.check("webp"), "AVIF": features.check("avif"), "HEIC": find_spec("pillow_heif")}
    return frozenset(name for name, is_there in found.items() if not is_there)


def supported_formats() -> tuple[str, ...]:
    """Names of the formats that are read, as error messages list them."""
    return tuple(entry.name for entry in _FORMATS if entry.name not in _missing_formats())


def format_of(data: bytes, *, param: str, missing: Collection[str] | None = None) -> Format:
    """Pure: the format of an image file.

    Args:
        missing: names of formats that this server is without; None = find out.

    Raises:
        ImageInvalid: it is none that is read; a format that clients often send is named.
    """
    found = next((entry for entry in _FORMATS if entry.magic.match(data)), None)
    if found is None:
        raise _unknown_format(data, param)
    if found.is_optional and found.name in (_missing_formats() if missing is None else missing):
        fix = " or install `mlx-periscope[heif]` on the server" if found.name == "HEIC" else ""
        raise _not_supported(f"a {found.name} picture", fix, param)
    return found


def unreadable(param: str) -> ImageInvalid:
    """The error for an image that is broken, cut off or of an unknown format."""
    return ImageInvalid(
        f"`{param}` could not be read as an image: it is cut off, broken or of another format. "
        f"Supported are {', '.join(supported_formats())}.",
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
        f"Supported are {', '.join(supported_formats())}.",
        param=param,
    )
