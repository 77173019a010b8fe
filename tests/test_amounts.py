"""Amounts as people read them."""

from __future__ import annotations

import pytest

from periscope.core.amounts import counted, duration, size


def test_sizes_are_said_as_downloads_are() -> None:
    """Powers of 1000, one digit after the point."""
    assert [size(n) for n in (0, 999, 1500, 2 * 10**6, 17 * 10**9, 3 * 10**12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.0 MB",
        "17.0 GB",
        "3.0 TB",
    ]


def test_one_of_a_thing_is_said_without_an_s() -> None:
    """And none, as several, with one."""
    assert [counted(n, "model") for n in (0, 1, 2)] == ["0 models", "1 model", "2 models"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.6, "1 min"),
        (185, "3 min 5 s"),
        (7200, "2 h"),
        (7830, "2 h 10 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations_are_said_in_two_units(seconds: float, text: str) -> None:
    """The largest one and the next smaller one, without zeros."""
    assert duration(seconds) == text
