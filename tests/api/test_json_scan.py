"""A body is measured while it arrives, however it is cut, and read back as if nothing had been taken out of it."""

from __future__ import annotations

import base64
import codecs
import itertools
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.api.body import parse_json
from periscope.api.errors import InvalidJSON
from periscope.api.json_reading import parse_body
from periscope.api.json_scan import MAX_JSON_VALUES, MIN_PICTURE_BYTES, BodyScan
from periscope.errors import BodyTooLarge, InvalidRequest

PICTURE = base64.b64encode(random.Random(1).randbytes(MIN_PICTURE_BYTES)).decode()
DATA_URL = f"data:image/png;base64,{PICTURE}"
PLENTY = 10**9

strings = st.text(max_size=8) | st.sampled_from(['"', '\\"', "\\", "a\\\\", "é\n", PICTURE, DATA_URL])
values = st.recursive(
    st.none() | st.integers() | strings,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=4),
    max_leaves=8,
)


def pieces_of(body: bytes, cuts: list[int]) -> Iterator[bytes]:
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        yield body[start:end]


def scanned(body: bytes, cuts: list[int] | None = None, max_text_bytes: int = PLENTY) -> BodyScan:
    scan = BodyScan(max_text_bytes)
    for piece in pieces_of(body, cuts or []):
        scan.feed(piece)
    return scan


def long_strings(value: Any) -> Iterator[str]:
    if isinstance(value, str) and len(value) >= MIN_PICTURE_BYTES:
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from long_strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from long_strings(key)
            yield from long_strings(item)


@given(values, st.lists(st.integers(0, 30_000), max_size=6), st.booleans())
def test_any_body_in_any_pieces_is_read_as_it_is(value: Any, cuts: list[int], is_ascii: bool) -> None:
    """What was lifted over the parser is back in its place, and is exactly what was not counted as text."""
    body = json.dumps(value, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    scan = scanned(body, cuts)
    assert [body[start:end].decode() for start, end in scan.pictures] == list(long_strings(value))
    assert scan.num_text_bytes == len(body) - sum(map(len, long_strings(value)))
    assert parse_body(body, scan) == value


@pytest.mark.parametrize(
    "written",
    [PICTURE.replace("/", "\\/"), "data:image/png;base64," + PICTURE.replace("A", "A\\n"), "data:;base64," + PICTURE],
    ids=["PHP", "mail", "no type"],
)
def test_base64_is_known_as_clients_write_it(written: str) -> None:
    """Escaped slashes and line ends do not make text of a picture, cut anywhere."""
    body = b'{"url": "%s"}' % written.encode()
    for cut in range(1, len(body), 97):
        scan = scanned(body, [cut])
        assert scan.num_text_bytes == len(b'{"url": ""}')
    assert parse_body(body, scan) == json.loads(body)


@pytest.mark.parametrize("place", [0, 1000, -4, -3, -2, -1])
@pytest.mark.parametrize("tail", range(4))
def test_one_character_that_is_no_base64_makes_text_of_a_string(place: int, tail: int) -> None:
    """Whichever character it is, and wherever it stands: only those of base64 in either alphabet are let through."""
    alphabet = set(
        base64.b64encode(bytes(range(256)) * 3) + b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+/=-_"
    )
    for byte in set(range(256)) - set(b'"\\'):
        string = bytearray(PICTURE.encode() + b"A" * tail)
        string[place] = byte
        assert bool(scanned(b'{"url": "%s"}' % string).pictures) == (byte in alphabet), bytes([byte])


@pytest.mark.parametrize(
    "written",
    [rb"\ud83d%s", rb"%s\ude00", rb"\ud83d\ude00%s", b"data:image/png;name=\xc3\xa9.png;base64,%s", rb"\u0041%s"],
    ids=["high half", "low half", "both halves", "name outside ASCII", "escaped letter"],
)
def test_what_is_lifted_reads_as_the_parser_would_have_read_it(written: bytes) -> None:
    """Escapes and characters outside ASCII in a string that looks like a picture mean what they mean in any other."""
    string = written % PICTURE.encode()
    for body in (b'{"url": "%s"}' % string, b'{"%s": 1}' % string):
        scan = scanned(body)
        assert scan.pictures
        assert parse_body(body, scan) == parse_json(body)


@pytest.mark.parametrize("escape", [rb"\/", rb"\n", rb"\u0041", rb"\ud83d\ude00", rb"\ud83d", rb"\ude00"])
def test_a_long_string_with_escapes_is_read_in_slices_as_it_is(escape: bytes) -> None:
    """Wherever the slices end, in the middle of an escape or of a character, the string is that of the parser."""
    for before in range(12):
        body = b'{"url": "%s%s"}' % (b"A" * (2**20 - before), escape * 5 + b"A" * 2**20 + escape)
        scan = scanned(body)
        assert scan.pictures
        assert parse_body(body, scan) == parse_json(body)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (rb"\q%s", r"not JSON: Invalid \\escape.* begins at byte 9\."),
        (rb"%s\u12", r"not JSON: Invalid \\uXXXX escape.* begins at byte 9\."),
        (b"data:\xff,%s", r"not UTF-8: byte 14 is wrong\."),
        (b"data:\x01,%s", r"not JSON: Invalid control character"),
    ],
    ids=["escape", "cut escape", "not UTF-8", "control character"],
)
def test_a_broken_string_that_looks_like_a_picture_is_a_clients_fault(written: bytes, message: str) -> None:
    """What was lifted over the parser is held to JSON's rules, as a value and as a name."""
    string = written % PICTURE.encode()
    for body in (b'{"url": "%s"}' % string, b'{      "%s": 1}' % string):
        with pytest.raises(InvalidJSON, match=message if body.startswith(b'{"') else "The body is not"):
            parse_body(body, scanned(body))


