"""MarkerSet.find: the markers that it finds, and the text that stays pending."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.parsing.markers import MarkerSet

small_markers = st.lists(st.text("ab<", min_size=1, max_size=4), max_size=3, unique=True)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("plain", (5, 5)),
        ("a<think>b", (1, 8)),
        ("a<thi", (1, 1)),
        ("a<<thi", (2, 2)),
        ("a<thing", (7, 7)),
        ("<tool><think>", (0, 6)),
        ("", (0, 0)),
    ],
)
def test_finds_the_leftmost_marker_or_where_one_may_begin(text: str, span: tuple[int, int]) -> None:
    """The span is the first complete marker, else the empty one before the shortest possible beginning of one."""
    assert MarkerSet(["<think>", "<tool>"]).find(text, 0) == span


def test_it_searches_from_begin_on() -> None:
    """Text before `begin` is not searched."""
    assert MarkerSet(["<think>"]).find("<think>x<think>", 1) == (8, 15)


def test_without_markers_no_text_is_pending() -> None:
    """An empty set lets all text through."""
    assert MarkerSet([]).find("<think>", 2) == (7, 7)


def test_an_earlier_start_that_may_become_a_longer_marker_wins() -> None:
    """A marker inside the possible beginning of another one is not decided before that one is."""
    markers = MarkerSet(["abcd", "bc"])
    assert markers.find("xabc", 0) == (1, 1)
    assert markers.find("xabcd", 0) == (1, 5)
    assert markers.find("xabce", 0) == (2, 4)


@given(markers=small_markers, text=st.text("ab<", max_size=12))
def test_the_decision_never_changes_with_more_text(markers: list[str], text: str) -> None:
    """The decision about a prefix of the text is also the decision about all of the text."""
    found = MarkerSet(markers)
    start, end = found.find(text, 0)
    for length in range(len(text)):
        early_start, early_end = found.find(text[:length], 0)
        assert early_start <= start
        assert early_start == early_end or (early_start, early_end) == (start, end)


@given(markers=small_markers, text=st.text("ab<", max_size=12))
def test_pending_text_is_the_beginning_of_a_marker(markers: list[str], text: str) -> None:
    """Text stays pending only while it can still become a marker."""
    start, end = MarkerSet(markers).find(text, 0)
    tail = text[start:]
    assert start < end or not tail or any(m.startswith(tail) and m != tail for m in markers)
