"""Which prompt is read next, and how much of it at once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: What is read beside running rows takes about as long as this many of their steps...
GAP_STEPS = 4.0
#: ...or up to this many when that finishes a prompt.
MAX_GAP_STEPS = 5.5
#: Every chunk reads the weights once, which takes a step; its tokens come on top.
CHUNK_STEPS = 1.0
#: A second prompt is begun in one step only for as many tokens as are worth a pass of their own.
WORTH_TOKENS = 16
#: Until there is a measurement, a token of prompt is taken to cost this part of a decode step.
ASSUMED_TOKEN_STEPS = 1 / 8
#: A waiting prompt counts as this many tokens shorter with every token that is read of another.
AGEING = 0.5
#: Weight of the newest measurement.
_ALPHA = 0.4


@dataclass(frozen=True, slots=True)
class PromptView:
    """A prompt that is not read to its end. `num_passed_over`: tokens read of others since it came."""

    num_left: int
    num_passed_over: int


def next_prompt(prompts: Sequence[PromptView]) -> int:
    """Index of the prompt to read next: the shortest first, with ageing; of equals, the one that came first."""
    return min(range(len(prompts)), key=lambda i: prompts[i].num_left - AGEING * prompts[i].num_passed_over)


def smoothed(old: float | None, new: float) -> float:
    """A measurement that follows the newest without believing it."""
    return new if old is None else old + _ALPHA * (new - old)


def token_cost_s(num_tokens: int, duration_s: float, step_s: float | None) -> float:
    """What one token of a chunk cost, its share of reading the weights left out; never nothing."""
    base_s = 0.0 if step_s is None else CHUNK_STEPS * step_s
    return max(duration_s - base_s, duration_s / 4) / num_tokens


def chunk_tokens(
    num_left: int, *, num_read: int, spent_steps: float, most: int, is_decoding: bool, token_steps: float
) -> int:
    """How many tokens to read now of a prompt with `num_left`.

    Numbered cases: 1 no row waits for a step: as much as is allowed; 2 the rest of the prompt fits the longer gap: all
    of it; 3 as much as the ordinary gap has room for, and at least one token if nothing was read yet.

    Args:
        num_read, spent_steps: of other prompts in the same step, and how long that took in decode steps.
        most: tokens in one step.
        token_steps: what a token of this prompt costs, in decode steps.
    """
    left_of_most = most - num_read
    if not is_decoding:  # 1
        return min(num_left, left_of_most)
    begun_steps = spent_steps + CHUNK_STEPS
    if num_left <= left_of_most and begun_steps + num_left * token_steps <= MAX_GAP_STEPS:  # 2
        return num_left
    num_fitting = int((GAP_STEPS - begun_steps) / token_steps)
    if num_read:  # 3
        return min(num_left, left_of_most, num_fitting) if num_fitting >= WORTH_TOKENS else 0
    return min(num_left, left_of_most, max(num_fitting, 1))
