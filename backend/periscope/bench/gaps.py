"""Gaps between the tokens of a running stream while others arrive, in units of its usual step. Pure."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from periscope.bench.samples import Spread, spread_of

#: Fields of `NeighbourSample`, in the order in which they are shown.
NEIGHBOUR_METRICS = (
    "step_s",
    "longest_gap_steps",
    "p99_gap_steps",
    "short_ttft_steps",
    "long_ttft_s",
    "long_alone_ttft_s",
    "joined_step_steps",
    "joined_longest_gap_steps",
    "captioning_rate",
)
#: A stream is steady when the medians of its last two windows of this many gaps differ by at most this part.
_WINDOW = 24
_NEAR = 0.1
#: A stream with fewer gaps is not steady yet; one with more is taken to be as steady as the machine allows.
_MIN_GAPS = 64
_MAX_GAPS = 512


@dataclass(frozen=True, slots=True)
class TimedRequest:
    """One request: when it was sent, and when its tokens arrived (at least one), in seconds of the same clock."""

    asked_s: float
    times_s: tuple[float, ...]

    @property
    def ttft_s(self) -> float:
        """Time to first token in seconds."""
        return self.times_s[0] - self.asked_s


@dataclass(frozen=True, slots=True)
class NeighbourSample:
    """One round. A step is the running stream's median gap just before the long prompt was sent.

    Attributes:
        num_prompt_tokens: tokens of the long prompt, as the server counted them.
        step_s: the length of a step.
        longest_gap_steps: the running stream's longest gap while the long prompt is prefilled; `p99_gap_steps`: the
            99th percentile of these gaps.
        short_ttft_steps: time to first token of the short prompt, which is sent a little after the long one.
        long_alone_ttft_s: time to first token of another prompt of the same length on an idle server.
        joined_step_steps: the running stream's median gap while the long row decodes too; `joined_longest_gap_steps`:
            the longest of these gaps. None when there were none.
        captioning_rate: the running stream's tokens per second while pictures are captioned, as a part of those in as
            much time afterwards.
    """

    round: int
    num_prompt_tokens: int
    step_s: float
    longest_gap_steps: float
    p99_gap_steps: float
    short_ttft_steps: float
    long_ttft_s: float
    long_alone_ttft_s: float
    joined_step_steps: float | None
    joined_longest_gap_steps: float | None
    captioning_rate: float


@dataclass(frozen=True, slots=True)
class NeighbourFigure:
    """The spread of one metric over all rounds."""

    metric: str
    value: Spread | None


def gaps_in(answers: Sequence[Sequence[float]], begin_s: float = -math.inf, end_s: float = math.inf) -> list[float]:
    """Pure: the gaps within a stream's answers, in seconds, whose middle is between `begin_s` and `end_s`."""
    pairs = [pair for times_s in answers for pair in itertools.pairwise(times_s)]
    return [after - before for before, after in pairs if begin_s <= (before + after) / 2 < end_s]


def is_steady(gaps: Sequence[float]) -> bool:
    """Pure: whether a stream's latest gaps are even enough to define a step."""
    if not _MIN_GAPS <= len(gaps) < _MAX_GAPS:
        return len(gaps) >= _MAX_GAPS
    before, now = (statistics.median(part) for part in (gaps[-2 * _WINDOW : -_WINDOW], gaps[-_WINDOW:]))
    return abs(now - before) <= _NEAR * before


def neighbour_sample_of(
    running: Sequence[Sequence[float]],
    *,
    long: TimedRequest,
    short: TimedRequest,
    alone: TimedRequest,
    captioning: tuple[float, float],
    number: int,
    num_prompt_tokens: int,
) -> NeighbourSample:
    """Pure: the figures of the round `number`.

    Args:
        running: arrival times of the running stream's tokens, one list per answer, by the same clock as the others.
        captioning: when pictures were sent to the captioner, and when the last caption was there.
    """
    step_s = statistics.median(gaps_in(running, end_s=long.asked_s)[-2 * _WINDOW :])
    beside = sorted(gap / step_s for gap in gaps_in(running, long.asked_s, long.times_s[0]))
    joined = [gap / step_s for gap in gaps_in(running, long.times_s[0], long.times_s[-1])]
    return NeighbourSample(
        round=number,
        num_prompt_tokens=num_prompt_tokens,
        step_s=step_s,
        longest_gap_steps=beside[-1],
        p99_gap_steps=beside[math.ceil(0.99 * len(beside)) - 1],
        short_ttft_steps=short.ttft_s / step_s,
        long_ttft_s=long.ttft_s,
        long_alone_ttft_s=alone.ttft_s,
        joined_step_steps=statistics.median(joined) if joined else None,
        joined_longest_gap_steps=max(joined, default=None),
        captioning_rate=_rate(running, *captioning) / _rate(running, *afterwards(*captioning)),
    )


def afterwards(begin_s: float, end_s: float) -> tuple[float, float]:
    """Pure: as much time, from the end on."""
    return end_s, 2 * end_s - begin_s


def _rate(running: Sequence[Sequence[float]], begin_s: float, end_s: float) -> float:
    """Pure: tokens per second within answers; the gaps decide, so that the time between two answers does not count."""
    return 1 / statistics.fmean(gaps_in(running, begin_s, end_s))


def neighbour_figures_of(samples: Sequence[NeighbourSample]) -> tuple[NeighbourFigure, ...]:
    """Pure: one figure per metric."""
    values = {metric: [getattr(sample, metric) for sample in samples] for metric in NEIGHBOUR_METRICS}
    return tuple(NeighbourFigure(metric, spread_of(of_all)) for metric, of_all in values.items())
