"""Whose state a prompt may go on from: prompts that are being read and rows that decode often begin alike.

Worker thread only. What was kept of requests that have ended is the prompt cache's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mlx_lm.models.cache import trim_prompt_cache

from periscope.engine.prompt_cache import MIN_TOKENS, can_be_cut, common_prefix
from periscope.engine.rows import Row

if TYPE_CHECKING:
    import numpy as np

    from periscope.engine.decode_batches import DecodeBatches
    from periscope.engine.prompt_cache import LayerCaches, PromptCache
    from periscope.engine.reading import Prompt

#: A neighbour's state is worth copying when it saves the computation of this many tokens.
_MIN_BORROWED_TOKENS = 64


def waits_for_sibling(prompt: Prompt, begun: Iterable[Prompt], kept: PromptCache) -> bool:
    """Whether one of the prompts being read will soon hold what this one would have to compute too."""
    wanted = prompt.tokens
    shared = max((_shared(wanted, other.tokens) for other in begun if other.num_done < len(wanted)), default=0)
    if shared < _MIN_BORROWED_TOKENS:
        return False
    done = max(other.num_done for other in begun if _shared(wanted, other.tokens) == shared)
    return done < shared and shared - kept.shared_length(wanted) >= _MIN_BORROWED_TOKENS


def borrow(
    wanted: np.ndarray, reading: Sequence[Prompt], decoding: DecodeBatches, *, more_than: int
) -> tuple[LayerCaches, int] | None:
    """A copy of a live neighbour's state, cut back to what is shared with `wanted`, and its length.

    Args:
        more_than: tokens that are to be had without it; it has to save a good part more.
    """
    lenders: list[tuple[int, Prompt | Row]] = [
        (min(_shared(wanted, prompt.tokens), prompt.num_done), prompt) for prompt in reading
    ]
    lenders += [(min(_shared(wanted, row.prompt), len(row.prompt) - 1), row) for row in decoding.rows]
    length, lender = max(lenders, key=lambda offer: offer[0], default=(0, None))
    if lender is None or length < more_than + _MIN_BORROWED_TOKENS:
        return None
    if isinstance(lender, Row):
        caches, num_held = decoding.extract(lender)
    else:
        caches = copy.deepcopy(lender.caches or [])
        num_held = lender.num_done + lender.num_tokens_under_way
    if not can_be_cut(caches):
        return None
    trim_prompt_cache(caches, num_held - length)
    return caches, length


def _shared(wanted: np.ndarray, other: np.ndarray) -> int:
    """Length of the common beginning, at least one token of `wanted` left out; 0 when it is not worth a copy."""
    length = common_prefix(wanted[:-1], other)
    return length if length >= MIN_TOKENS else 0
