"""Which prompt is prefilled next, how much of it is one chunk, and how many layer slices of it fit a step. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: What is prefilled beside decoding rows takes about as long as this many of their steps.
GAP_STEPS = 3.0
#: A chunk is as long as makes a layer slice of it take about this many steps.
SLICE_STEPS = 1.2
#: A chunk is no shorter than this: below, tokens hardly cost more than the forward pass over weights and context does.
MIN_TOKENS = 8
#: Until there is a measurement, a token of prompt is taken to cost this part of a decode step.
ASSUMED_TOKEN_STEPS = 1 / 8
#: A chunk, however short, is taken to cost this part of a decode step: its forward pass reads all weights too.
MIN_CHUNK_STEPS = 0.5
#: A waiting prompt counts as this many tokens shorter with every token that is prefilled of another.
AGEING = 0.5


@dataclass(frozen=True, slots=True)
class Queued:
    """A prompt that is not prefilled to its end. `num_passed_over`: tokens prefilled of others since it came."""

    num_left: int
    num_passed_over: int


def next_prompt(prompts: Sequence[Queued]) -> int:
    """Index of the prompt to prefill next: the shortest first, with ageing; of equals, the one that came first."""
    return min(range(len(prompts)), key=lambda i: prompts[i].num_left - AGEING * prompts[i].num_passed_over)


def chunk_tokens(num_left: int, most: int, *, num_slices: int, token_steps: float | None) -> int:
    """How many tokens of a prompt with `num_left` are the next chunk beside decoding rows; chunks are of equal length.

    Args:
        num_slices: layer slices that a chunk is computed in.
        token_steps: what a token cost, in decode steps, its part of the forward pass included; None = not known.
    """
    wanted = SLICE_STEPS * num_slices / (token_steps or ASSUMED_TOKEN_STEPS)
    num_chunks = max(round(num_left / max(wanted, MIN_TOKENS)), 1)
    return min(math.ceil(num_left / num_chunks), most)


def estimated_slice_steps(num_tokens: int, *, num_slices: int, token_steps: float | None) -> float | None:
    """What a layer slice of a chunk will take, in decode steps, before one is measured; None = not known."""
    if token_steps is None:
        return None
    return max(token_steps * num_tokens, MIN_CHUNK_STEPS) / num_slices


def slices_now(num_left: int, *, slice_steps: float | None, spent_steps: float) -> int:
    """How many layer slices of a chunk are computed before the next decode step.

    Numbered cases: 1 nobody knows yet what a slice takes: one, to see, and only as the first of a step; 2 the first of
    a step: as many as the gap has room for, and at least one; 3 after others in the same step: as many as there is
    still room for, maybe none.

    Args:
        num_left: of the chunk.
        slice_steps: what a slice takes, in decode steps; None = not known.
        spent_steps: planned for prompts in this step so far.
    """
    is_first = spent_steps == 0
    if slice_steps is None:  # 1
        return 1 if is_first else 0
    room_steps = GAP_STEPS - spent_steps
    num_fitting = num_left if slice_steps * num_left <= room_steps else round(room_steps / slice_steps)
    return max(min(num_fitting, num_left), 1 if is_first else 0)  # 2, 3
