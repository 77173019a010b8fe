"""Measured times, and the figures computed from them: per round, then medians and ratios. Pure."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

#: The contender that all ratios compare with.
BASELINE = "raw"
#: Fields of `Sample`, in the order in which they are shown.
METRICS = (
    "decode_tokens_per_s",
    "tokens_per_s",
    "ttft_s",
    "cpu_ms_per_token",
    "host_us_per_step",
    "worker_us_per_step",
    "joules_per_token",
    "peak_bytes",
)
#: The main thread in a `HostStamp`: in a server, that of the event loop.
MAIN_THREAD = 0
#: Fewer decode steps between two stamps tell nothing about one of them.
_MIN_HOST_STEPS = 8
#: Tokens that follow each other faster were handed over together: no model computes as fast.
_TOGETHER_S = 0.00025


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
class HostStamp:
    """CPU seconds of every Python thread of a process so far, by thread, at one time since the batch's beginning."""

    time_s: float
    spent_s: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests that were sent together.

    Attributes:
        cpu_s: CPU time of the contender's process; None = unknown.
        host: stamps of the contender's host time in the order of their times; none = unknown.
        peak_bytes: the most that MLX had allocated above what it had before; None = unknown.
    """

    rows: tuple[Row, ...]
    cpu_s: float | None
    host: tuple[HostStamp, ...] = ()
    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures of one contender in one round.

    Attributes:
        decode_tokens_per_s: tokens per second while all rows of the batch decode: from the last row's first token to
            the first row's last token. None when there is no such time.
        tokens_per_s: completion tokens over the whole time, prefill included.
        ttft_s: time to first token, median of the rows.
        cpu_ms_per_token: CPU time per completion token, prefill included.
        host_us_per_step: CPU time of all Python threads per decode step: from the last row's first token to the last
            token of all. None when too few steps are in between, or the times of the threads are not known.
        worker_us_per_step: the part of the thread that took most of it, the main thread aside: the one that steps the
            model. None also when it cannot be told.
        joules_per_token: energy of the whole machine per completion token, prefill included; None = not measured.
        peak_bytes: see `Batch`.
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
    host_us_per_step: float | None = None
    worker_us_per_step: float | None = None
    joules_per_token: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, minimum and maximum over several rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of one contender over all rounds.

    Attributes:
        ratio: to the baseline of the same round.
        above: less the baseline of the same round.
    """

    workload: str
    contender: str
    metric: str
    value: Spread | None
    ratio: Spread | None
    above: Spread | None = None


def sample_of(batch: Batch, *, workload: str, contender: str, number: int, joules: float | None = None) -> Sample:
    """Pure: the figures of one batch. `joules`: what the machine took meanwhile; None = unknown."""
    rows = batch.rows
    num_tokens = sum(row.num_tokens for row in rows)
    end_s = max(row.last_s for row in rows)
    host_us, worker_us = _host_us_per_step(rows, batch.host)
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
        host_us_per_step=host_us,
        worker_us_per_step=worker_us,
        joules_per_token=None if joules is None else joules / max(num_tokens, 1),
        peak_bytes=batch.peak_bytes,
    )


def _decode_tokens_per_s(rows: Sequence[Row]) -> float | None:
    begin_s, end_s = max(row.first_s for row in rows), min(row.last_s for row in rows)
    if end_s <= begin_s:
        return None
    return sum(_num_decoded(row, begin_s, end_s) for row in rows) / (end_s - begin_s)


def _num_decoded(row: Row, begin_s: float, end_s: float) -> float:
    """Tokens of a row between two times; those without a time are spread over those that have one.

    Those that came together are spread over the time since the ones before.
    """
    decoded = 0.0
    for (before, _), (after, num_tokens) in itertools.pairwise(_arrivals(row.times_s)):
        decoded += num_tokens * max(min(after, end_s) - max(before, begin_s), 0.0) / (after - before)
    return decoded * row.num_tokens / len(row.times_s)


def _arrivals(times_s: Sequence[float]) -> list[tuple[float, int]]:
    """When tokens came, and how many together."""
    arrivals: list[tuple[float, int]] = []
    for time_s in times_s:
        if arrivals and time_s - arrivals[-1][0] < _TOGETHER_S:
            arrivals[-1] = arrivals[-1][0], arrivals[-1][1] + 1
        else:
            arrivals.append((time_s, 1))
    return arrivals


def _host_us_per_step(rows: Sequence[Row], stamps: Sequence[HostStamp]) -> tuple[float | None, float | None]:
    """Microseconds of all Python threads, and of the worker, between the first and last stamp while rows decode.

    No row joins meanwhile, so that every step gives a token to the row that ends last.
    """
    begin_s = max(row.first_s for row in rows)
    longest = max(rows, key=lambda row: row.last_s)
    within = [stamp for stamp in stamps if begin_s <= stamp.time_s <= longest.last_s]
    if not within:
        return None, None
    first, last = within[0], within[-1]
    num_steps = _num_decoded(longest, first.time_s, last.time_s)
    if num_steps < _MIN_HOST_STEPS or not last.spent_s:
        return None, None
    spent_us = {
        thread: (spent_s - first.spent_s.get(thread, 0.0)) * 1e6 / num_steps for thread, spent_s in last.spent_s.items()
    }
    return sum(spent_us.values()), max((us for thread, us in spent_us.items() if thread != MAIN_THREAD), default=None)


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
    above = [value - baselines[number] for number, value in values.items() if number in baselines]
    return Figure(workload, contender, metric, spread_of(values.values()), spread_of(ratios), spread_of(above))


def _by_round(samples: Sequence[Sample], workload: str, contender: str, metric: str) -> dict[int, float]:
    mine = (sample for sample in samples if (sample.workload, sample.contender) == (workload, contender))
    return {sample.round: value for sample in mine if (value := getattr(sample, metric)) is not None}
