"""The arithmetic of a benchmark."""

from __future__ import annotations

import dataclasses

import pytest

from periscope.bench.samples import MAIN_THREAD, Batch, HostStamp, Row, Sample, Spread, figures_of, sample_of, spread_of


def sample(contender: str, number: int, *, tokens_per_s: float = 1.0, ttft_s: float = 1.0) -> Sample:
    return Sample(
        workload="1",
        contender=contender,
        round=number,
        num_rows=1,
        num_tokens=8,
        decode_tokens_per_s=None,
        tokens_per_s=tokens_per_s,
        ttft_s=ttft_s,
        cpu_ms_per_token=None,
    )


def test_decoding_is_measured_while_all_rows_decode() -> None:
    """The decode rate counts only the time in which all rows decode; the end-to-end rate counts all of it."""
    early, late = Row(5, (1.0, 1.5, 2.0, 2.5, 3.0)), Row(7, (2.0, 2.25, 2.5, 3.0, 4.0, 5.0, 6.0))
    batch = Batch((early, late), cpu_s=0.6)
    made = sample_of(batch, workload="2", contender="engine", number=3)
    assert made == Sample(
        workload="2",
        contender="engine",
        round=3,
        num_rows=2,
        num_tokens=12,
        decode_tokens_per_s=(2 + 3) / 1.0,
        tokens_per_s=12 / 6.0,
        ttft_s=1.5,
        cpu_ms_per_token=50.0,
    )


def test_what_cannot_be_known_is_left_out() -> None:
    """One token has no decode rate, and a process whose CPU time is unknown has no CPU time per token."""
    made = sample_of(Batch((Row(1, (0.5,)),), cpu_s=None), workload="1", contender="http", number=1)
    assert (made.decode_tokens_per_s, made.cpu_ms_per_token) == (None, None)
    assert made.tokens_per_s == 2.0


def test_ratios_are_of_the_same_round() -> None:
    """A slow minute that hits both contenders alike changes no ratio."""
    rounds = [(1, 100.0, 50.0), (2, 10.0, 5.0), (3, 40.0, 30.0)]
    samples = [sample("raw", number, tokens_per_s=raw) for number, raw, _ in rounds]
    samples += [sample("engine", number, tokens_per_s=ours) for number, _, ours in rounds]
    figures = {(figure.contender, figure.metric): figure for figure in figures_of(samples)}
    assert figures["engine", "tokens_per_s"].value == Spread(30.0, 5.0, 50.0)
    assert figures["engine", "tokens_per_s"].ratio == Spread(0.5, 0.5, 0.75)
    assert figures["raw", "tokens_per_s"].ratio == Spread(1.0, 1.0, 1.0)
    assert figures["engine", "cpu_ms_per_token"].value is None
    assert figures["engine", "cpu_ms_per_token"].ratio is None


def test_a_round_without_its_baseline_has_no_ratio() -> None:
    """A sample is never compared with the baseline of another round."""
    alone = figures_of([sample("raw", 1), sample("engine", 2)])
    assert all(figure.ratio is None for figure in alone if figure.contender == "engine")


def test_figures_stand_in_the_order_of_the_samples() -> None:
    """The table shows workloads and contenders as they were run."""
    other = [dataclasses.replace(sample("raw", 1), workload="16")]
    keys = [(figure.workload, figure.contender) for figure in figures_of([sample("raw", 1), sample("http", 1), *other])]
    assert list(dict.fromkeys(keys)) == [("1", "raw"), ("1", "http"), ("16", "raw")]


def test_what_is_above_the_baseline_is_of_the_same_round() -> None:
    """The difference is taken within each round, too; the baseline is nothing above itself."""
    samples = [sample("raw", 1, ttft_s=1.0), sample("raw", 2, ttft_s=2.0)]
    samples += [sample("http", 1, ttft_s=1.25), sample("http", 2, ttft_s=2.5), sample("http", 3, ttft_s=9.0)]
    above = {figure.contender: figure.above for figure in figures_of(samples) if figure.metric == "ttft_s"}
    assert above == {"raw": Spread(0.0, 0.0, 0.0), "http": Spread(0.375, 0.25, 0.5)}


WORKER, EXECUTOR = 41, 42
#: A row's tokens, one each twentieth of a second, from the first second to the second.
STEPS = tuple(1 + step / 20 for step in range(21))


def host_us(*rows: Row, stamps: tuple[HostStamp, ...]) -> tuple[float | None, float | None]:
    made = sample_of(Batch(rows, cpu_s=None, host=stamps), workload="2", contender="http", number=1)
    return made.host_us_per_step, made.worker_us_per_step


def test_host_time_is_of_the_steps_after_all_rows_have_begun() -> None:
    """All Python threads count, the busiest but for the main one is the worker; what was before or after does not."""
    stamps = (
        HostStamp(0.5, {MAIN_THREAD: 0.1, WORKER: 0.1}),
        HostStamp(1.0, {MAIN_THREAD: 7.0, WORKER: 5.0}),
        HostStamp(1.5, {MAIN_THREAD: 7.5, WORKER: 5.1}),
        HostStamp(2.0, {MAIN_THREAD: 7.003, WORKER: 5.005, EXECUTOR: 0.001}),
        HostStamp(3.0, {MAIN_THREAD: 7.006, WORKER: 5.01, EXECUTOR: 0.002}),
        HostStamp(4.0, {MAIN_THREAD: 99.0, WORKER: 99.0}),
    )
    alike = Row(21, STEPS)
    assert host_us(alike, alike, stamps=stamps) == pytest.approx((450.0, 250.0))
    early, later = Row(2, (0.2, 0.4)), Row(42, (*STEPS, *(2 + step / 20 for step in range(1, 22))))
    assert host_us(early, alike, later, stamps=stamps) == pytest.approx((450.0, 250.0))


def test_host_time_that_cannot_be_known_is_left_out() -> None:
    """Too few steps, no stamps, a process that has ended; and no worker where threads are not told apart."""
    stamps = (HostStamp(1.0, {MAIN_THREAD: 1.0}), HostStamp(1.25, {MAIN_THREAD: 1.5}), HostStamp(2.0, {}))
    row = Row(21, STEPS)
    assert host_us(row, stamps=()) == (None, None)
    assert host_us(row, stamps=stamps[:2]) == (None, None)
    assert host_us(row, stamps=stamps) == (None, None)
    assert host_us(Row(1, (1.0,)), stamps=stamps) == (None, None)
    whole = (stamps[0], HostStamp(2.0, {MAIN_THREAD: 1.005}))
    host, worker = host_us(row, stamps=whole)
    assert host == pytest.approx(250.0)
    assert worker is None


@pytest.mark.parametrize(
    ("values", "expected"), [([], None), ([None], None), ([3.0, None, 1.0, 2.0], Spread(2.0, 1.0, 3.0))]
)
def test_a_spread_is_of_what_is_there(values: list[float | None], expected: Spread | None) -> None:
    """Missing values are left out of a spread instead of counting as zeros."""
    assert spread_of(values) == expected
