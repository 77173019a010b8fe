"""Which prompt is read next and how much of it: the promises about waiting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from periscope.engine.prefill import (
    AGEING,
    GAP_STEPS,
    MAX_GAP_STEPS,
    MIN_CHUNK_TOKENS,
    Pace,
    PromptView,
    chunk_tokens,
    next_prompt,
)

PACE = Pace(step_s=0.02, token_s=0.002)  # a token of prompt costs a tenth of a step


def chunk(num_left: int, *, num_read: int = 0, most: int = 512, is_decoding: bool = True, pace: Pace = PACE) -> int:
    return chunk_tokens(num_left, num_read=num_read, most=most, is_decoding=is_decoding, pace=pace)


def test_a_short_prompt_goes_before_a_long_one() -> None:
    """Fifty tokens do not wait for thirty thousand."""
    assert next_prompt([PromptView(30_000, 0), PromptView(50, 0)]) == 1


def test_of_equal_prompts_the_first_to_come_is_first() -> None:
    """Among equals it is a queue."""
    assert next_prompt([PromptView(80, 0), PromptView(80, 0)]) == 0


def test_a_prompt_that_is_begun_is_finished_before_its_equals() -> None:
    """Reading all a little would keep everybody waiting."""
    left, passed_over = [200, 200, 200], [0, 0, 0]
    order = []
    while any(left):
        waiting = [i for i in range(3) if left[i]]
        chosen = waiting[next_prompt([PromptView(left[i], passed_over[i]) for i in waiting])]
        left[chosen] -= 40
        for i in waiting:
            passed_over[i] += 40 if i != chosen else 0
        order.append(chosen)
    assert order == [0] * 5 + [1] * 5 + [2] * 5


def test_a_long_prompt_is_not_starved_by_short_ones_that_keep_coming() -> None:
    """With every token read of others it comes nearer to its turn."""
    long = PromptView(10_000, 0)
    num_read = 0
    while next_prompt([long, PromptView(50, 0)]) == 1:
        num_read += 50
        long = PromptView(10_000, num_read)
    assert num_read <= 10_000 / AGEING


def test_alone_a_prompt_is_read_as_fast_as_allowed() -> None:
    """Nobody waits for a step, so the chunk is as long as is set."""
    assert chunk(10_000, is_decoding=False) == 512
    assert chunk(100, is_decoding=False) == 100


def test_beside_running_rows_a_chunk_takes_a_few_steps() -> None:
    """The gap that a chunk makes in a running stream is bounded in steps."""
    assert chunk(10_000) == GAP_STEPS * 10


def test_what_finishes_a_prompt_may_take_a_little_longer() -> None:
    """A prompt is not cut in two for the sake of a few tokens."""
    assert chunk(65) == 65
    assert chunk(MAX_GAP_STEPS * 10 + 1) == GAP_STEPS * 10


def test_several_short_prompts_share_one_gap() -> None:
    """A second prompt is read in the same step as far as the gap has room, and not for a handful of tokens."""
    assert chunk(500, num_read=20) == 30
    assert chunk(40, num_read=20) == 40
    assert chunk(500, num_read=45) == 0


@given(
    st.integers(1, 50_000),
    st.integers(0, 600),
    st.integers(16, 4096),
    st.booleans(),
    st.builds(Pace, st.none() | st.floats(1e-4, 10), st.none() | st.floats(1e-6, 10)),
)
def test_a_chunk_is_bounded_whatever_was_measured(
    num_left: int, num_read: int, most: int, is_decoding: bool, pace: Pace
) -> None:
    """Never more than is left or allowed; never nothing for the first prompt of a step."""
    num = chunk(num_left, num_read=num_read, most=most + num_read, is_decoding=is_decoding, pace=pace)
    assert 0 <= num <= min(num_left, most + num_read)
    if num_read == 0:
        assert num >= min(num_left, MIN_CHUNK_TOKENS, most)


def test_the_pace_follows_what_is_measured() -> None:
    """After some steps of a new length the old one is forgotten."""
    pace = Pace().after_step(1.0).after_chunk(100, 1.0)
    assert (pace.step_s, pace.token_s) == (1.0, 0.01)
    for _ in range(20):
        pace = pace.after_step(2.0)
    assert pace.step_s is not None
    assert abs(pace.step_s - 2.0) < 0.01
