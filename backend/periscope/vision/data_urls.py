"""Decodes what follows the comma of a `data:` URL, slice by slice. Pure, may block.

Each step on a string holds the GIL, and on hundreds of megabytes it takes so long that no other request is served
meanwhile. So no step here takes more than a slice, and none copies the whole.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

import pybase64

#: A multiple of four.
_SLICE_CHARS: Final = 1024 * 1024
_WHITESPACE: Final = b" \t\r\n\f\v"
_PADDING: Final = b"=" + _WHITESPACE
_TO_STANDARD_ALPHABET: Final = bytes.maketrans(b"-_", b"+/")
#: The most of a percent escape that a slice may end with while the rest stands in the next one.
_CUT_ESCAPE_BYTES: Final = 2


def unescaped(url: str, start: int) -> Iterator[bytes]:
    """The URL from `start` on, in slices, with its percent escapes decoded; a slice may be empty.

    Characters beyond ASCII come out in UTF-8, also half of a surrogate pair.
    """
    has_escapes = url.find("%", start) >= 0
    held = b""
    for at in range(start, len(url), _SLICE_CHARS):
        piece = held + url[at : at + _SLICE_CHARS].encode(errors="surrogatepass")
        if not has_escapes:
            yield piece
            continue
        cut = piece.find(b"%", max(0, len(piece) - _CUT_ESCAPE_BYTES))
        piece, held = (piece, b"") if cut < 0 else (piece[:cut], piece[cut:])
        yield unquote_to_bytes(piece)
    yield unquote_to_bytes(held)


def num_base64_bytes(url: str, start: int) -> int:
    """How many bytes the base64 from `start` on stands for. White space and padding do not count."""
    return sum(len(piece.translate(None, _PADDING)) for piece in unescaped(url, start)) * 3 // 4


def decoded_base64(url: str, start: int) -> Iterator[bytes]:
    """The bytes that the base64 from `start` on stands for, in slices; a slice may be empty.

    White space, percent escapes, missing padding and the URL-safe alphabet are forgiven.

    Raises:
        ValueError: it is no base64.
    """
    rest, is_padded = b"", False
    for piece in unescaped(url, start):
        if is_padded and piece.strip(_PADDING):
            raise binascii.Error("digits behind the padding")
        if b"=" in piece:
            is_padded = True
            piece = piece.rstrip(_PADDING)  # noqa: PLW2901
            if b"=" in piece:
                raise binascii.Error("padding between digits")
        digits = rest + piece  # the incomplete group of the last slice begins this one
        try:
            data, rest = _groups_of_four(digits)
        except binascii.Error:
            data, rest = _groups_of_four(_standard(digits))
        yield data
    rest = _standard(rest)
    yield pybase64.b64decode(rest + b"=" * (-len(rest) % 4), validate=True)


def _groups_of_four(digits: bytes) -> tuple[bytes, bytes]:
    """The bytes of all complete groups, and the remaining digits, if any.

    Raises:
        binascii.Error: there are other characters than digits of the standard alphabet.
    """
    whole = len(digits) // 4 * 4
    return pybase64.b64decode(memoryview(digits)[:whole], validate=True), digits[whole:]


def _standard(digits: bytes) -> bytes:
    """The base64 in the standard alphabet, without white space. Most is already; trying that first is cheaper."""
    return digits.translate(_TO_STANDARD_ALPHABET, _WHITESPACE)
