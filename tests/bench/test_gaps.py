"""The arithmetic of the gaps between tokens."""

from __future__ import annotations

import itertools

import pytest

from periscope.bench.gaps import (
    NEIGHBOUR_METRICS,
    NeighbourSample,
    TimedRequest,
    gaps_in,
    is_steady,
    neighbour_figures_of,
    neighbour_sample_of,
)
from periscope.bench.samples import Spread


def times(*gaps: float) -> list[float]:
    return list(itertools.accumulate(gaps, initial=0.0))


#: Twenty steps of 0.5 s; a long prompt comes at 10 s, its first token at 18 s, its last at 20 s.
RUNNING = times(*[0.5] * 20, 4.0, 0.5, 2.5, 1.0, 1.0, 0.5, 0.75, 3.0)
LONG = TimedRequest(10.0, (18.0, 19.0, 20.0))


def sample_of(long: TimedRequest = LONG, running: list[list[float]] | None = None) -> NeighbourSample:
    return neighbour_sample_of(
        running or [RUNNING],
        long=long,
        short=TimedRequest(11.0, (14.0, 14.5)),
        alone=TimedRequest(1.0, (3.0,)),
        captioning=(14.0, 17.0),
        number=2,
        num_prompt_tokens=600,
    )


def test_gaps_are_counted_in_ordinary_steps() -> None:
    """A step is the median gap before the long prompt was sent, whatever happens later."""
    sample = sample_of()
    assert sample == NeighbourSample(
        round=2,
        num_prompt_tokens=600,
        step_s=0.5,
        longest_gap_steps=8.0,
        p99_gap_steps=8.0,
        short_ttft_steps=6.0,
        long_ttft_s=8.0,
        long_alone_ttft_s=2.0,
        joined_step_steps=1.5,
        joined_longest_gap_steps=2.0,
        captioning_rate=sample.captioning_rate,
    )


def test_captions_are_compared_with_as_much_time_after_them() -> None:
    """Gaps of 0.5 and 2.5 s while pictures are captioned, then of 1, 1, 0.5 and 0.75 s."""
    assert sample_of().captioning_rate == pytest.approx(0.8125 / 1.5)


def test_a_gap_belongs_to_the_time_its_middle_is_in() -> None:
    """The gap in which the long prompt arrives counts as caused by it, and each gap counts once."""
    answer = times(1.0, 1.0, 4.0, 1.0)
    assert gaps_in([answer], end_s=2.5) == [1.0, 1.0]
    assert gaps_in([answer], 2.5, 6.5) == [4.0]
    assert gaps_in([answer], 6.5) == [1.0]
    assert gaps_in([answer]) == [1.0, 1.0, 4.0, 1.0]


def test_from_one_answer_to_the_next_is_no_gap() -> None:
    """The time between two answers of the running stream is not a gap in it."""
    assert gaps_in([[0.0, 1.0], [], [9.0], [20.0, 21.0, 23.0]]) == [1.0, 1.0, 2.0]


def test_of_a_hundred_gaps_one_may_be_longer_than_the_99th_percentile() -> None:
    """The 99th percentile ignores the longest of a hundred gaps, but not the second longest."""
    one, two = ([0.5] * 20 + [0.1] * (100 - many) + [4.0] * many + [0.5] * 8 for many in (1, 2))
    told = [sample_of(TimedRequest(10.0, (times(*gaps)[120],)), [times(*gaps)]) for gaps in (one, two)]
    assert [sample.longest_gap_steps for sample in told] == pytest.approx([8.0, 8.0])
    assert [sample.p99_gap_steps for sample in told] == pytest.approx([0.2, 8.0])


def test_a_long_row_that_never_decoded_has_no_steps() -> None:
    """Samples and figures leave these metrics out instead of reporting zeros."""
    alone = sample_of(TimedRequest(10.0, (18.0,)))
    assert (alone.joined_step_steps, alone.joined_longest_gap_steps) == (None, None)
    figures = {figure.metric: figure.value for figure in neighbour_figures_of([alone, alone])}
    assert figures["joined_step_steps"] is None
    assert figures["longest_gap_steps"] == Spread(8.0, 8.0, 8.0)
    assert tuple(figures) == NEIGHBOUR_METRICS


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ([1.0] * 63, False),
        ([1.0] * 64, True),
        ([2.0] * 40 + [1.0] * 24, False),
        ([2.0] * 40 + [1.0] * 48, True),
        ([1.0, 9.0] * 10 + [1.0] * 48, True),
        ([2.0] * 490 + [1.0] * 21, False),
        ([2.0] * 490 + [1.0] * 22, True),
    ],
)
def test_a_stream_is_steady_once_it_keeps_its_pace(gaps: list[float], expected: bool) -> None:
    """A stream is not steady before its pace has settled, and always is after the maximum of gaps."""
    assert is_steady(gaps) is expected
