"""A slow sender is waited for, a stalled one is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from periscope.api.byte_rate import ByteRate


def test_a_sender_that_stops_is_given_up_whatever_it_sent_before() -> None:
    """A fast beginning buys no more patience than there was."""
    rate = ByteRate(10.0, 1000)
    rate.spend(1.0, 50_000_000)
    assert rate.left_s == 10.0


def test_a_sender_that_trickles_runs_out_of_credit() -> None:
    """One byte every second, which no limit on silence would notice."""
    rate = ByteRate(10.0, 1000)
    waits = 0
    while rate.left_s > 0:
        rate.spend(1.0, 1)
        waits += 1
    assert waits == 11


@given(st.lists(st.floats(0.0, 9.0), max_size=30))
def test_a_sender_at_the_rate_is_never_given_up(waits_s: list[float]) -> None:
    """However it pauses, as long as each pause is shorter than the patience and paid for."""
    rate = ByteRate(10.0, 1000)
    for waited_s in waits_s:
        assert waited_s < rate.left_s
        rate.spend(waited_s, int(waited_s * 1000) + 1)
