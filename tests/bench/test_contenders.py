"""Which prompts contenders get, and in which order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from periscope.bench.contenders import WARM_UP_TOKENS, Ask, Workload, measure
from periscope.bench.samples import Batch, Row


class Recorder:
    """A contender that records its prompts."""

    def __init__(self, name: str, log: list[tuple[str, tuple[Ask, ...]]]) -> None:
        self.name = name
        self._log = log

    async def run(self, asks: Sequence[Ask]) -> Batch | None:
        self._log.append((self.name, tuple(asks)))
        return Batch(tuple(Row(ask.max_tokens, (1.0, 2.0)) for ask in asks), cpu_s=None)


def run(rounds: int, workloads: Sequence[Workload]) -> tuple[list[tuple[str, tuple[Ask, ...]]], list[int]]:
    log: list[tuple[str, tuple[Ask, ...]]] = []
    contenders = [Recorder("raw", log), Recorder("engine", log)]
    samples = asyncio.run(measure(contenders, workloads, rounds=rounds, max_tokens=64, tell=lambda _: None))
    assert [sample.contender for sample in samples] == ["raw"] * rounds + ["engine"] * rounds
    return log, [sample.round for sample in samples]


def test_contenders_take_turns_on_the_same_prompts() -> None:
    """In each round all contenders get the same prompts one after the other, and none always goes first."""
    log, _ = run(3, [Workload("2", 2, 5)])
    pairs = list(itertools.pairwise(log))[::2]
    assert all(one[1:] == other[1:] for one, other in pairs)
    assert [one[0] for one, _ in pairs] == ["raw", "engine", "raw", "engine"]


def test_the_warm_up_is_short_and_not_counted() -> None:
    """All contenders run round 0, and no sample reports it."""
    log, rounds = run(2, [Workload("1", 1, 5)])
    assert [asks[0].max_tokens for _, asks in log] == [WARM_UP_TOKENS] * 2 + [64] * 4
    assert rounds == [1, 2, 1, 2]


def test_the_others_go_on_when_a_contender_drops_out() -> None:
    """When a contender fails, the others are still measured, and its earlier samples still count."""

    class Dropout(Recorder):
        async def run(self, asks: Sequence[Ask]) -> Batch | None:
            return None if len(asks) > 1 else await super().run(asks)

    contenders = [Recorder("raw", []), Dropout("peer", [])]
    workloads = [Workload("1", 1, 5), Workload("2", 2, 5)]
    samples = asyncio.run(measure(contenders, workloads, rounds=1, max_tokens=64, tell=lambda _: None))
    assert [(sample.workload, sample.contender) for sample in samples] == [("1", "raw"), ("1", "peer"), ("2", "raw")]


def test_no_round_begins_when_the_time_is_up() -> None:
    """The first is always measured, and the user learns how many there were."""
    told: list[str] = []
    workloads = [Workload("1", 1, 5)]
    samples = asyncio.run(measure([Recorder("raw", [])], workloads, rounds=5, max_tokens=9, tell=told.append, max_s=0))
    assert [sample.round for sample in samples] == [1]
    assert told == ["warming up", "round 1 of 5", "the time is up after 1 of 5 rounds"]


def test_energy_is_that_of_the_batch() -> None:
    """What the machine took from its beginning to its end, per token; unknown while one of both is."""
    readings = iter([None, 2.0, 8.0])  # the first is of the round that warms up
    samples = asyncio.run(
        measure(
            [Recorder("raw", [])],
            [Workload("2", 2, 5)],
            rounds=1,
            max_tokens=3,
            tell=lambda _: None,
            joules=lambda: next(readings),
        )
    )
    assert [sample.joules_per_token for sample in samples] == [1.0]


def test_prompts_of_different_rounds_share_no_prefix() -> None:
    """No prompt cache helps between rounds; rows of one round share a prefix only in the workload that measures it."""
    plain, sharing = Workload("3", 3, 20), Workload("shared", 3, 20, num_shared=30)
    prompts = [ask.prompt for workload in (plain, sharing) for number in (1, 2) for ask in workload.asks(number, 9)]
    assert len({tuple(prompt.split()[:4]) for prompt in prompts}) == 3 + 3 + 1 + 1
    same = [ask.prompt for ask in sharing.asks(1, 9)]
    assert len({tuple(prompt.split()[:30]) for prompt in same}) == 1
    assert len(set(same)) == 3
    assert {len(prompt.split()) for prompt in prompts} == {20, 50}


def test_ragged_requests_are_of_different_lengths_and_the_same_for_all() -> None:
    """Prompts and answers differ in length within their bounds, requests arrive one by one, and a round repeats."""
    workload = Workload("16, arriving", 16, 50, is_ragged=True, mean_gap_s=0.02)
    asks = workload.asks(1, 40)
    assert asks == workload.asks(1, 40)
    assert asks != workload.asks(2, 40)
    sizes = [(len(ask.prompt.split()), ask.max_tokens) for ask in asks]
    assert len(set(sizes)) > 8
    assert all(5 <= num_words <= 50 and 8 <= num_tokens <= 40 for num_words, num_tokens in sizes)
    arrivals = [ask.after_s for ask in asks]
    assert arrivals == sorted(set(arrivals))
    assert arrivals[0] == 0.0