@pytest.mark.parametrize("words", [b"one two ", b"word", b"\\u00e9", b"\xf0\x9f\x98\x80", b'\\"'])
def test_text_is_bounded_while_it_arrives(words: bytes) -> None:
    """Nothing beyond the limit is read, unless it could be a picture, which is told when it is known to be none."""
    body = b'{"messages": [{"role": "user", "content": "' + words * 4000 + b'"}]}'
    with pytest.raises(BodyTooLarge, match=r"more than 3000 bytes of text.*max_text_bytes"):
        parse_body(body, scanned(body, max_text_bytes=3000))
    assert parse_body(body, scanned(body))


def test_pictures_are_no_text_where_pictures_stand() -> None:
    """The same base64 is taken as a picture's address, and counted as a message's text."""
    urls = json.dumps({"image_url": {"url": DATA_URL}, "images": [PICTURE], "source": {"data": PICTURE}}).encode()
    assert parse_body(urls, scanned(urls, max_text_bytes=200)) == json.loads(urls)
    text = json.dumps({"content": PICTURE}).encode()
    with pytest.raises(BodyTooLarge):
        parse_body(text, scanned(text, max_text_bytes=200))


@pytest.mark.parametrize("entry", [b"{}", b"1", b"[]", b'{"role":"user"}'])
def test_values_are_bounded_before_they_are_made(entry: bytes) -> None:
    """More entries of lists and objects than any request needs: the error says how many are taken."""
    scanned(b"[" + b",".join([entry] * (MAX_JSON_VALUES // 3)) + b"]")
    with pytest.raises(InvalidRequest, match=str(MAX_JSON_VALUES)):
        scanned(b"[" + b",".join([entry] * (MAX_JSON_VALUES + 1)) + b"]")


def test_what_stands_in_strings_is_no_structure() -> None:
    """Text full of brackets and commas has one value."""
    text = '[{"a": 1}, ' * MAX_JSON_VALUES
    body = json.dumps({"content": text}).encode()
    assert parse_body(body, scanned(body, [5000, 77_777])) == {"content": text}


def fault_of(parse: Callable[[], Any]) -> str | None:
    try:
        parse()
    except InvalidJSON as error:
        return error.message
    return None


@pytest.mark.parametrize("start", [b"", codecs.BOM_UTF8, b" \n "], ids=["none", "mark", "line"])
@pytest.mark.parametrize("fault", [b"1", b"\xff", b"}", b'"x', b'"\\q"'], ids=["value", "byte", "end", "cut", "escape"])
@pytest.mark.parametrize("between", [b", ", b",\n", b',"\xc3\xa9":\n 1,'], ids=["line", "two lines", "three lines"])
def test_a_fault_behind_pictures_is_told_where_it_is(start: bytes, fault: bytes, between: bytes) -> None:
    """Line, column, character and byte are those of the body as it was sent, not of what was parsed of it."""
    first, second = b'"a": "%s"' % PICTURE.encode(), b'"b": "data:image/png;name=\xc3\xa9;base64,%s"' % PICTURE.encode()
    body = start + b"{" + first + between + second + b" " + fault + b"}"
    told = fault_of(lambda: parse_body(body, scanned(body)))
    assert told is not None
    assert told == fault_of(lambda: parse_json(body))


@given(values, st.integers(0, 30_000), st.sampled_from([b"", b"1", b'"', b"\xff", b",", b"\n", b"}"]), st.booleans())
def test_a_fault_anywhere_is_told_as_the_parser_would(value: Any, at: int, fault: bytes, is_indented: bool) -> None:
    """What was lifted over the parser neither hides a fault nor moves it."""
    body = json.dumps(value, indent=1 if is_indented else None, ensure_ascii=False).encode("utf-8", "surrogatepass")
    at %= len(body)
    body = body[:at] + fault + body[at + 1 :]
    told = fault_of(lambda: parse_body(body, scanned(body)))
    if told is None or "in the string that begins at byte" not in told:
        assert told == fault_of(lambda: parse_json(body))
