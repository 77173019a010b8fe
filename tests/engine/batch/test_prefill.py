"""Which prompt is prefilled next, and how much of it."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from periscope.engine.batch.prefill import (
    AGEING,
    BURST_GAP_STEPS,
    BURST_ROW_TOKENS,
    GAP_STEPS,
    LONG_BURST_S,
    MIN_TOKENS,
    SLICE_STEPS,
    Queued,
    chunk_tokens,
    gap_steps,
    next_prompt,
    slices_now,
)

NUM_LAYERS = 10
#: In a model of so many layers, with a tenth of a step for a token.
WANTED = int(SLICE_STEPS * NUM_LAYERS * 10)


def chunk(num_left: int, *, most: int = 512, num_slices: int = NUM_LAYERS, token_steps: float | None = 0.1) -> int:
    return chunk_tokens(num_left, most, num_slices=num_slices, token_steps=token_steps)


def test_a_short_prompt_goes_before_a_long_one() -> None:
    """A prompt of fifty tokens does not wait for one of thirty thousand."""
    assert next_prompt([Queued(30_000, 0), Queued(50, 0)]) == 1


def test_of_equal_prompts_the_first_to_come_is_first() -> None:
    """Prompts of equal length are prefilled in order of arrival."""
    assert next_prompt([Queued(80, 0), Queued(80, 0)]) == 0


def test_a_started_prompt_is_finished_before_its_equals() -> None:
    """A started prompt has fewer tokens left, so it is prefilled to its end before others of its length."""
    left, passed_over = [200, 200, 200], [0, 0, 0]
    order = []
    while any(left):
        waiting = [i for i in range(3) if left[i]]
        chosen = waiting[next_prompt([Queued(left[i], passed_over[i]) for i in waiting])]
        left[chosen] -= 40
        for i in waiting:
            passed_over[i] += 40 if i != chosen else 0
        order.append(chosen)
    assert order == [0] * 5 + [1] * 5 + [2] * 5


def test_a_long_prompt_is_not_starved_by_short_ones_that_keep_coming() -> None:
    """Every token that is prefilled of other prompts brings a waiting one nearer to its turn."""
    long = Queued(10_000, 0)
    num_passed_over = 0
    while next_prompt([long, Queued(50, 0)]) == 1:
        num_passed_over += 50
        long = Queued(10_000, num_passed_over)
    assert num_passed_over <= 10_000 / AGEING


def test_a_chunk_is_as_long_as_its_layers_fit_the_gap_one_by_one() -> None:
    """The more layer slices a chunk has, the longer it may be."""
    assert chunk(1000 * WANTED) == WANTED
    assert chunk(1000 * WANTED, num_slices=2 * NUM_LAYERS) == 2 * WANTED


def test_the_end_of_a_prompt_is_no_chunk_of_its_own() -> None:
    """The rest of a prompt is cut into equal chunks, because a short last one would cost a whole forward pass."""
    assert chunk(WANTED + 10) == WANTED + 10
    assert chunk(2 * WANTED + 20) == WANTED + 10


def test_where_tokens_are_expensive_chunks_are_short_but_not_too_short() -> None:
    """However much a token costs, a chunk has at least the minimum of tokens."""
    assert chunk(10_000, token_steps=50.0) == MIN_TOKENS


@given(st.integers(1, 200_000), st.integers(1, 4096), st.integers(1, 100), st.none() | st.floats(1e-6, 100))
def test_a_chunk_is_something_and_bounded_whatever_was_measured(
    num_left: int, most: int, num_slices: int, token_steps: float | None
) -> None:
    """A chunk has at least one token, and at most what is left and allowed."""
    num = chunk(num_left, most=most, num_slices=num_slices, token_steps=token_steps)
    assert 1 <= num <= min(num_left, most)


def test_layers_are_computed_until_the_gap_is_full() -> None:
    """As many slices are computed as fit the gap, rounded, and at least one, so that every prompt makes progress."""
    assert slices_now(10, slice_steps=GAP_STEPS / 4, spent_steps=0.0, most_steps=GAP_STEPS) == 4
    assert slices_now(2, slice_steps=GAP_STEPS / 4, spent_steps=0.0, most_steps=GAP_STEPS) == 2
    assert slices_now(10, slice_steps=GAP_STEPS * 5, spent_steps=0.0, most_steps=GAP_STEPS) == 1


def test_rows_of_a_long_burst_leave_its_other_prompts_more_time() -> None:
    """Not a row that was well under way when the oldest prompt arrived, and not beside prompts that take long."""
    begun = BURST_ROW_TOKENS + 5
    for num_generated, left_s, wanted in (
        ([begun, 1], LONG_BURST_S, BURST_GAP_STEPS),
        ([begun + 1, 1], LONG_BURST_S, GAP_STEPS),
        ([begun, 1], LONG_BURST_S * 1.001, GAP_STEPS),
        ([begun, 1], math.inf, GAP_STEPS),
    ):
        assert gap_steps(num_generated, num_steps_waited=5, left_s=left_s) == wanted


def test_an_unmeasured_chunk_starts_with_one_slice() -> None:
    """While the cost of a slice is unknown, one is computed, so that it cannot exceed the gap many times."""
    assert slices_now(10, slice_steps=None, spent_steps=0.0, most_steps=GAP_STEPS) == 1


def test_several_prompts_share_one_gap() -> None:
    """After the slices of one prompt, the next gets what is left of the gap, which may be nothing."""
    assert slices_now(10, slice_steps=GAP_STEPS / 4, spent_steps=GAP_STEPS / 2, most_steps=GAP_STEPS) == 2
    assert slices_now(10, slice_steps=GAP_STEPS / 2, spent_steps=GAP_STEPS * 0.8, most_steps=GAP_STEPS) == 0
    assert slices_now(10, slice_steps=None, spent_steps=GAP_STEPS, most_steps=GAP_STEPS) == 0
