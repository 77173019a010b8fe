"""Which prompt is read next, how much of it is one chunk, and how many layers of that chunk fit a step. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: What is read of prompts beside running rows takes about as long as this many of their steps.
GAP_STEPS = 3.0
#: A chunk is as long as makes a piece of it, which is one layer, take about this many steps.
PIECE_STEPS = 1.2
#: A chunk is no shorter than this: below, tokens hardly cost more than the pass over weights and context does.
MIN_TOKENS = 8
#: Until there is a measurement, a token of prompt is taken to cost this part of a decode step.
ASSUMED_TOKEN_STEPS = 1 / 8
#: A waiting prompt counts as this many tokens shorter with every token that is read of another.
AGEING = 0.5


@dataclass(frozen=True, slots=True)
class PromptView:
    """A prompt that is not read to its end. `num_passed_over`: tokens read of others since it came."""

    num_left: int
    num_passed_over: int


def next_prompt(prompts: Sequence[PromptView]) -> int:
    """Index of the prompt to read next: the shortest first, with ageing; of equals, the one that came first."""
    return min(range(len(prompts)), key=lambda i: prompts[i].num_left - AGEING * prompts[i].num_passed_over)


def chunk_tokens(num_left: int, most: int, *, num_pieces: int, token_steps: float | None) -> int:
    """How many tokens of a prompt with `num_left` are the next chunk beside running rows; chunks are of equal length.

    Args:
        num_pieces: how many a chunk is computed in.
        token_steps: what a token of the chunk before cost, in decode steps, its part of the pass included; None = not
            known.
    """
    wanted = PIECE_STEPS * num_pieces / (token_steps or ASSUMED_TOKEN_STEPS)
    num_chunks = max(round(num_left / max(wanted, MIN_TOKENS)), 1)
    return min(math.ceil(num_left / num_chunks), most)


def pieces_now(num_left: int, *, piece_steps: float | None, spent_steps: float) -> int:
    """How many pieces of a chunk are computed before the next decode step.

    Numbered cases: 1 nobody knows yet what a piece takes: one, to see; 2 the first of a step: as many as the gap has
    room for, and at least one; 3 after others in the same step: as many as there is still room for, maybe none.

    Args:
        num_left: of the chunk.
        piece_steps: what a piece takes, in decode steps; None = not known.
        spent_steps: on prompts since the last decode step.
    """
    room_steps = GAP_STEPS - spent_steps
    if piece_steps is None:  # 1
        return 1 if room_steps > 0 else 0
    num_fitting = min(round(min(room_steps / piece_steps, num_left)), num_left)
    return max(num_fitting, 0 if spent_steps else 1)  # 3, 2
