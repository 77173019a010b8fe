"""JSONScanner finds the end of an object, and the ends of its strings, in JSON that arrives in pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.parsing.json_scan import JSONScanner

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=st.dictionaries(st.text(), VALUES, max_size=3), rest=st.text(), data=st.data())
def test_an_object_ends_with_its_own_bracket(value: dict[str, object], rest: str, data: st.DataObject) -> None:
    """The end of an object is found whatever its strings hold, and however the text is cut."""
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    cut = data.draw(st.integers(0, len(text) - 1))
    scanner = JSONScanner()
    assert scanner.feed(text[:cut]) == -1
    assert scanner.feed(text[cut:] + rest) == len(text) - cut


@pytest.mark.parametrize(
    ("text", "is_in_string"),
    [('{"a', True), ('{"a"', False), ('{"a\\"', True), ('{"a\\\\"', False), ('{"a\n', False), ("{}", False)],
)
def test_it_knows_what_is_in_a_string(text: str, is_in_string: bool) -> None:
    """Escapes are recognised, and a raw newline, which JSON forbids, ends a string without a closing quote."""
    scanner = JSONScanner()
    scanner.feed_all(text)
    assert scanner.is_in_string is is_in_string


def test_it_reads_a_slice_and_goes_on_after_an_end() -> None:
    """The next call continues at the index that the last one returned."""
    scanner = JSONScanner()
    text = "{} , [1]"
    assert scanner.feed(text, 0, 1) == -1
    assert scanner.feed(text, 1) == 2
    assert scanner.feed(text, 2) == len(text)
    assert scanner.feed(text, len(text)) == -1
