"""Which prompt is read next and how much of it: the promises about waiting."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from periscope.engine.prefill import (
    AGEING,
    ASSUMED_TOKEN_STEPS,
    FEW_TOKENS,
    GAP_STEPS,
    MAX_EXTRA_STEPS,
    MAX_GAP_STEPS,
    PASS_STEPS,
    WORTH_TOKENS,
    PromptView,
    chunk_tokens,
    next_prompt,
    pass_cost_s,
    smoothed,
    token_cost_s,
)


class Device(NamedTuple):
    """What a chunk takes, in decode steps."""

    pass_steps: float
    token_steps: float


#: With a tenth of a step for a token.
FITTING = int((GAP_STEPS - PASS_STEPS) * 10)


def chunk(
    num_left: int,
    *,
    num_read: int = 0,
    spent_steps: float = 0.0,
    most: int = 512,
    is_decoding: bool = True,
    token_steps: float = 0.1,
    pass_steps: float | None = None,
) -> int:
    return chunk_tokens(
        num_left,
        num_read=num_read,
        spent_steps=spent_steps,
        most=most,
        is_decoding=is_decoding,
        token_steps=token_steps,
        pass_steps=pass_steps,
    )


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
    assert chunk(10_000) == FITTING


def test_what_finishes_a_prompt_may_take_a_little_longer() -> None:
    """A prompt is not cut in two for the sake of a few tokens."""
    longest = int((MAX_GAP_STEPS - PASS_STEPS) * 10)
    assert chunk(longest) == longest
    assert chunk(longest + 1) == FITTING


def test_several_short_prompts_share_one_gap() -> None:
    """A second prompt is read in the same step as far as the gap has room, and not for a handful of tokens."""
    assert chunk(500, num_read=10, spent_steps=1.0) == FITTING - 10
    assert chunk(30, num_read=10, spent_steps=1.0) == 30
    assert chunk(500, num_read=10, spent_steps=GAP_STEPS - PASS_STEPS - 0.5) == 0


def test_where_a_token_costs_steps_one_is_read_at_a_time() -> None:
    """Far into a long prompt on a slow device the gap stays as short as it can be, and reading goes on."""
    assert chunk(10_000, token_steps=6.0) == FEW_TOKENS
    assert chunk(10_000, token_steps=6.0, pass_steps=1.5) == 1


def test_where_a_pass_takes_up_the_gap_tokens_go_along_with_it() -> None:
    """A pass that is made anyway takes as many tokens along as make it a third as long again, a step at most."""
    assert chunk(10_000, pass_steps=3.6) == 10
    assert chunk(10_000, pass_steps=2.7) == 13
    assert chunk(10_000, pass_steps=9.0) == MAX_EXTRA_STEPS * 10


@given(
    st.integers(1, 50_000),
    st.integers(0, 600),
    st.floats(0, 20),
    st.integers(16, 4096),
    st.booleans(),
    st.floats(1e-6, 100),
)
def test_a_chunk_is_bounded_whatever_was_measured(  # noqa: PLR0917 - hypothesis passes them by place
    num_left: int, num_read: int, spent_steps: float, most: int, is_decoding: bool, token_steps: float
) -> None:
    """Never more than is left or allowed; never nothing for the first prompt of a step; the gap is kept."""
    num = chunk(
        num_left,
        num_read=num_read,
        spent_steps=spent_steps if num_read else 0.0,
        most=most + num_read,
        is_decoding=is_decoding,
        token_steps=token_steps,
    )
    assert 0 <= num <= min(num_left, most)
    if num_read == 0:
        assert num >= 1
    if is_decoding and num > FEW_TOKENS:
        assert PASS_STEPS + (num - 1) * token_steps <= MAX_GAP_STEPS + 1e-6


def test_measurements_are_followed_and_smoothed() -> None:
    """After some steps of a new length the old one is forgotten; a single odd one is not believed."""
    step_s = smoothed(None, 1.0)
    assert step_s == 1.0
    assert smoothed(step_s, 3.0) < 2.0
    for _ in range(20):
        step_s = smoothed(step_s, 2.0)
    assert abs(step_s - 2.0) < 0.01


def test_a_token_s_cost_leaves_out_the_pass_over_the_weights() -> None:
    """Small chunks are not taken for dear tokens, or chunks would get ever smaller."""
    assert token_cost_s(10, 2.0, None, 1.0) == 0.1
    assert token_cost_s(10, 1.0, None, None) == 0.1
    assert token_cost_s(10, 4.0, 3.0, 1.0) == 0.1
    assert token_cost_s(10, 0.5, 1.0, 1.0) > 0


def read_beside_a_stream(device: Device, *, spikes: frozenset[int], num_chunks: int) -> list[tuple[int, float]]:
    """(tokens, steps) of each chunk of an endless prompt, as the batch would choose them."""
    token_s: float | None = None
    pass_s: float | None = None
    chunks = []
    for index in range(num_chunks):
        num = chunk_tokens(
            10**9,
            num_read=0,
            spent_steps=0.0,
            most=512,
            is_decoding=True,
            token_steps=token_s or ASSUMED_TOKEN_STEPS,
            pass_steps=pass_s,
        )
        took = (device.pass_steps + num * device.token_steps) * (15 if index in spikes else 1)
        pass_s = pass_cost_s(pass_s, num, took, 1.0)
        token_s = smoothed(token_s, token_cost_s(num, took, pass_s, 1.0))
        chunks.append((num, took))
    return chunks


@given(st.floats(1.0, 6.0), st.floats(0.005, 0.5), st.frozensets(st.integers(5, 40), max_size=3))
def test_reading_never_sticks_at_a_token_at_a_time(
    pass_steps: float, token_steps: float, spikes: frozenset[int]
) -> None:
    """Whatever a pass costs, and after chunks that took far too long, chunks grow again, and the gap is kept."""
    chunks = read_beside_a_stream(Device(pass_steps, token_steps), spikes=spikes, num_chunks=200)
    settled = chunks[120:]
    room_steps = max(GAP_STEPS - pass_steps, min(pass_steps / 3, MAX_EXTRA_STEPS))
    mean_tokens = sum(num for num, _ in settled) / len(settled)
    assert mean_tokens >= min(0.3 * room_steps / token_steps, WORTH_TOKENS)
    assert max(took for _, took in settled) <= 9.0  # with the row's own step, ten
