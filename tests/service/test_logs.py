"""The agent's log files."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from periscope.service import Follower, last_lines
from tests.service.fake_launchd import FakeClock


def test_the_last_lines_are_read(tmp_path: Path) -> None:
    """Of a file that is there; none of one that is not, and broken bytes are shown as such."""
    file = tmp_path / "log"
    file.write_bytes(b"one\ntwo\nthr\xffee\n")
    assert last_lines(file, 2) == ["two", "thr\ufffdee"]
    assert last_lines(file, 0) == last_lines(tmp_path / "none", 5) == []


def test_what_is_added_is_followed(tmp_path: Path) -> None:
    """From the moment of the call on, in a file that appears later, too, and anew in one that was emptied."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("before\n")
    clock = FakeClock()
    writes = iter([(old, "before\nadded\n"), (new, "born\n"), (new, "born\n"), (old, "cut\n")])

    def write() -> None:
        file, text = next(writes)
        file.write_text(text)

    clock.on_tick.append(write)
    assert list(islice(Follower([old, new]).follow(clock), 3)) == ["added\n", "born\n", "cut\n"]


def test_what_comes_between_the_tail_and_the_following_is_not_lost(tmp_path: Path) -> None:
    """The follower is made before the tail is read."""
    file = tmp_path / "log"
    file.write_text("one\n")
    follower = Follower([file])
    file.write_text("one\ntwo\n")
    assert list(follower.new_text()) == ["two\n"]
    assert list(follower.new_text()) == []
