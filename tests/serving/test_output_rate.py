"""How fast answers are written."""

from __future__ import annotations

import pytest

from periscope.serving.output_rate import WINDOW_S, OutputRate


def noted(*times: float) -> OutputRate:
    rate = OutputRate()
    for time in times:
        rate.note(time)
    return rate


@pytest.mark.parametrize(
    ("times", "now", "expected"),
    [
        ((), 10.0, 0.0),
        ((10.0, 10.1, 10.2), 10.3, 3.0),
        (tuple(10 + 0.05 * n for n in range(80)), 14.0, 20.0),
        (tuple(10 + 0.05 * n for n in range(400)), 30.0, 20.0),
        ((10.0, 10.1), 10.2 + 2 * WINDOW_S, 0.0),
    ],
)
def test_pieces_per_second(times: tuple[float, ...], now: float, expected: float) -> None:
    """Nothing at first; a steady rate soon after the beginning and as long as it lasts; nothing once all is silent."""
    assert noted(*times).per_s(now) == pytest.approx(expected, rel=0.25)


def test_an_hour_of_pieces_takes_no_memory() -> None:
    """Seconds that are over are forgotten, whether anybody asks or not."""
    rate = noted(*(float(second) for second in range(3600)))
    assert len(rate._seconds) <= WINDOW_S + 2
