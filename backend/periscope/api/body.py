"""Parses JSON bodies more strictly than Python's parser. Pure."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from periscope.api.errors import InvalidJSON
from periscope.api.wording import clip

#: Deeper than any real tool schema, and shallow enough for all recursive functions that read the value later.
MAX_JSON_DEPTH = 128
#: Digits of a number with a fraction or an exponent; Python has the same bound for integers.
MAX_DIGITS = 4300

#: A long string is parsed in slices, because parsing holds the GIL.
_SLICE_CHARS = 1024 * 1024
#: Those of `\\uD83D`.
_MAX_ESCAPE_CHARS = 6

#: Half of a surrogate pair, which JSON can write but which is no character.
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A piece of a string that a placeholder replaced before parsing.

    Attributes:
        at: offset of the placeholder's first byte in the parsed body.
        placeholder: ASCII text.
        piece: the replaced bytes, in UTF-8.
    """

    at: int
    placeholder: bytes
    piece: memoryview

    @property
    def missing_bytes(self) -> int:
        """By how many bytes everything after it is further on in the body as it was sent."""
        return len(self.piece) - len(self.placeholder)

    @property
    def missing_chars(self) -> int:
        """The same, in characters."""
        return len(str(self.piece, "utf-8", "replace")) - len(self.placeholder)


def parse_json(body: bytes | bytearray, left_out: Sequence[LeftOut] = ()) -> Any:
    """Pure: strict JSON in UTF-8, without NaN, infinities and too deep nesting. A byte order mark is skipped.

    Half a surrogate pair becomes U+FFFD: JavaScript cuts texts in the middle of a character, and such a text comes back
    with every turn of its chat.

    Args:
        left_out: pieces that were replaced, in order, so that errors name the place in the body as it was sent.

    Raises:
        InvalidJSON: says what is wrong and where.
    """
    skipped = len(codecs.BOM_UTF8) if body.startswith(codecs.BOM_UTF8) else 0
    try:
        value = json.loads(_text_of(body, skipped), parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        at = skipped + error.start
        at += sum(each.missing_bytes for each in left_out if each.at < at)
        raise InvalidJSON(f"The body is not UTF-8: byte {at} is wrong.") from error
    except RecursionError as error:
        raise InvalidJSON(_TOO_DEEP) from error
    except json.JSONDecodeError as error:
        place = _place(error, skipped, left_out)
        raise InvalidJSON(f"The body is not JSON: {clip(error.msg, 200)}: {place}.") from error
    except ValueError as error:  # Python's own bound; its text names a Python function
        raise InvalidJSON(f"The body holds a whole number of more than {MAX_DIGITS} digits.") from error
    return in_whole_characters(value)


def parse_string(inside: memoryview, start: int) -> str:
    """Pure: what `parse_json` makes of one string, from the bytes between its quotes.

    Args:
        inside: holds no escaped backslash, which no string that looks like an image has.
        start: its offset in the body, for the error.

    Raises:
        InvalidJSON: as `parse_json`.
    """
    try:
        text = str(inside, "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJSON(f"The body is not UTF-8: byte {start + error.start} is wrong.") from error
    if "\\" not in text:
        return text
    try:
        pieces = [str(json.loads(f'"{piece}"')) for piece in _slices(text)]
    except json.JSONDecodeError as error:
        raise InvalidJSON(f"The body is not JSON: {error.msg} in the string that begins at byte {start}.") from error
    del text  # it may be hundreds of megabytes
    return _joined(pieces)


def _slices(text: str) -> Iterator[str]:
    """The inside of a JSON string in slices, none of which ends within an escape."""
    at = 0
    while at < len(text):
        end = min(at + _SLICE_CHARS, len(text))
        escape = text.rfind("\\", max(at, end - _MAX_ESCAPE_CHARS + 1), end)
        if escape >= 0 and end < len(text) and escape + (_MAX_ESCAPE_CHARS if text[escape + 1] == "u" else 2) > end:
            end = escape
        yield text[at:end]
        at = end


def _joined(pieces: Sequence[str]) -> str:
    """The whole text. The halves of a surrogate pair may stand in two pieces."""
    text = "".join(pieces)
    if _is_whole(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _text_of(body: bytes | bytearray, skipped: int) -> str:
    """The text without the byte order mark that Windows writes. `utf-8-sig` would copy the body to remove it."""
    return str(memoryview(body)[skipped:], "utf-8") if skipped else body.decode("utf-8")


def _place(error: json.JSONDecodeError, skipped: int, left_out: Sequence[LeftOut]) -> str:
    """The place in the body as it was sent, in the words of Python's errors. Pieces left out hold no line ends."""
    at = skipped + len(error.doc[: error.pos].encode())
    line_at = skipped + len(error.doc[: error.doc.rfind("\n", 0, error.pos) + 1].encode())
    before = [(each.at, each.missing_chars) for each in left_out if each.at < at]
    column = error.colno + sum(missing for place, missing in before if place >= line_at)
    return f"line {error.lineno} column {column} (char {error.pos + sum(missing for _, missing in before)})"


_TOO_DEEP = f"The body is nested more than {MAX_JSON_DEPTH} levels deep."


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJSON(f"The body is not JSON: {name} is not a JSON number.")


def _finite(digits: str) -> float:
    number = float(digits) if len(digits) <= MAX_DIGITS else math.inf
    if not math.isfinite(number):
        raise InvalidJSON(f"The number {clip(digits)} is too large.")
    return number


def in_whole_characters(root: Any) -> Any:
    """The same value, changed in place where a string holds half of a surrogate pair.

    Raises:
        InvalidJSON: it is nested too deeply.
    """
    if isinstance(root, str):
        return _whole_characters(root)
    pending: list[tuple[Any, int]] = [(root, 0)] if isinstance(root, (dict, list)) else []
    while pending:
        node, depth = pending.pop()
        if depth == MAX_JSON_DEPTH:
            raise InvalidJSON(_TOO_DEEP)
        if isinstance(node, dict) and not all(map(_is_whole, node)):
            entries = [(_whole_characters(key), value) for key, value in node.items()]
            node.clear()
            node.update(entries)
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(value, (dict, list)):
                pending.append((value, depth + 1))
            elif isinstance(value, str) and not _is_whole(value):
                node[key] = _whole_characters(value)
    return root


def _is_whole(text: str) -> bool:
    # Python knows of each string whether it is ASCII, so base64 images cost nothing here.
    return text.isascii() or _HALF_CHARACTER.search(text) is None


def _whole_characters(text: str) -> str:
    return _HALF_CHARACTER.sub("\ufffd", text)
