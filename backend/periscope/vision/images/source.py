"""Decodes the URL of an image into its bytes. Only `data:` URLs are read; no file or connection is opened.

Messages hold nothing of a URL but a short scheme, because URLs may hold credentials or image data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from periscope.core import ImagePart
from periscope.errors import ImageInvalid, ImageSourceRefused
from periscope.vision.data_urls import decoded_base64, num_base64_bytes
from periscope.vision.images.limits import ImageLimits

#: At least two letters, because `C:` is a Windows path.
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]{1,15}):", re.IGNORECASE)
#: Long enough for every media type with parameters; a header without a comma by then is invalid.
_MAX_HEADER_CHARS: Final = 256
#: How base64 of JPEG, PNG, GIF, WebP and TIFF starts, and that of AVIF and HEIC behind the first four characters.
_BARE_BASE64: Final = re.compile(r"/9j/|iVBORw0KGgo|R0lGOD|UklGR|SUkqA|TU0AK|AAAA[A-Z]GZ0eX")

#: Bytes that are checked before the rest is decoded; every file format is recognised by fewer.
_HEAD_BYTES: Final = 1024

_USE_DATA_URL: Final = "Send the image as a data: URL."


def fetch(part: ImagePart, limits: ImageLimits, *, check_head: Callable[[bytes], object]) -> bytes:
    """Pure: the bytes of a `data:` URL, at most `limits.max_bytes` of them.

    Tolerates a missing or wrong media type, white space, percent-encoding, missing padding and the URL-safe alphabet.

    Args:
        check_head: called with the first bytes, 1024 or all of them, before the rest is decoded; raises if they begin
            no image.

    Raises:
        ImageSourceRefused: the URL is of another kind.
        ImageInvalid: it is not base64, is empty, or holds too many bytes; or what `check_head` raised.
    """
    url = part.url.strip()
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise _refused_without_scheme(url, part.param)
    match scheme[1].lower():
        case "data":
            return _read_data_url(url, part.param, limits, check_head)
        case "http" | "https":
            raise ImageSourceRefused(
                f"The image in `{part.param}` is at a remote address. This server fetches none unless "
                f"`server.remote_images.enabled` is set. {_USE_DATA_URL}",
                param=part.param,
            )
        case other:
            raise ImageSourceRefused(
                f"The image in `{part.param}` is at a `{other}:` address, which is never read. {_USE_DATA_URL}",
                param=part.param,
            )


def _refused_without_scheme(url: str, param: str) -> ImageSourceRefused:
    if _BARE_BASE64.match(url):
        return ImageSourceRefused(
            f"The image in `{param}` is base64 without an address. Put `data:image/png;base64,` in front of it.",
            param=param,
        )
    return ImageSourceRefused(
        f"The image in `{param}` is no data: URL. Paths are never read. {_USE_DATA_URL}", param=param
    )


def _read_data_url(url: str, param: str, limits: ImageLimits, check_head: Callable[[bytes], object]) -> bytes:
    comma = url.find(",", 0, _MAX_HEADER_CHARS)
    attributes = [attribute.strip().lower() for attribute in url[: max(comma, 0)].split(";")]
    if "base64" not in attributes[1:]:
        raise ImageInvalid(
            f"The image in `{param}` is no base64 data: URL. Send it as `data:image/png;base64,` and the bytes.",
            param=param,
        )
    try:
        _refuse_too_large(url, comma + 1, param, limits)
        slices = decoded_base64(url, comma + 1)
        head = _head(slices)
        if head:
            check_head(head)
        data = b"".join((head, *slices))
    except ValueError:
        raise _not_base64(param) from None
    if not data:
        raise ImageInvalid(f"The image in `{param}` is empty: its data: URL holds no bytes.", param=param)
    return data


def _refuse_too_large(url: str, start: int, param: str, limits: ImageLimits) -> None:
    if (len(url) - start) * 3 // 4 <= limits.max_bytes:
        return  # white space does not count, but if all of the text fits, it need not be counted
    num_bytes = num_base64_bytes(url, start)
    if num_bytes > limits.max_bytes:
        raise ImageInvalid(
            f"The image in `{param}` has {num_bytes:,} bytes; at most {limits.max_bytes:,} are taken "
            "(`max_image_bytes`). Send it smaller or more compressed.",
            param=param,
        )


def _head(slices: Iterator[bytes]) -> bytes:
    """The first slices, up to `_HEAD_BYTES`; usually one."""
    head = b""
    while len(head) < _HEAD_BYTES and (following := next(slices, None)) is not None:
        head += following
    return head


def _not_base64(param: str) -> ImageInvalid:
    return ImageInvalid(
        f"The image in `{param}` is not valid base64. It may be cut off or encoded twice; encode its bytes again.",
        param=param,
    )
