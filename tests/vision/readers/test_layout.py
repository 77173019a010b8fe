"""Runs of text with their boxes become lines in reading order, with indentation and columns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from periscope.vision.readers.layout import text_of
from periscope.vision.readers.reader import TextBox

#: Pixels of a character in these tests.
WIDTH, HEIGHT = 10, 20


def run_at(column: int, row: int, text: str) -> TextBox:
    left, top = column * WIDTH, row * 1.5 * HEIGHT
    return TextBox(text, left, top, left + len(text) * WIDTH, top + HEIGHT)


def test_nothing_is_no_text() -> None:
    """A picture without text, or with blanks only, has an empty text."""
    assert text_of([]) == ""
    assert text_of([run_at(0, 0, "  ")]) == ""


def test_a_shape_is_no_text() -> None:
    """RapidOCR reads a drawn circle as a bullet; beside words, signs without a letter are part of the text."""
    assert text_of([run_at(0, 0, "\u25cf"), run_at(0, 1, "--")]) == ""
    assert text_of([run_at(0, 0, "if (x) {"), run_at(0, 1, "}")]) == "if (x) {\n}"
    assert text_of([run_at(0, 0, "\u65e5\u672c")]) == "\u65e5\u672c"


def test_indentation_is_kept() -> None:
    """Python means something by it."""
    boxes = [run_at(8, 2, "raise ValueError"), run_at(2, 0, "def f(x):"), run_at(4, 1, "if not x:")]
    assert text_of(boxes) == "def f(x):\n  if not x:\n      raise ValueError"


def test_runs_of_a_line_stand_side_by_side() -> None:
    """A small gap is a blank; a wide one, as in a table, keeps its width."""
    boxes = [run_at(20, 0, "2.50"), run_at(0, 0, "Green"), run_at(6, 0, "tea"), run_at(0, 1, "Milk")]
    assert text_of(boxes) == f"Green tea{' ' * 11}2.50\nMilk"


def test_a_slanted_line_is_one_line() -> None:
    """A photograph of a page is never quite straight."""
    boxes = [TextBox("one", 0, 0, 30, 20), TextBox("two", 40, 4, 70, 24), TextBox("three", 80, 8, 130, 28)]
    assert text_of(boxes) == "one two three"


@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.integers(0, 30), st.text("abc xyz", min_size=1, max_size=9)), max_size=20
    )
)
def test_no_text_is_lost(runs: list[tuple[int, int, str]]) -> None:
    """Wherever the boxes stand, also over each other, each run is in the text once."""
    text = text_of([run_at(*each) for each in runs])
    assert sorted(text.split()) == sorted(word for *_, run in runs for word in run.split())


@given(st.lists(st.builds(TextBox, st.text(max_size=5), *[st.floats(-1e6, 1e6)] * 4), max_size=8))
def test_boxes_without_sense_give_a_text(boxes: list[TextBox]) -> None:
    """An engine's box may be empty or turned over: no error, and no line of endless blanks."""
    assert all(len(line) < 1000 for line in text_of(boxes).splitlines())
