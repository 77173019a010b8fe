"""Which prompt is read next and how much of it: the promises about waiting."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from periscope.engine.prefill import (
    AGEING,
    GAP_STEPS,
    MIN_TOKENS,
    PIECE_STEPS,
    PromptView,
    chunk_tokens,
    next_prompt,
    pieces_now,
)

NUM_LAYERS = 10
#: In a model of so many layers, with a tenth of a step for a token.
WANTED = int(PIECE_STEPS * NUM_LAYERS * 10)


def chunk(num_left: int, *, most: int = 512, num_pieces: int = NUM_LAYERS, token_steps: float | None = 0.1) -> int:
    return chunk_tokens(num_left, most, num_pieces=num_pieces, token_steps=token_steps)


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


def test_a_chunk_is_as_long_as_its_layers_fit_the_gap_one_by_one() -> None:
    """The more layers there are to stop between, the longer a chunk may be."""
    assert chunk(1000 * WANTED) == WANTED
    assert chunk(1000 * WANTED, num_pieces=2 * NUM_LAYERS) == 2 * WANTED


def test_the_end_of_a_prompt_is_no_chunk_of_its_own() -> None:
    """A few tokens would cost a whole pass over the weights: what is left is cut into equal chunks."""
    assert chunk(WANTED + 10) == WANTED + 10
    assert chunk(2 * WANTED + 20) == WANTED + 10


def test_where_tokens_are_dear_chunks_are_short_and_never_a_token_at_a_time() -> None:
    """A pass over weights and a long context is not made for one token."""
    assert chunk(10_000, token_steps=50.0) == MIN_TOKENS


@given(st.integers(1, 200_000), st.integers(1, 4096), st.integers(1, 100), st.none() | st.floats(1e-6, 100))
def test_a_chunk_is_something_and_bounded_whatever_was_measured(
    num_left: int, most: int, num_pieces: int, token_steps: float | None
) -> None:
    """Never more than is left or allowed, and never nothing."""
    num = chunk(num_left, most=most, num_pieces=num_pieces, token_steps=token_steps)
    assert 1 <= num <= min(num_left, most)


def test_layers_are_computed_until_the_gap_is_full() -> None:
    """As many as fit, to the nearest; one at least, or reading would never end."""
    assert pieces_now(10, piece_steps=GAP_STEPS / 4, spent_steps=0.0) == 4
    assert pieces_now(2, piece_steps=GAP_STEPS / 4, spent_steps=0.0) == 2
    assert pieces_now(10, piece_steps=GAP_STEPS * 5, spent_steps=0.0) == 1


def test_what_nobody_has_measured_is_tried_with_one_layer() -> None:
    """The first chunk of a new prompt cannot take many times the gap."""
    assert pieces_now(10, piece_steps=None, spent_steps=0.0) == 1


def test_several_prompts_share_one_gap() -> None:
    """After one prompt's part there is as much for the next as is left of the gap, which may be nothing."""
    assert pieces_now(10, piece_steps=GAP_STEPS / 4, spent_steps=GAP_STEPS / 2) == 2
    assert pieces_now(10, piece_steps=GAP_STEPS / 2, spent_steps=GAP_STEPS * 0.8) == 0
    assert pieces_now(10, piece_steps=None, spent_steps=GAP_STEPS) == 0


class Device(NamedTuple):
    """What a chunk takes, in decode steps: a pass, and each token more with every token before it."""

    pass_steps: float
    token_steps: float
    steps_per_context: float

    def piece_steps(self, num_tokens: int, num_done: int) -> float:
        dearer = num_done * self.steps_per_context
        whole = self.pass_steps + 10 * dearer + num_tokens * (self.token_steps + dearer)
        return whole / (NUM_LAYERS - 1)


def read_beside_a_stream(device: Device, num_tokens: int, spikes: frozenset[int]) -> list[float]:
    """The gap, in steps, that each step of a prompt's reading makes, as the batch would choose them."""
    num_done, token_steps = 0, None
    gaps: list[float] = []
    while num_done < num_tokens:
        num = chunk(num_tokens - num_done, num_pieces=NUM_LAYERS - 1, token_steps=token_steps)
        num_left, chunk_steps = NUM_LAYERS - 1, 0.0
        piece_steps = None if token_steps is None else token_steps * num / num_left
        while num_left:
            gap = 0.0
            while num_left and (now := pieces_now(num_left, piece_steps=piece_steps, spent_steps=gap)):
                piece_steps = device.piece_steps(num, num_done) * (15 if len(gaps) in spikes else 1)
                gap += now * piece_steps
                num_left -= now
            gaps.append(gap)
            chunk_steps += gap
        token_steps = chunk_steps / num
        num_done += num
    return gaps


@given(
    st.builds(Device, st.floats(0.2, 2.0), st.floats(0.002, 0.5), st.floats(0, 2e-5)),
    st.frozensets(st.integers(0, 40), max_size=3),
)
def test_tens_of_thousands_of_tokens_are_read_in_gaps_of_a_few_steps(device: Device, spikes: frozenset[int]) -> None:
    """However dear tokens and contexts are, and after steps that took far too long, gaps stay and reading goes on."""
    gaps = read_beside_a_stream(device, 30_000, spikes)
    quiet = [gap for number, gap in enumerate(gaps) if number not in spikes]
    assert max(quiet) <= 9.0  # with the row's own step, ten
    assert sum(quiet) / len(quiet) >= GAP_STEPS / 3
