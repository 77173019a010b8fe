"""The scheduler's plans, case by case, and that they depend on nothing but the view and the timings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from periscope.engine.batch.grouping import LONG_TOKENS, Grouping
from periscope.engine.batch.prefill import GAP_STEPS
from periscope.engine.batch.scheduler import Scheduler, SchedulerSettings
from periscope.engine.batch.sharing import Prefix, Source, StateView
from periscope.engine.batch.step_plan import (
    Encode,
    MemoryView,
    Prefill,
    PromptView,
    RowView,
    SchedulerView,
    Start,
    StepPlan,
)
from periscope.engine.batch.timings import Measurements, Timings
from periscope.engine.device.memory import KVFootprint, _Layer

#: A block of 256 tokens takes this much.
BLOCK = 256
GROUPING = Grouping(KVFootprint((_Layer(1, None, 0),)), forward_pass_bytes=2**40)
NUM_SLICES = 6
SCHEDULER = Scheduler(
    SchedulerSettings(
        max_rows=4, max_chunk_tokens=128, num_slices=NUM_SLICES, shares_chunks=True, shares_live=True, grouping=GROUPING
    )
)
#: A token of prompt takes a hundredth of a decode step, so a chunk of 128 tokens takes 1.28 steps.
TIMINGS = Timings(step_s=1.0, token_s=0.01)
UNKNOWN = Timings()
PLENTY = MemoryView(room_bytes=2**30)


def tokens(length: int, kind: int = 0) -> np.ndarray:
    return np.arange(length) + 100_000 * kind


def prompt(row_id: int, length: int = 101, **changes: Any) -> PromptView:
    """A prompt that shares no prefix with another."""
    return PromptView(row_id, tokens(length, row_id), reach=length + BLOCK, **changes)


def row(row_id: int, num_bytes: int = 2 * BLOCK, num_generated: int = 100) -> RowView:
    return RowView(row_id, tokens(20, row_id), reach=BLOCK, num_bytes=num_bytes, num_generated=num_generated)


def plan(*prompts: PromptView, timings: Timings = TIMINGS, **view: Any) -> StepPlan:
    return SCHEDULER.plan(SchedulerView(**{"memory": PLENTY, "prompts": prompts, **view}), timings)


DECODING = ((row(1),),)


def test_with_nothing_to_decide_rows_decode() -> None:
    """Without prompts and growth, rows decode and their tokens stay in flight."""
    assert plan(batches=DECODING) == StepPlan()


def test_without_decoding_rows_one_whole_chunk_is_prefilled() -> None:
    """A prompt of one chunk joins in the same step; the next prompt waits for its turn."""
    done = plan(prompt(1), prompt(2))
    assert done == StepPlan(starts=(Start(1),), prefills=(Prefill(1, NUM_SLICES, 100),), joins=(1,), reads_now=True)
    begun = plan(prompt(1, 500))
    assert (begun.prefills, begun.joins) == ((Prefill(1, NUM_SLICES, 128),), ())


def test_a_prompt_without_anything_to_prefill_joins_beside_another_s_chunk() -> None:
    """A prompt of one token, or an exact repeat, joins at once, because it costs no time."""
    planned = plan(prompt(1, 1), prompt(2, 50))
    assert [start.row_id for start in planned.starts] == [1, 2]
    assert planned.prefills == (Prefill(2, NUM_SLICES, 49),)
    assert planned.joins == (1, 2)


def test_beside_decoding_rows_prompts_share_the_gap() -> None:
    """Three chunks that cost a step each fit a gap of three, and the complete prompts join."""
    prompts = [prompt(number) for number in range(2, 5)]
    planned = SCHEDULER.plan(SchedulerView(PLENTY, prompts, batches=DECODING), TIMINGS)
    assert [each.row_id for each in planned.prefills] == [2, 3, 4]
    assert planned.joins == (2, 3, 4)
    assert planned.reads_now


def test_a_burst_is_prefilled_before_rows_that_have_just_begun_go_on() -> None:
    """While all rows have just begun, and what is left takes little time, a step prefills a whole chunk."""
    begun = ((row(1, num_generated=3),),)
    quick = Timings(step_s=0.01, token_s=0.001)
    in_a_burst = plan(prompt(2), prompt(3), batches=begun, timings=quick)
    assert in_a_burst.prefills == (Prefill(2, NUM_SLICES, 100),)
    long_ago = ((row(1, num_generated=3), row(5)),)
    for batches, timings, length in (
        (long_ago, quick, 101),
        (begun, quick, 400),
        (begun, replace(quick, token_s=None), 101),
    ):
        planned = plan(prompt(2, length), prompt(3, length), batches=batches, timings=timings)
        assert planned.prefills[0].num_slices < NUM_SLICES


def test_what_is_not_measured_gets_one_slice_and_ends_the_plan() -> None:
    """While the cost of a slice is unknown, the plan has one slice and nothing after it."""
    planned = plan(prompt(2), prompt(3), batches=DECODING, timings=UNKNOWN)
    assert [(each.row_id, each.num_slices) for each in planned.prefills] == [(2, 1)]
    far_on = prompt(2, 2000, is_started=True, num_computed=1000)
    assert [each.num_slices for each in plan(far_on, batches=DECODING).prefills] == [1]


def test_a_chunk_under_way_goes_on_as_its_slices_were_measured() -> None:
    """As many measured slices as fill the gap are planned, and at least one, whatever it costs."""
    under_way = prompt(2, 500, is_started=True, num_chunk_tokens=128, num_slices_left=5)
    for slice_s, num_slices in ((1.0, 3), (0.5, 5), (50.0, 1)):
        planned = plan(under_way, batches=DECODING, timings=replace(TIMINGS, slice_s={2: slice_s}))
        assert planned.prefills[0] == Prefill(2, num_slices)


def test_a_chunk_ends_at_a_checkpoint() -> None:
    """A chunk ends at a checkpoint, so that the state can be kept there."""
    assert plan(prompt(1, 101, checkpoints=(40, 90))).prefills == (Prefill(1, NUM_SLICES, 40),)
    begun = prompt(1, 101, checkpoints=(40, 90), is_started=True, num_computed=40)
    assert plan(begun).prefills == (Prefill(1, NUM_SLICES, 50),)


def test_no_more_prompts_are_started_than_rows_are_free() -> None:
    """With four rows, three decoding and one prefilling, no other prompt is started, however short."""
    started = prompt(4, 500, is_started=True)
    planned = plan(started, prompt(5, 30), batches=((row(1), row(2), row(3)),))
    assert planned.starts == ()
    assert {each.row_id for each in planned.prefills} == {4}


def test_what_does_not_fit_waits_and_is_not_overtaken() -> None:
    """A small prompt does not overtake a larger one that waits for memory."""
    room = replace(PLENTY, room_bytes=4 * BLOCK)
    large, small = prompt(2, 700), prompt(3, 20)
    assert plan(large, small, batches=DECODING, memory=room).starts == ()
    assert plan(small, batches=DECODING, memory=room).starts == (Start(3),)


def test_one_that_is_alone_is_started_whether_it_fits_or_not() -> None:
    """A single prompt is started even if it does not fit, because nothing would ever free more memory."""
    assert plan(prompt(2, 700), memory=replace(PLENTY, room_bytes=1)).starts == (Start(2),)


def test_a_prompt_starts_from_the_longest_state() -> None:
    """The longest kept or live state is chosen, trimmed to the prefix; a live one must save a good part more."""
    wanted = prompt(5, 301)
    kept = StateView(Source.KEPT, 9, tokens(200, 5), 200)
    live = RowView(1, tokens(280, 5), reach=600, num_bytes=600, num_generated=100)
    assert plan(wanted, kept=(kept,)).starts == (Start(5, Prefix(Source.KEPT, 9, 200)),)
    assert plan(wanted, kept=(kept,), batches=((live,),)).starts == (Start(5, Prefix(Source.LIVE, 1, 279)),)
    close = replace(live, prompt=tokens(230, 5))
    assert plan(wanted, kept=(kept,), batches=((close,),)).starts == (Start(5, Prefix(Source.KEPT, 9, 200)),)


def test_a_state_that_cannot_be_trimmed_is_used_whole_or_not_at_all() -> None:
    """A state that cannot be trimmed is used only if the prompt starts with all of it."""
    whole = StateView(Source.KEPT, 9, tokens(100, 5), 100, is_trimmable=False)
    longer = StateView(Source.KEPT, 8, tokens(400, 5), 400, is_trimmable=False)
    assert plan(prompt(5, 301), kept=(longer, whole)).starts == (Start(5, Prefix(Source.KEPT, 9, 100)),)


def test_requests_with_a_common_prefix_prefill_it_once() -> None:
    """One request is started, and the others wait until it has computed the shared prefix."""
    alike = [PromptView(number, tokens(300), reach=500) for number in (1, 2, 3)]
    assert [start.row_id for start in plan(*alike).starts] == [1]
    has_it = replace(alike[0], is_started=True, num_computed=299)
    planned = SCHEDULER.plan(SchedulerView(PLENTY, (has_it, *alike[1:])), TIMINGS)
    assert planned.joins == (1,)
    decoding = ((RowView(1, tokens(300), reach=500, num_bytes=500, num_generated=100),),)
    assert plan(*alike[1:], batches=decoding).starts == tuple(
        Start(number, Prefix(Source.LIVE, 1, 299)) for number in (2, 3)
    )


def test_a_state_that_is_still_being_copied_out_is_waited_for() -> None:
    """The next turn of a long row that has just ended starts from it one step later; others do not wait."""
    planned = plan(prompt(5, 2001), prompt(6), batches=DECODING, exports=(tokens(2000, 5),))
    assert planned.finishes_exports
    assert [start.row_id for start in planned.starts] == [6]
    assert not plan(prompt(6), batches=DECODING, exports=(tokens(2000, 5),)).finishes_exports


def test_a_long_prompt_joins_in_a_step_of_its_own() -> None:
    """Joining copies a batch, so beside decoding rows a long prompt joins in a step without prefill."""
    last = prompt(
        2, LONG_TOKENS + 100, is_started=True, num_computed=LONG_TOKENS + 50, num_chunk_tokens=49, num_slices_left=1
    )
    timings = replace(TIMINGS, slice_s={2: 0.1})
    assert plan(last, batches=DECODING, timings=timings).joins == ()
    assert plan(last, timings=timings).joins == (2,)
    complete = replace(last, num_computed=LONG_TOKENS + 99, num_chunk_tokens=0, num_slices_left=0)
    assert plan(complete, prompt(3), batches=DECODING) == StepPlan(joins=(2,), reads_now=True)


def test_removed_rows_are_retired_and_nothing_is_started_before_their_states_are_there() -> None:
    """Removed rows are retired, no prompt is started in that step, and a prefilling one goes on."""
    going_on = prompt(3, 101, is_started=True)
    planned = plan(going_on, prompt(4), batches=((row(1), row(2)),), removed=frozenset({1}))
    assert planned.retires == (1,)
    assert planned.starts == ()
    assert [each.row_id for each in planned.prefills] == [3]


def test_a_removed_prompt_s_chunk_is_computed_to_its_end() -> None:
    """The chunk of a removed prompt is computed in the gaps of decoding rows, else at once; no other is prefilled."""
    removed = prompt(2, 500, is_started=True, num_chunk_tokens=128, num_slices_left=5)
    timings = replace(TIMINGS, slice_s={2: 1.0})
    for view in ({"removed": frozenset({2})}, {}):
        retired = replace(removed, is_retired=not view)
        beside = plan(retired, prompt(3), batches=DECODING, timings=timings, **view)
        assert (beside.prefills, beside.starts, beside.joins) == ((Prefill(2, 3),), (), ())
        assert plan(retired, prompt(3), timings=timings, **view).prefills == (Prefill(2, 5),)


def test_kept_states_give_way_to_rows() -> None:
    """Kept states are evicted for rows that grow and for reserved room, and no more than necessary."""
    memory = MemoryView(room_bytes=6 * BLOCK, kept_bytes=4 * BLOCK, decoding_bytes=2 * BLOCK, growth_bytes=BLOCK)
    assert plan(batches=DECODING, memory=memory).max_kept_bytes == 3 * BLOCK
    assert plan(batches=DECODING, memory=replace(memory, growth_bytes=0)).max_kept_bytes is None
    assert plan(prompt(2, 20), batches=DECODING, memory=replace(memory, growth_bytes=0)).max_kept_bytes is not None


FULL = MemoryView(room_bytes=4 * BLOCK, decoding_bytes=4 * BLOCK, growth_bytes=2 * BLOCK)


def test_memory_is_reclaimed_before_rows_are_preempted() -> None:
    """Retired slots, tokens in flight and the draft model's caches are reclaimed first, in a step of its own."""
    batches = ((row(1, 3 * BLOCK), row(2, 3 * BLOCK)),)
    first = plan(prompt(3), batches=batches, memory=replace(FULL, has_reclaimable=True))
    assert first == StepPlan(reclaims=True)


