"""Measured times, and the figures computed from them: per round, then medians and ratios. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: The contender that all ratios compare with.
BASELINE = "raw"
#: Fields of `Sample`, in the order in which they are shown.
METRICS = ("decode_tokens_per_s", "tokens_per_s", "ttft_s", "cpu_ms_per_token")


@dataclass(frozen=True, slots=True)
class Row:
    """One request of a batch.

    Attributes:
        num_tokens: as the contender counted them; tokens without visible text have no time.
        times_s: arrival times of tokens, at least one, in seconds since the beginning of the batch.
        sent_s: when the request was sent, likewise.
    """

    num_tokens: int
    times_s: tuple[float, ...]
    sent_s: float = 0.0

    @property
    def ttft_s(self) -> float:
        """Time to first token."""
        return self.times_s[0] - self.sent_s

    @property
    def first_s(self) -> float:
        """Arrival time of the first token."""
        return self.times_s[0]

    @property
    def last_s(self) -> float:
        """Arrival time of the last token."""
        return self.times_s[-1]


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests that were sent together. `cpu_s`: CPU time of the contender's process; None = unknown."""

    rows: tuple[Row, ...]
    cpu_s: float | None


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures of one contender in one round.

    Attributes:
        decode_tokens_per_s: tokens per second while all rows of the batch decode: from the last row's first token to
            the first row's last token. None when there is no such time.
        tokens_per_s: completion tokens over the whole time, prefill included.
        ttft_s: time to first token, median of the rows.
        cpu_ms_per_token: CPU time per completion token, prefill included.
    """

    workload: str
    contender: str
    round: int
    num_rows: int
    num_tokens: int
    decode_tokens_per_s: float | None
    tokens_per_s: float
    ttft_s: float
    cpu_ms_per_token: float | None


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, minimum and maximum over several rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of one contender over all rounds. `ratio`: to the baseline of the same round."""

    workload: str
    contender: str
    metric: str
    value: Spread | None
    ratio: Spread | None


def sample_of(batch: Batch, *, workload: str, contender: str, number: int) -> Sample:
    """Pure: the figures of one batch."""
    rows = batch.rows
    num_tokens = sum(row.num_tokens for row in rows)
    end_s = max(row.last_s for row in rows)
    return Sample(
        workload=workload,
        contender=contender,
        round=number,
        num_rows=len(rows),
        num_tokens=num_tokens,
        decode_tokens_per_s=_decode_tokens_per_s(rows),
        tokens_per_s=num_tokens / end_s,
        ttft_s=statistics.median(row.ttft_s for row in rows),
        cpu_ms_per_token=None if batch.cpu_s is None else batch.cpu_s * 1000 / max(num_tokens, 1),
    )


def _decode_tokens_per_s(rows: Sequence[Row]) -> float | None:
    begin_s, end_s = max(row.first_s for row in rows), min(row.last_s for row in rows)
    if end_s <= begin_s:
        return None
    num_decoded = 0.0
    for row in rows:
        num_shown = sum(begin_s < time_s <= end_s for time_s in row.times_s)
        num_decoded += num_shown * row.num_tokens / len(row.times_s)
    return num_decoded / (end_s - begin_s)


def spread_of(values: Iterable[float | None]) -> Spread | None:
    """Pure: the spread of the values that are not None; None when there are none."""
    known = [value for value in values if value is not None]
    return Spread(statistics.median(known), min(known), max(known)) if known else None


def figures_of(samples: Sequence[Sample]) -> list[Figure]:
    """Pure: one figure per workload, contender and metric, in the order of the samples."""
    groups = dict.fromkeys((sample.workload, sample.contender) for sample in samples)
    return [_figure(samples, workload, contender, metric) for workload, contender in groups for metric in METRICS]


def _figure(samples: Sequence[Sample], workload: str, contender: str, metric: str) -> Figure:
    values = _by_round(samples, workload, contender, metric)
    baselines = _by_round(samples, workload, BASELINE, metric)
    ratios = [value / base for number, value in values.items() if (base := baselines.get(number))]
    return Figure(workload, contender, metric, spread_of(values.values()), spread_of(ratios))


def ttft_above_baseline_ms(samples: Sequence[Sample], workload: str, contender: str) -> Spread | None:
    """Pure: time to first token less the baseline's of the same round, in milliseconds."""
    values = _by_round(samples, workload, contender, "ttft_s")
    baselines = _by_round(samples, workload, BASELINE, "ttft_s")
    return spread_of((value - baselines[number]) * 1000 for number, value in values.items() if number in baselines)


def _by_round(samples: Sequence[Sample], workload: str, contender: str, metric: str) -> dict[int, float]:
    mine = (sample for sample in samples if (sample.workload, sample.contender) == (workload, contender))
    return {sample.round: value for sample in mine if (value := getattr(sample, metric)) is not None}
