"""The newest lines of the log, in memory."""

from __future__ import annotations

import logging

import pytest

from periscope.log_tail import KEPT_LINES, LogTail


def tail_of(*levels: int) -> LogTail:
    tail = LogTail()
    tail.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    for number, level in enumerate(levels, start=1):
        tail.handle(logging.LogRecord("periscope", level, "", 0, "line %d", (number,), None))
    return tail


def test_the_newest_lines_come_in_order() -> None:
    """As many as are asked for, from one on that was seen before, and from a level on."""
    tail = tail_of(logging.INFO, logging.WARNING, logging.DEBUG, logging.ERROR)
    assert [line.text for line in tail.newest(2)] == ["DEBUG line 3", "ERROR line 4"]
    assert [line.id for line in tail.newest(10, after=3)] == [4]
    assert [line.level for line in tail.newest(10, level="warning")] == ["warning", "error"]
    assert tail.newest(0) == ()


def test_memory_is_bounded() -> None:
    """The oldest lines go, and their numbers are not given again; a line is cut."""
    tail = tail_of(*[logging.INFO] * (KEPT_LINES + 5))
    assert (len(tail.newest(KEPT_LINES * 2)), tail.newest(1)[0].id) == (KEPT_LINES, KEPT_LINES + 5)
    tail.handle(logging.LogRecord("periscope", logging.INFO, "", 0, "x" * 100_000, (), None))
    assert len(tail.newest(1)[0].text) < 10_000


def test_a_line_that_cannot_be_formatted_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """It is told on stderr, as logging does, and ends nothing."""
    tail = tail_of(logging.INFO)
    tail.handle(logging.LogRecord("periscope", logging.INFO, "", 0, "%d", ("no number",), None))
    assert len(tail.newest(10)) == 1
    assert "no number" in capsys.readouterr().err
