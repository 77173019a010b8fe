"""Which prompt is read next, and how much of it at once. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: What is read beside running rows takes about as long as this many of their steps...
GAP_STEPS = 4.0
#: ...or up to this many when that finishes a prompt.
MAX_GAP_STEPS = 5.5
#: Every chunk is a pass over weights and context, which takes a step at least; its tokens come on top.
PASS_STEPS = 1.0
#: A chunk of so few tokens takes as long as a pass does.
FEW_TOKENS = 2
#: Where the pass alone takes up the gap, tokens may take a third as long again, and these steps at most: one token at a
#: time would cost as much and get nowhere.
MAX_EXTRA_STEPS = 1.0
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


def pass_cost_s(known_s: float | None, num_tokens: int, duration_s: float, step_s: float | None) -> float | None:
    """What a pass takes, now that a chunk took so long; no more than any chunk. None until one of few tokens told."""
    if num_tokens > FEW_TOKENS and (known_s is None or duration_s >= known_s):
        return known_s
    return max(smoothed(known_s, duration_s), PASS_STEPS * (step_s or 0.0))


def token_cost_s(num_tokens: int, duration_s: float, pass_s: float | None, step_s: float | None) -> float:
    """What one token of a chunk cost, the pass left out; never nothing, and less little while the pass is not known."""
    if pass_s is not None:
        return max(duration_s - pass_s, duration_s / 10) / num_tokens
    return max(duration_s - PASS_STEPS * (step_s or 0.0), duration_s / 4) / num_tokens


def chunk_tokens(
    num_left: int,
    *,
    num_read: int,
    spent_steps: float,
    most: int,
    is_decoding: bool,
    token_steps: float,
    pass_steps: float | None,
) -> int:
    """How many tokens to read now of a prompt with `num_left`.

    Numbered cases: 1 no row waits for a step: as much as is allowed; 2 the rest of the prompt fits the longer gap: all
    of it; 3 after others, as much as the ordinary gap has room for; 4 tokens are dear or a pass is: a few, to see
    which; 5 as much as the ordinary gap has room for, or a dear pass is worth, and at least one token.

    Args:
        num_read, spent_steps: of other prompts in the same step, and how long that took in decode steps.
        most: tokens in one step.
        token_steps: what a token of this prompt costs, in decode steps.
        pass_steps: what a chunk of this prompt costs however few its tokens; None = not known, a step at least.
    """
    left_of_most = most - num_read
    if not is_decoding:  # 1
        return min(num_left, left_of_most)
    begun_steps = spent_steps + (pass_steps or PASS_STEPS)
    if num_left <= left_of_most and begun_steps + num_left * token_steps <= MAX_GAP_STEPS:  # 2
        return num_left
    num_fitting = int((GAP_STEPS - begun_steps) / token_steps)
    if num_read:  # 3
        return min(num_left, left_of_most, num_fitting) if num_fitting >= WORTH_TOKENS else 0
    if pass_steps is None:
        return min(num_left, left_of_most, num_fitting if num_fitting >= WORTH_TOKENS else FEW_TOKENS)  # 4
    room_steps = max(GAP_STEPS - begun_steps, min(pass_steps / 3, MAX_EXTRA_STEPS))
    return min(num_left, left_of_most, max(math.ceil(room_steps / token_steps), 1))  # 5
