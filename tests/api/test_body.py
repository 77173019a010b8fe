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
        (b'{"a" 1}', "The body is not JSON: Expecting ':' delimiter: line 1 column 6 (char 5)."),
        (b'{"a": "\xff"}', "The body is not UTF-8: byte 7 is wrong."),
        (
            b'{"a": [{"b": "\\udc00"}]}',
            "`a[0].b` holds half of a surrogate pair, which is no character. Send whole characters.",
        ),
    ],
)
def test_messages_say_what_and_where(body: bytes, message: str) -> None:
    """A person finds the place."""
    with pytest.raises(InvalidJSON) as refused:
        parse_json(body)
    assert refused.value.message == message


def test_dumping_never_writes_what_is_not_json() -> None:
    """NaN would break every client's parser: it is our bug, and raised here."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_json({"a": float("nan")})
