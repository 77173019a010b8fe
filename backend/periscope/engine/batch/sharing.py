"""Which computed state a prompt starts from, because requests often share a prefix. Pure; sees tokens, not caches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

#: A shorter prefix is faster to prefill again than to keep.
MIN_TOKENS = 16
#: A live request's state is worth copying when it saves the computation of this many tokens.
MIN_LIVE_TOKENS = 64


class Source(StrEnum):
    """Where a state is: in the prompt cache, with a request that is prefilling or decoding, or in a file."""

    KEPT = "kept"
    LIVE = "live"
    DISK = "disk"


@dataclass(frozen=True, slots=True, eq=False)
class StateView:
    """The tokens of a computed state.

    Attributes:
        key: the prompt cache's key of the entry, the id of the request's row, or the disk tier's key of the file.
        tokens: `(num_tokens,)` or longer.
        num_tokens: how many of `tokens` the state holds, so that a prompt may start from them.
        is_trimmable: it can be trimmed to any length; else it serves only prompts that start with all of it.
    """

    source: Source
    key: int
    tokens: np.ndarray
    num_tokens: int
    is_trimmable: bool = True

    def num_shared(self, wanted: np.ndarray) -> int:
        """How many tokens of a prompt need not be prefilled with this state: never all, and 0 below `MIN_TOKENS`.

        Args:
            wanted: `(num_tokens,)`, all of the prompt.
        """
        num = min(common_prefix(wanted[:-1], self.tokens), self.num_tokens)
        return num if num >= MIN_TOKENS and (self.is_trimmable or num == self.num_tokens) else 0


@dataclass(frozen=True, slots=True)
class Prefix:
    """The prefix that a prompt shares with a state, which is copied and trimmed to `num_tokens` tokens."""

    source: Source
    key: int
    num_tokens: int


def longest_prefix(wanted: np.ndarray, kept: Iterable[StateView], live: Iterable[StateView] = ()) -> Prefix | None:
    """The prefix that a prompt should start from; None = from empty caches.

    Of equal states the first is taken. A live state has to save `MIN_LIVE_TOKENS` more than a kept one, because copying
    it costs memory.
    """
    best, best_length = None, 0
    for states, least in ((kept, 1), (live, MIN_LIVE_TOKENS)):
        found, length = _longest(wanted, states)
        if found is not None and length >= best_length + least:
            best, best_length = found, length
    return None if best is None else Prefix(best.source, best.key, best_length)


def _longest(wanted: np.ndarray, states: Iterable[StateView]) -> tuple[StateView | None, int]:
    """The first of the states that share most, and how many tokens that is.

    A state that shares more has the prompt's token in the place after those shared so far. Comparing that one first
    tells most of the others without comparing all of their tokens.
    """
    best, length = None, 0
    for state in states:
        place = max(length, MIN_TOKENS - 1)
        if min(state.num_tokens, len(wanted)) > place and state.tokens[place] == wanted[place]:
            num = state.num_shared(wanted)
            if num > length:
                best, length = state, num
    return best, length


def waits_for_sibling(wanted: np.ndarray, prefilling: Iterable[StateView], kept: Sequence[StateView]) -> bool:
    """Whether another prompt is being prefilled that will soon hold a prefix which this one would compute again.

    Args:
        prefilling: those prompts with all of their tokens, of which `num_tokens` are computed.
    """
    pairs = [(common_prefix(wanted[:-1], other.tokens), other) for other in prefilling]
    shared = max((length for length, other in pairs if other.num_tokens < len(wanted)), default=0)
    if shared < MIN_LIVE_TOKENS:
        return False
    computed = max(other.num_tokens for length, other in pairs if length == shared)
    return computed < shared and shared - _longest(wanted, kept)[1] >= MIN_LIVE_TOKENS


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """Pure: the length of the common prefix of two arrays."""
    size = min(len(a), len(b))
    differs = a[:size] != b[:size]
    first = int(differs.argmax()) if size else 0
    return first if size and differs[first] else size
