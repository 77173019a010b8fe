"""Scans a JSON body while it arrives: how much of it is text, how many values it has, where its images are.

Parsing makes Python objects of the whole body with the GIL held, so a body with too much in it must be refused before.
This scan costs a few passes of C code over each piece and keeps nothing of it.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pybase64

from periscope.errors import BodyTooLarge, InvalidRequest

if TYPE_CHECKING:
    from typing import Final

#: Entries of lists and objects in one body. The largest real requests, with hundreds of tools, have some 30,000. Python
#: makes up to half a kilobyte of each.
MAX_JSON_VALUES: Final = 100_000
#: A shorter string counts as text, whatever it holds.
MIN_PICTURE_BYTES: Final = 4096
#: The longest prefix of a `data:` URL that is recognised.
_MAX_HEAD_BYTES = 256

_DATA_URL_HEAD = re.compile(rb"data:[^,\"\x00-\x20]{0,200},")
#: Base64 in either alphabet, and the backslash: PHP writes `\/`, and base64 of mail has line ends, which are `\n` here.
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_\\"


@dataclass(slots=True)
class _OpenString:
    """A string whose end has not arrived yet. Owned by the scan.

    Attributes:
        start: offset of its first byte in the body.
        head: its beginning, while that is too short to tell what the string is.
    """

    start: int
    length: int = 0
    head: bytes | None = b""
    may_be_picture: bool = True

    def add(self, piece: bytes) -> None:
        """Add the string's next bytes."""
        self.length += len(piece)
        if not self.may_be_picture:
            return
        if self.head is not None:
            self.head += piece
            if len(self.head) < _MAX_HEAD_BYTES:
                return
            piece, self.head = _DATA_URL_HEAD.sub(b"", self.head, count=1), None
        self.may_be_picture = _is_base64(piece)

    @property
    def is_picture(self) -> bool:
        """Whether the string would be image data if it ended here."""
        return self.may_be_picture and self.length >= MIN_PICTURE_BYTES


def _is_base64(piece: bytes) -> bool:
    """Whether the bytes are only characters of `_BASE64`, from any place in an image's data.

    Decoding the bytes and dropping the result takes a quarter of the time of checking each character. It fails on
    padding and unusual characters, which few pieces have.
    """
    whole = len(piece) // 4 * 4
    try:
        pybase64.b64decode(memoryview(piece)[:whole], validate=True)
    except binascii.Error:
        return not piece.translate(None, _BASE64)
    return not piece[whole:].translate(None, _BASE64)


class BodyScan:
    """Owns the counts of one body. Strings of only base64, or a `data:` URL of it, count as images.

    Attributes:
        pictures: their spans in order, from the first byte after the opening quote to the closing one.
    """

    def __init__(self, max_text_bytes: int) -> None:
        self.pictures: list[tuple[int, int]] = []
        self.max_text_bytes = max_text_bytes
        self._num_bytes = 0
        self._num_picture_bytes = 0
        self._num_values = 0
        self._open: _OpenString | None = None
        self._ends_in_escape = False

    @property
    def num_text_bytes(self) -> int:
        """Bytes of text so far, without a string that may still turn out to be an image."""
        pending = self._open.length if self._open is not None and self._open.may_be_picture else 0
        return self._num_bytes - self._num_picture_bytes - pending

    def feed(self, chunk: bytes) -> None:
        """Scan the next bytes of the body.

        Raises:
            BodyTooLarge: there is too much text.
            InvalidRequest: there are too many values.
        """
        if not chunk:
            return
        if (string := self._goes_on(chunk)) is not None:
            string.add(chunk)
        else:
            self._follow(chunk)
        self._num_bytes += len(chunk)
        if self._num_values > MAX_JSON_VALUES:
            raise InvalidRequest(
                f"The request has more than {MAX_JSON_VALUES} JSON values (entries of lists and objects). Send fewer "
                "messages or tools."
            )
        if self.num_text_bytes > self.max_text_bytes:
            raise too_much_text(self.max_text_bytes)

    def _goes_on(self, chunk: bytes) -> _OpenString | None:
        """The open string, if all of these bytes belong to it, as with nearly every piece of a large image."""
        return None if self._ends_in_escape or b'"' in chunk or b"\\" in chunk else self._open

    def _follow(self, chunk: bytes) -> None:
        pieces = self._without_escapes(chunk).split(b'"')
        first_inside = 0 if self._open is not None else 1
        structure = b"".join(pieces[1 - first_inside :: 2])
        self._num_values += structure.count(b",") + structure.count(b"[") + structure.count(b"{")
        self._follow_strings(pieces, first_inside)

    def _without_escapes(self, chunk: bytes) -> bytes:
        """The same number of bytes with spaces for escapes, so that every quote opens or closes a string."""
        if self._ends_in_escape and chunk[0] in b'"\\':
            chunk = b" " + chunk[1:]
        self._ends_in_escape = False
        if b"\\" in chunk:
            chunk = chunk.replace(b"\\\\", b"  ").replace(b'\\"', b"  ")
            self._ends_in_escape = chunk.endswith(b"\\")
        return chunk

    def _follow_strings(self, pieces: list[bytes], first_inside: int) -> None:
        """Follow the string that began earlier, the long ones in this piece, and the one that ends later."""
        last = len(pieces) - 1
        if self._open is not None:
            self._open.add(pieces[0])
            if last == 0:
                return
            self._close(self._open)
        for number in range(first_inside or 2, last, 2):
            if len(pieces[number]) >= MIN_PICTURE_BYTES:
                string = _OpenString(self._offset_of(pieces, number))
                string.add(pieces[number])
                self._close(string)
        self._open = None
        if last % 2 == first_inside % 2 and last > 0:
            self._open = _OpenString(self._offset_of(pieces, last))
            self._open.add(pieces[last])

    def _offset_of(self, pieces: list[bytes], number: int) -> int:
        return self._num_bytes + sum(map(len, pieces[:number])) + number

    def _close(self, string: _OpenString) -> None:
        if string.is_picture:
            self.pictures.append((string.start, string.start + string.length))
            self._num_picture_bytes += string.length


def too_much_text(max_text_bytes: int) -> BodyTooLarge:
    """The error for a body with more text than the limit."""
    return BodyTooLarge(
        f"The request holds more than {max_text_bytes} bytes of text; pictures in base64 are not counted. Shorten the "
        "messages, or raise `server.limits.max_text_bytes`."
    )
