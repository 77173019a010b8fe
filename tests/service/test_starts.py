"""The crash brake's memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from periscope.service import MAX_FAST_CRASHES, StartRecord


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "starts.json"


def test_starts_that_did_not_last_are_counted(file: Path) -> None:
    """Each process notes its start; whoever dies without a word has it counted."""
    assert [StartRecord(file).begin() for _ in range(MAX_FAST_CRASHES + 2)] == [0, 1, 2, 3, 4, 5, 5]


def test_one_good_start_clears_the_record(file: Path) -> None:
    """Also one after many that failed."""
    StartRecord(file).begin()
    lasting = StartRecord(file)
    assert lasting.begin() == 1
    lasting.forget()
    lasting.forget()
    assert StartRecord(file).begin() == 0


def test_crashes_of_long_ago_do_not_count(file: Path) -> None:
    """Nor do those of a clock that was set back since."""
    StartRecord(file, lambda: 1_000.0).begin()
    StartRecord(file, lambda: 900_000.0).begin()
    assert StartRecord(file, lambda: 5_000.0).begin() == 0


@pytest.mark.parametrize("text", ["", "{", "{}", '["x"]', "[null]"])
def test_a_record_that_cannot_be_read_counts_nothing(file: Path, text: str) -> None:
    """It is written anew."""
    file.write_text(text)
    assert StartRecord(file).begin() == 0
    assert StartRecord(file).begin() == 1
