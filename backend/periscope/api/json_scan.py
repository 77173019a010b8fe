"""A JSON body looked at while it arrives: how much of it is text, how many values it has, where its pictures stand.

Parsing makes Python objects of every byte at once, holding the interpreter's lock: what is too much must be refused
before. This scan costs a few passes of C code over each piece and keeps nothing of it.
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
#: A string below this is text whatever it holds.
MIN_PICTURE_BYTES: Final = 4096
#: The longest beginning of a `data:` URL that is looked for.
_MAX_HEAD_BYTES = 256

_DATA_URL_HEAD = re.compile(rb"data:[^,\"\x00-\x20]{0,200},")
#: Base64 in either alphabet, and the backslash: PHP writes `\/`, and base64 of mail has line ends, which are `\n` here.
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_\\"


@dataclass(slots=True)
class _OpenString:
    """A string whose end has not come yet. Owner: the scan.

    Attributes:
        start: offset of its first byte in the body.
        head: its beginning, as long as that is too short to tell what it is.
    """

    start: int
    length: int = 0
    head: bytes | None = b""
    may_be_picture: bool = True

    def add(self, piece: bytes) -> None:
        """Its next bytes."""
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
        """Whether what came so far would be picture data if it ended here."""
        return self.may_be_picture and self.length >= MIN_PICTURE_BYTES


def _is_base64(piece: bytes) -> bool:
    """Whether there are only characters of `_BASE64`, wherever in a picture's data they stand.

    Decoding it, for nothing, takes a quarter of the time that looking at each character takes. It knows neither
    padding nor the unusual characters, which few pieces have.
    """
    whole = len(piece) // 4 * 4
    try:
        pybase64.b64decode(memoryview(piece)[:whole], validate=True)
    except binascii.Error:
        return not piece.translate(None, _BASE64)
    return not piece[whole:].translate(None, _BASE64)


class BodyScan:
    """Owns the counts of one body. Strings that are nothing but base64, or a `data:` URL of it, count as pictures.

    Attributes:
        pictures: where they stand, from the first byte behind the opening quote to the closing one, in order.
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
        """Of what came so far, with what may yet turn out to be a picture left out."""
        pending = self._open.length if self._open is not None and self._open.may_be_picture else 0
        return self._num_bytes - self._num_picture_bytes - pending

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body.

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
        """The string that all of these bytes belong to: nearly every piece of a large picture is such a piece."""
        return None if self._ends_in_escape or b'"' in chunk or b"\\" in chunk else self._open

    def _follow(self, chunk: bytes) -> None:
        pieces = self._without_escapes(chunk).split(b'"')
        first_inside = 0 if self._open is not None else 1
        structure = b"".join(pieces[1 - first_inside :: 2])
        self._num_values += structure.count(b",") + structure.count(b"[") + structure.count(b"{")
        self._follow_strings(pieces, first_inside)

    def _without_escapes(self, chunk: bytes) -> bytes:
        """The same number of bytes, in which every quote opens or closes a string and a blank stands for escapes."""
        if self._ends_in_escape and chunk[0] in b'"\\':
            chunk = b" " + chunk[1:]
        self._ends_in_escape = False
        if b"\\" in chunk:
            chunk = chunk.replace(b"\\\\", b"  ").replace(b'\\"', b"  ")
            self._ends_in_escape = chunk.endswith(b"\\")
        return chunk

    def _follow_strings(self, pieces: list[bytes], first_inside: int) -> None:
        """Follow the string that reaches in from before, the long ones within, and the one that reaches out."""
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
    """The error for a body with more text than that."""
    return BodyTooLarge(
        f"The request holds more than {max_text_bytes} bytes of text; pictures in base64 are not counted. Shorten the "
        "messages, or raise `server.limits.max_text_bytes`."
    )
