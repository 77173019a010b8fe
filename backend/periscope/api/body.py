"""JSON on its way in, once it is here: strict where Python's parser is lax. Pure."""

from __future__ import annotations

import codecs
import json
import math
import re
from typing import Any, NoReturn

from periscope.api.errors import InvalidJSON
from periscope.api.wording import clip

#: Deeper than any real tool schema, and shallow enough for every recursive reader behind us.
MAX_JSON_DEPTH = 128
#: Of a number with a fraction or an exponent; Python has the same bound for whole ones.
MAX_DIGITS = 4300

#: Half of a surrogate pair: JSON can write it, and it stands for no character.
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def parse_json(body: bytes | bytearray) -> Any:
    """Pure: strict JSON in UTF-8, without NaN and infinities or bottomless nesting. A byte order mark is passed over.

    Half a surrogate pair becomes U+FFFD: JavaScript cuts texts in the middle of a character, and such a text comes back
    with every turn of its chat.

    Raises:
        InvalidJSON: says what is wrong and where.
    """
    try:
        value = json.loads(_text_of(body), parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise InvalidJSON(f"The body is not UTF-8: byte {error.start} is wrong.") from error
    except RecursionError as error:
        raise InvalidJSON(_TOO_DEEP) from error
    except json.JSONDecodeError as error:
        raise InvalidJSON(f"The body is not JSON: {clip(str(error), 200)}.") from error
    except ValueError as error:  # Python's own bound, whose text advises a call of Python's
        raise InvalidJSON(f"The body holds a whole number of more than {MAX_DIGITS} digits.") from error
    return _in_whole_characters(value)


def parse_string(inside: memoryview, start: int) -> str:
    """Pure: what `parse_json` makes of one string, given what stands between its quotes.

    Args:
        start: where it stands in the body, for the error.

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
        return _whole_characters(str(json.loads(f'"{text}"')))
    except json.JSONDecodeError as error:
        raise InvalidJSON(f"The body is not JSON: {error.msg} in the string that begins at byte {start}.") from error


def _text_of(body: bytes | bytearray) -> str:
    """Windows begins files with a byte order mark; `utf-8-sig` would copy the body to take it off."""
    has_mark = body.startswith(codecs.BOM_UTF8)
    return str(memoryview(body)[len(codecs.BOM_UTF8) :], "utf-8") if has_mark else body.decode("utf-8")


_TOO_DEEP = f"The body is nested more than {MAX_JSON_DEPTH} levels deep."


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJSON(f"The body is not JSON: {name} is not a JSON number.")


def _finite(digits: str) -> float:
    number = float(digits) if len(digits) <= MAX_DIGITS else math.inf
    if not math.isfinite(number):
        raise InvalidJSON(f"The number {clip(digits)} is too large.")
    return number


def _in_whole_characters(root: Any) -> Any:
    """The same value, changed in place where a text holds half a character."""
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
    # ASCII is known of every string without looking: base64 images cost nothing here.
    return text.isascii() or _HALF_CHARACTER.search(text) is None


def _whole_characters(text: str) -> str:
    return _HALF_CHARACTER.sub("\ufffd", text)