def test_the_newest_are_preempted_when_caches_would_grow_beyond_the_room() -> None:
    """As many of the newest are preempted as necessary, prefilling prompts included, and never the oldest."""
    batches = ((row(1, 3 * BLOCK), row(2, 3 * BLOCK)),)
    assert plan(batches=batches, memory=FULL).preempts == (2,)
    newest = prompt(3, 20, is_started=True)
    assert plan(newest, batches=batches, memory=replace(FULL, room_bytes=6 * BLOCK)).preempts == (3,)
    alone = plan(batches=((row(1, 6 * BLOCK),),), memory=FULL)
    assert (alone.preempts, alone.reclaims) == ((), False)


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


def test_an_image_is_encoded_before_its_tokens_are_prefilled() -> None:
    """The chunk before it ends where it begins; then the vision encoder is all that the step does beside decoding."""
    begun = plan(prompt(1, 101, unencoded=((40, 60),)))
    assert (begun.prefills, begun.encodes) == ((Prefill(1, NUM_SLICES, 40),), ())
    for batches in ((), ((row(9),),)):
        at_it = plan(prompt(1, 101, unencoded=((40, 60),), is_started=True, num_computed=40), batches=batches)
        assert (at_it.prefills, at_it.encodes, at_it.joins) == ((), (Encode(1, 40),), ())
    encoded = plan(prompt(1, 101, is_started=True, num_computed=40))
    assert (encoded.prefills, encoded.encodes) == ((Prefill(1, NUM_SLICES, 60),), ())


