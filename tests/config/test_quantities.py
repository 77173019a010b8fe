"""Numbers with units."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.config.quantities import parse_bytes, parse_seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1024B", 1024),
        ("1024", 1024),
        ("24GB", 24_000_000_000),
        ("24GiB", 24 * 1024**3),
        ("1.5 MiB", 1_572_864),
        ("64kib", 65_536),
        ("2TB", 2 * 10**12),
    ],
)
def test_bytes_are_decimal_or_binary_as_written(text, expected):
    """GB counts in thousands and GiB in 1024s, whatever the case."""
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("1h30m", 5400),
        ("1 h 30 m", 5400),
        ("1.5", 1.5),
        ("250ms", 0.25),
        ("7d", 604_800),
        ("0.5h", 1800),
    ],
)
def test_durations_add_up_their_parts(text, expected):
    """A duration is the sum of its numbers with units."""
    assert parse_seconds(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1e3GB", "24XB", "1GB 2GB", "24 G B", "infGB"])
def test_other_texts_are_refused_as_bytes(text):
    """The error for a text that is not a number with a unit gives an example."""
    with pytest.raises(ValueError, match="24GiB"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["", "m", "-30m", "30 minutes", "1h-30m", "nan s", "30M"])
def test_other_texts_are_refused_as_durations(text):
    """The error for a text that is not a sum of numbers with units gives an example."""
    with pytest.raises(ValueError, match="1h30m"):
        parse_seconds(text)


@given(st.text(alphabet="0123456789.kKMGTiIBsmhd- ", max_size=12))
def test_any_text_is_a_number_or_refused(text):
    """No text raises anything but ValueError."""
    for parse in (parse_bytes, parse_seconds):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0
