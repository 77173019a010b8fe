"""JSON bodies: strict where Python's parser is lax, and nothing breaks it."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.api.body import MAX_JSON_DEPTH, parse_json
from periscope.api.errors import InvalidJSON
from periscope.api.replies import dump_json

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_what_we_write_we_read(value: Any) -> None:
    """Any JSON value comes back as it was, from our ASCII and from plain UTF-8."""
    assert parse_json(dump_json(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=40) | st.text('{}[]",:0\\u dD8ABaeNnIity-.\ud800', max_size=40))
def test_no_body_breaks_the_parser(body: bytes | str) -> None:
    """Whatever comes, the outcome is a value or `InvalidJSON`."""
    raw = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    with contextlib.suppress(InvalidJSON):
        parse_json(raw)


def test_nesting_has_a_bottom() -> None:
    """Any tool schema fits; what would overflow a recursive reader behind us does not."""
    assert parse_json(b"[" * MAX_JSON_DEPTH + b"]" * MAX_JSON_DEPTH)
    with pytest.raises(InvalidJSON, match="nested"):
        parse_json(b"[" * (MAX_JSON_DEPTH + 1) + b"]" * (MAX_JSON_DEPTH + 1))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"a": NaN}', "The body is not JSON: NaN is not a JSON number."),
        (b'{"a": 1e400}', "The number 1e400 is too large."),
        (b'{"a": %s}' % (b"1" * 4301), "The body holds a whole number of more than 4300 digits."),
        (b'{"a" 1}', "The body is not JSON: Expecting ':' delimiter: line 1 column 6 (char 5)."),
        (b'{"a": "\xff"}', "The body is not UTF-8: byte 7 is wrong."),
    ],
)
def test_messages_say_what_and_where(body: bytes, message: str) -> None:
    """A person finds the place."""
    with pytest.raises(InvalidJSON) as refused:
        parse_json(body)
    assert refused.value.message == message


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (rb'{"a": [{"b": "x\udc00"}, "\ud83d", 1, null]}', {"a": [{"b": "x\ufffd"}, "\ufffd", 1, None]}),
        (rb'{"a": 1, "\ud83d": {"\ude00": 2}, "z": 3}', {"a": 1, "\ufffd": {"\ufffd": 2}, "z": 3}),
        (rb'"\ude00\ud83d"', "\ufffd\ufffd"),
        (rb'["\ud83d\ude00"]', ["\U0001f600"]),
        (rb'["\\ud83d"]', [r"\ud83d"]),
    ],
)
def test_half_a_surrogate_pair_becomes_a_replacement_character(body: bytes, value: Any) -> None:
    """Wherever it stands, names included; whole pairs and escaped backslashes stay what they are."""
    parsed = parse_json(body)
    assert parsed == value
    assert str(parsed) == str(value)  # in the same order
    dump_json(parsed)


@pytest.mark.parametrize("body", [b"\xef\xbb\xbf[1]", b"\xef\xbb\xbf\n [1]"])
def test_a_byte_order_mark_is_passed_over(body: bytes) -> None:
    """It says that UTF-8 follows, and nothing else."""
    assert parse_json(body) == [1]


def test_only_one_byte_order_mark_is_taken_off() -> None:
    """A second one is a character where JSON has none."""
    with pytest.raises(InvalidJSON):
        parse_json(b"\xef\xbb\xbf\xef\xbb\xbf[1]")


def test_dumping_never_writes_what_is_not_json() -> None:
    """NaN would break every client's parser: it is our bug, and raised here."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_json({"a": float("nan")})
