"""The scheduler's plans, case by case, and that they depend on nothing but the view and the timings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from periscope.engine.batch.grouping import LONG_TOKENS
from periscope.engine.batch.prefill import BURST_GAP_STEPS, BURST_ROW_TOKENS, GAP_STEPS
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
from tests.engine.batch.planning import (
    BLOCK,
    DECODING,
    NUM_SLICES,
    PLENTY,
    SCHEDULER,
    TIMINGS,
    UNKNOWN,
    plan,
    prompt,
    row,
    tokens,
)


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
        (begun, quick, 600),
        (begun, replace(quick, token_s=None), 101),
    ):
        planned = plan(prompt(2, length), prompt(3, length), batches=batches, timings=timings)
        assert planned.prefills[0].num_slices < NUM_SLICES


def test_rows_of_a_long_burst_go_on_at_half_the_pace_until_all_of_it_is_prefilled() -> None:
    """A row that was under way when the oldest prompt came waits no longer than beside any prompt."""
    waited = prompt(2, 2001, num_steps_waited=20, is_started=True, num_computed=128)
    measured = replace(TIMINGS, chunk_token_s={2: 0.01})
    unmeasured = replace(measured, token_s=None)
    for num_before, timings, wanted in (
        (BURST_ROW_TOKENS, measured, BURST_GAP_STEPS),
        (BURST_ROW_TOKENS + 1, measured, GAP_STEPS),
        (BURST_ROW_TOKENS, unmeasured, GAP_STEPS),
    ):
        planned = plan(waited, batches=((row(1, num_generated=20 + num_before),),), timings=timings)
        num_slices = sum(each.num_slices for each in planned.prefills)
        assert num_slices * 1.28 / NUM_SLICES == pytest.approx(wanted, abs=0.2)


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
    for running in (row(9), row(9, num_generated=1)):  # one that has just begun, too: images are no short burst
        beside = plan(faced, batches=((running,),), timings=owed)
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
