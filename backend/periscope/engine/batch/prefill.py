"""Which prompt is prefilled next, how much of it is one chunk, and how many layer slices of it fit a step. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: Beside decoding rows, the prefill of one step takes about as long as this many decode steps.
GAP_STEPS = 3.0
#: Of prompts that arrive together, the last are prefilled before the rows of the first go on, while these have at most
#: so many tokens and what is left takes at most so many seconds: a decode step costs about as much for few rows as for
#: all, and those that wait would wait for it. So all of them end sooner, and the first pause once, at their beginning.
BURST_ROW_TOKENS = 8
BURST_S = 1.0
#: If what is left takes longer than that, but at most so many seconds, these rows go on meanwhile, and the prefill of
#: one step takes about as long as this many decode steps, instead of `GAP_STEPS`.
LONG_BURST_S = 30.0
BURST_GAP_STEPS = 6.0
#: Chunks are sized so that one layer slice takes about this many decode steps.
SLICE_STEPS = 1.2
#: Chunks are not shorter than this: below it, the weights and the context dominate the cost of the forward pass.
MIN_TOKENS = 8
#: Assumed cost of a prompt token, in decode steps, until it has been measured.
ASSUMED_TOKEN_STEPS = 1 / 8
#: Least cost of a chunk, in decode steps: its forward pass reads all weights, however short it is.
MIN_CHUNK_STEPS = 0.5
#: One more forward pass costs about as much as computing this many tokens in one that is made anyway.
PASS_TOKENS = 24
#: Chunks that several prompts share are not longer, padding included: by then a forward pass over one prompt's tokens
#: alone is as efficient, and the first of the prompts would get its first token later.
SHARED_TOKENS = 512
#: All prompts that share a chunk have at most this many tokens, padded to the longest, and those in their caches
#: included, because the chunk takes a copy of these caches.
SHARED_CONTEXT_TOKENS = 2048
#: Every token that is prefilled of another prompt makes a waiting one count as this many tokens shorter.
AGEING = 0.5


@dataclass(frozen=True, slots=True)
class Queued:
    """A prompt to prefill. `num_passed_over`: tokens of other prompts that were prefilled since it arrived."""

    num_left: int
    num_passed_over: int


@dataclass(frozen=True, slots=True)
class ChunkPart:
    """A prompt's part of a chunk that several share: its tokens in it, and those computed before."""

    num_tokens: int
    num_computed: int


def sharing(first: ChunkPart, others: Sequence[ChunkPart], most: float) -> list[int]:
    """Indices of the others that share the chunk of the first, in which all parts are padded to the longest.

    One joins while the padding that this takes costs less than the forward pass that it saves.

    Args:
        most: tokens of the chunk, padding included.
    """
    chosen: list[int] = []
    longest, most_computed = first.num_tokens, first.num_computed
    for index, other in enumerate(others):
        num = len(chosen) + 2
        new_longest, new_computed = max(longest, other.num_tokens), max(most_computed, other.num_computed)
        padding = (new_longest - longest) * (num - 1) + new_longest - other.num_tokens
        fits = num * new_longest <= most and num * (new_longest + new_computed) <= SHARED_CONTEXT_TOKENS
        if fits and padding <= PASS_TOKENS:
            chosen.append(index)
            longest, most_computed = new_longest, new_computed
    return chosen


def next_prompt(prompts: Sequence[Queued]) -> int:
    """Index of the prompt to prefill next: the shortest, with ageing; of equals, the first to arrive."""
    return min(range(len(prompts)), key=lambda i: prompts[i].num_left - AGEING * prompts[i].num_passed_over)


def is_burst(num_generated: Iterable[int], *, left_s: float) -> bool:
    """Whether all that is to be prefilled is prefilled before rows decode at their pace.

    Args:
        num_generated: tokens of each decoding row.
        left_s: seconds that the prefill of all prompts takes; infinite while a token has not been measured, and while
            images have to be encoded.
    """
    return left_s <= BURST_S and all(num <= BURST_ROW_TOKENS for num in num_generated)


def gap_steps(num_generated: Iterable[int], *, num_steps_waited: int, left_s: float) -> float:
    """About how many decode steps the prefill of one step takes as long as, beside decoding rows.

    Args:
        num_generated, left_s: as in `is_burst`.
        num_steps_waited: decode steps since the prompt that has waited longest arrived.
    """
    came_together = all(num - num_steps_waited <= BURST_ROW_TOKENS for num in num_generated)
    return BURST_GAP_STEPS if left_s <= LONG_BURST_S and came_together else GAP_STEPS


def chunk_tokens(num_left: int, most: int, *, num_slices: int, token_steps: float | None) -> int:
    """How many of the `num_left` tokens of a prompt form the next chunk beside decoding rows; chunks are equal.

    Args:
        num_slices: layer slices that a chunk is computed in.
        token_steps: cost of a token in decode steps, its part of the fixed costs included; None = not measured.
    """
    wanted = wanted_tokens(num_slices=num_slices, token_steps=token_steps)
    num_chunks = max(round(num_left / wanted), 1)
    return min(math.ceil(num_left / num_chunks), most)


def wanted_tokens(*, num_slices: int, token_steps: float | None) -> float:
    """Tokens of a chunk whose layer slices take as long as they should beside decoding rows; see `chunk_tokens`."""
    return max(SLICE_STEPS * num_slices / (token_steps or ASSUMED_TOKEN_STEPS), MIN_TOKENS)


def estimated_slice_steps(num_tokens: int, *, num_slices: int, token_steps: float | None) -> float | None:
    """Expected cost of a layer slice in decode steps, before one is measured; None = tokens are not measured either."""
    if token_steps is None:
        return None
    return max(token_steps * num_tokens, MIN_CHUNK_STEPS) / num_slices


def slices_now(num_left: int, *, slice_steps: float | None, spent_steps: float, most_steps: float) -> int:
    """How many layer slices of a chunk are computed before the next decode step.

    Numbered cases: 1 the cost of a slice is not known: one, to measure it, and only as the first of a step; 2 the first
    of a step: as many as fit the gap, and at least one; 3 after others in the same step: as many as still fit, maybe
    none.

    Args:
        num_left: slices left of the chunk.
        slice_steps: cost of a slice in decode steps; None = not known.
        spent_steps: decode steps' worth of prefill already planned for this step.
        most_steps: as many are planned for it; see `gap_steps`.
    """
    is_first = spent_steps == 0
    if slice_steps is None:  # 1
        return 1 if is_first else 0
    room_steps = most_steps - spent_steps
    num_fitting = num_left if slice_steps * num_left <= room_steps else round(room_steps / slice_steps)
    return max(min(num_fitting, num_left), 1 if is_first else 0)  # 2, 3
