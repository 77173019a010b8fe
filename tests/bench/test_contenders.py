"""Which prompts contenders get, and in which order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from periscope.bench.contenders import WARM_UP_TOKENS, Workload, measure
from periscope.bench.samples import Batch, Row


class Recorder:
    """A contender that records its prompts."""

    def __init__(self, name: str, log: list[tuple[str, tuple[str, ...], int]]) -> None:
        self.name = name
        self._log = log

    async def run(self, prompts: Sequence[str], max_tokens: int) -> Batch | None:
        self._log.append((self.name, tuple(prompts), max_tokens))
        return Batch(tuple(Row(max_tokens, (1.0, 2.0)) for _ in prompts), cpu_s=None)


def run(rounds: int, workloads: Sequence[Workload]) -> tuple[list[tuple[str, tuple[str, ...], int]], list[int]]:
    log: list[tuple[str, tuple[str, ...], int]] = []
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
    assert [max_tokens for _, _, max_tokens in log] == [WARM_UP_TOKENS] * 2 + [64] * 4
    assert rounds == [1, 2, 1, 2]


def test_the_others_go_on_when_a_contender_drops_out() -> None:
    """When a contender fails, the others are still measured, and its earlier samples still count."""

    class Dropout(Recorder):
        async def run(self, prompts: Sequence[str], max_tokens: int) -> Batch | None:
            return None if len(prompts) > 1 else await super().run(prompts, max_tokens)

    contenders = [Recorder("raw", []), Dropout("peer", [])]
    workloads = [Workload("1", 1, 5), Workload("2", 2, 5)]
    samples = asyncio.run(measure(contenders, workloads, rounds=1, max_tokens=64, tell=lambda _: None))
    assert [(sample.workload, sample.contender) for sample in samples] == [("1", "raw"), ("1", "peer"), ("2", "raw")]


def test_prompts_of_different_rounds_share_no_prefix() -> None:
    """No prompt cache helps between rounds; rows of one round share a prefix only in the workload that measures it."""
    plain, sharing = Workload("3", 3, 20), Workload("shared", 3, 20, num_shared=30)
    prompts = [prompt for workload in (plain, sharing) for number in (1, 2) for prompt in workload.prompts(number)]
    assert len({tuple(prompt.split()[:4]) for prompt in prompts}) == 3 + 3 + 1 + 1
    assert len({tuple(prompt.split()[:30]) for prompt in sharing.prompts(1)}) == 1
    assert len(set(sharing.prompts(1))) == 3
    assert {len(prompt.split()) for prompt in prompts} == {20, 50}