def test_an_image_in_a_kept_prefix_is_not_encoded() -> None:
    """Only one that the state does not reach the end of is, from where the state ends."""
    kept = (StateView(Source.KEPT, 1, tokens(101, 1), 50),)
    for image, encodes in (((20, 50), ()), ((20, 70), (Encode(1, 50),))):
        assert plan(prompt(1, 101, unencoded=(image,)), kept=kept).encodes == encodes


def test_running_rows_get_their_share_of_steps_between_two_images() -> None:
    """While they are owed time, nothing is prefilled; without them, or once they have had it, the next is encoded."""
    faced = prompt(1, 101, unencoded=((0, 20),), is_started=True)
    owed = replace(TIMINGS, encode_debt_s=0.5)
    beside = plan(faced, batches=((row(9),),), timings=owed)
    assert (beside.encodes, beside.prefills) == ((), ())
    assert plan(faced, timings=owed).encodes == plan(faced, batches=((row(9),),)).encodes == (Encode(1, 0),)
    measured = Measurements()
    measured.note_encode(6 * GAP_STEPS)
    for owed_s in (6.0, 2.0, 0.0):
        assert measured.timings({}, {}).encode_debt_s == owed_s
        measured.note_step(4.0)


def test_one_image_is_encoded_in_a_step_and_nothing_is_prefilled_beside_it() -> None:
    """Rows that decode wait for one run of the vision encoder at most."""
    looking = [prompt(n, 101, unencoded=((0, 20), (20, 40)), is_started=True) for n in (1, 2)]
    planned = plan(*looking, prompt(3, 300, is_started=True), batches=((row(9),),))
    assert (planned.encodes, planned.prefills) == ((Encode(1, 0),), ())
