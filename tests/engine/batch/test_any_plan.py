"""Whatever a step begins with, its plan can be applied, is the same each time, and keeps the gaps of rows short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from periscope.engine.batch.prefill import GAP_STEPS
from periscope.engine.batch.scheduler import Scheduler
from periscope.engine.batch.sharing import Source, StateView
from periscope.engine.batch.step_plan import (
    MemoryView,
    Prefill,
    PromptView,
    RowView,
    SchedulerView,
    Start,
    StepPlan,
)
from periscope.engine.batch.timings import Timings
from tests.engine.batch.planning import (
    BLOCK,
    DECODING,
    NUM_SLICES,
    PLENTY,
    SCHEDULER,
    plan,
    prompt,
    row,
    tokens,
)


@st.composite
def views(draw: st.DrawFn) -> SchedulerView:
    """Any mixture of prompts in all states and rows, with memory for all or for few of them."""
    num_rows = draw(st.integers(0, 4))
    rows = [
        RowView(
            number,
            tokens(draw(st.integers(1, 400)), draw(st.integers(0, 2))),
            600,
            draw(st.integers(1, 5000)),
            draw(st.integers(0, 20)),
        )
        for number in range(1, num_rows + 1)
    ]
    prompts = [
        _drawn_prompt(draw, number, may_start=number + num_rows <= 4)
        for number in range(10, 10 + draw(st.integers(0, 5)))
    ]
    memory = MemoryView(
        draw(st.integers(0, 20_000)),
        draw(st.integers(0, 5000)),
        draw(st.integers(0, 10_000)),
        draw(st.sampled_from([0, 256, 4096])),
        0,
        draw(st.booleans()),
    )
    kept = [
        StateView(Source.KEPT, key, tokens(key * 50, key % 3), key * 50) for key in draw(st.sets(st.integers(1, 8)))
    ]
    ids = [*(each.row_id for each in rows), *(each.row_id for each in prompts)]
    removed = draw(st.sets(st.sampled_from(ids))) if ids else set()
    return SchedulerView(memory, prompts, (rows[:2], rows[2:]) if rows[2:] else (rows,), kept, (), frozenset(removed))


def _drawn_prompt(draw: st.DrawFn, row_id: int, *, may_start: bool) -> PromptView:
    length = draw(st.integers(1, 3000))
    view = PromptView(row_id, tokens(length, draw(st.integers(0, 2))), length + BLOCK, (draw(st.integers(1, 3000)),))
    if not (may_start and draw(st.booleans())):
        return view
    computed = draw(st.integers(0, length - 1))
    num_chunk = draw(st.integers(0, min(128, length - 1 - computed)))
    num_slices = draw(st.integers(1, NUM_SLICES)) if num_chunk else 0
    return replace(view, is_started=True, num_computed=computed, num_chunk_tokens=num_chunk, num_slices_left=num_slices)


seconds = st.none() | st.floats(1e-6, 10)


per_prompt = st.dictionaries(st.integers(10, 15), st.floats(0, 10))


@given(views(), st.builds(Timings, seconds, seconds, per_prompt, per_prompt))
def test_the_same_view_and_timings_give_the_same_plan(view: SchedulerView, timings: Timings) -> None:
    """Another scheduler makes the same plan from copies of both, so machines that shard a model agree."""
    copied = replace(
        view,
        prompts=[replace(each, tokens=each.tokens.copy()) for each in view.prompts],
        batches=[[replace(each, prompt=each.prompt.copy()) for each in batch] for batch in view.batches],
        kept=[replace(each, tokens=each.tokens.copy()) for each in view.kept],
    )
    other = Scheduler(replace(SCHEDULER._settings))
    planned = SCHEDULER.plan(view, timings)
    assert planned == SCHEDULER.plan(view, timings) == other.plan(copied, replace(timings))
    assert_can_be_applied(planned, view)


def assert_can_be_applied(planned: StepPlan, view: SchedulerView) -> None:
    """Check that slices belong to chunks, chunks lie within their prompts, and rows are bounded."""
    prompts = {each.row_id: each for each in view.prompts}
    starts = {start.row_id: start for start in planned.starts}
    assert not any(prompts[row_id].is_started or row_id in view.removed for row_id in starts)
    assert_prefills(planned.prefills, prompts, starts)
    for row_id in planned.joins:
        assert row_id not in view.removed
        assert prompts[row_id].is_started or row_id in starts
    oldest = min((row_id for row_id in [*prompts, *(r.row_id for b in view.batches for r in b)]), default=None)
    assert oldest not in planned.preempts
    num_rows = sum(len(batch) for batch in view.batches) + sum(each.is_started for each in view.prompts)
    assert not starts or num_rows - len(view.removed) + len(starts) <= 4


def assert_prefills(prefills: Sequence[Prefill], prompts: dict[int, PromptView], starts: dict[int, Start]) -> None:
    under_way = {row_id: (each.num_chunk_tokens, each.num_slices_left) for row_id, each in prompts.items()}
    computed = {row_id: each.num_computed for row_id, each in prompts.items()}
    for row_id, start in starts.items():
        computed[row_id] = 0 if start.prefix is None else start.prefix.num_tokens
    for item in prefills:
        assert prompts[item.row_id].is_started or item.row_id in starts
        num_tokens, num_left = under_way[item.row_id]
        if item.num_tokens:
            assert not num_left
            num_tokens, num_left = item.num_tokens, NUM_SLICES
            assert 1 <= num_tokens <= min(128, len(prompts[item.row_id].tokens) - 1 - computed[item.row_id])
        assert 1 <= item.num_slices <= num_left
        under_way[item.row_id] = (num_tokens, num_left - item.num_slices)
        if item.num_slices == num_left:
            computed[item.row_id] += num_tokens


@pytest.mark.parametrize("num_running", [1, 3])
def test_what_is_planned_fits_the_gap(num_running: int) -> None:
    """By the known costs, the slices of one plan take at most the gap and half a slice."""
    batches = (tuple(row(number) for number in range(1, num_running + 1)),)
    planned = plan(prompt(10, 90), prompt(11, 3000), batches=batches)
    took = sum(each.num_slices * max(each.num_tokens * 0.01, 0.5) / NUM_SLICES for each in planned.prefills)
    assert took <= GAP_STEPS + 0.5 * 1.28 / NUM_SLICES


class Device(NamedTuple):
    """The cost of a chunk in decode steps: a fixed part, and a part per token that grows with the context."""

    pass_steps: float
    token_steps: float
    steps_per_context: float

    def slice_steps(self, num_tokens: int, num_computed: int) -> float:
        dearer = num_computed * self.steps_per_context
        whole = self.pass_steps + 10 * dearer + num_tokens * (self.token_steps + dearer)
        return whole / NUM_SLICES


class Simulation:
    """Owns a decoding row, prompts that arrive one after the other beside it, and the time that their plans take.

    `gaps`: in decode steps, one a plan.
    """

    def __init__(self, device: Device, spikes: frozenset[int]) -> None:
        self.gaps: list[float] = []
        self._device = device
        self._spikes = spikes
        self._timings = Timings(step_s=1.0)

    def prefill(self, row_id: int, length: int) -> None:
        view, spent_steps = prompt(row_id, length), 0.0
        while view.num_left or not view.is_started:
            planned = SCHEDULER.plan(SchedulerView(PLENTY, (view,), batches=DECODING), self._timings)
            slow = 15 if len(self.gaps) in self._spikes else 1
            gap = 0.0
            view = replace(view, is_started=True)
            for item in planned.prefills:
                if item.num_tokens:
                    view = replace(view, num_chunk_tokens=item.num_tokens, num_slices_left=NUM_SLICES)
                    spent_steps = 0.0
                slice_steps = slow * self._device.slice_steps(view.num_chunk_tokens, view.num_computed)
                gap += item.num_slices * slice_steps
                spent_steps += item.num_slices * slice_steps
                view = self._after(view, item.num_slices, slice_steps, spent_steps)
            self.gaps.append(gap)

    def _after(self, view: PromptView, num_slices: int, slice_s: float, spent_s: float) -> PromptView:
        """Where the prompt is, with the timings that an executor would have taken."""
        left, chunk = view.num_slices_left - num_slices, view.num_chunk_tokens
        if left:
            self._timings = replace(self._timings, slice_s={view.row_id: slice_s})
            return replace(view, num_slices_left=left)
        computed = view.num_computed + chunk
        token_s = spent_s / chunk if computed <= 256 else self._timings.token_s
        self._timings = Timings(1.0, token_s, {view.row_id: spent_s / chunk}, {})
        return replace(view, num_slices_left=0, num_chunk_tokens=0, num_computed=computed)


@given(
    st.builds(Device, st.floats(0.2, 2.0), st.floats(0.002, 0.5), st.floats(0, 2e-5)),
    st.frozensets(st.integers(0, 40), max_size=3),
    st.lists(st.integers(1, 400), max_size=4),
)
@settings(deadline=None, max_examples=30)
def test_thousands_of_tokens_are_prefilled_in_gaps_of_a_few_steps(
    device: Device, spikes: frozenset[int], before: list[int]
) -> None:
    """Gaps stay a few steps long whatever tokens and contexts cost, from the first plan on, and after slow steps."""
    simulation = Simulation(device, spikes)
    for number, length in enumerate([*before, 10_000]):
        simulation.prefill(10 + number, length)
    quiet = [gap for number, gap in enumerate(simulation.gaps) if number not in spikes]
    assert max(quiet) <= 9.0  # with the row's own step, ten
    assert sum(quiet) / len(quiet) >= GAP_STEPS / 3
