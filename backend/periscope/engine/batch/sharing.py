"""Which computed state a prompt starts from: requests often begin alike. Pure; knows no caches, only their tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

#: Shorter prefixes are computed faster than they are looked after.
MIN_TOKENS = 16
#: A live request's state is worth copying when it saves the computation of this many tokens.
MIN_LIVE_TOKENS = 64


class Source(StrEnum):
    """Where a state is: in the prompt cache, or with a request that is prefilling or decoding."""

    KEPT = "kept"
    LIVE = "live"


@dataclass(frozen=True, slots=True, eq=False)
class StateView:
    """The tokens of a computed state.

    Attributes:
        key: of the prompt cache's entry, or the id of the request's row.
        tokens: `(num_tokens,)` or more.
        num_tokens: of them that the state holds and a prompt may start from.
        is_trimmable: to any length; else it serves only prompts that begin with all of it.
    """

    source: Source
    key: int
    tokens: np.ndarray
    num_tokens: int
    is_trimmable: bool = True

    def num_shared(self, wanted: np.ndarray) -> int:
        """How many tokens of a prompt this state saves; at least one is left to compute, and 0 when it is not worth it.

        Args:
            wanted: `(num_tokens,)`, all of the prompt.
        """
        num = min(common_prefix(wanted[:-1], self.tokens), self.num_tokens)
        return num if num >= MIN_TOKENS and (self.is_trimmable or num == self.num_tokens) else 0


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first `num_tokens` of a prompt are those of a state, which is copied and trimmed to them."""

    source: Source
    key: int
    num_tokens: int


def longest_prefix(wanted: np.ndarray, kept: Iterable[StateView], live: Iterable[StateView] = ()) -> Prefix | None:
    """What a prompt should start from; None = from nothing.

    Of equal states the first is taken. A live one has to save a good part more than a kept one, because copying it
    costs memory.
    """
    best, best_length = None, 0
    for states, least in ((kept, 1), (live, MIN_LIVE_TOKENS)):
        found, length = _longest(wanted, states)
        if found is not None and length >= best_length + least:
            best, best_length = found, length
    return None if best is None else Prefix(best.source, best.key, best_length)


def _longest(wanted: np.ndarray, states: Iterable[StateView]) -> tuple[StateView | None, int]:
    shared = [(state.num_shared(wanted), state) for state in states]
    length, state = max(shared, key=lambda pair: pair[0], default=(0, None))
    return (state, length) if length else (None, 0)


def waits_for_sibling(wanted: np.ndarray, prefilling: Iterable[StateView], kept: Sequence[StateView]) -> bool:
    """Whether a prompt that is being prefilled will soon hold what this one would have to compute too.

    Args:
        prefilling: all tokens of those prompts; `num_tokens` are computed.
    """
    pairs = [(common_prefix(wanted[:-1], other.tokens), other) for other in prefilling]
    shared = max((length for length, other in pairs if other.num_tokens < len(wanted)), default=0)
    if shared < MIN_LIVE_TOKENS:
        return False
    computed = max(other.num_tokens for length, other in pairs if length == shared)
    return computed < shared and shared - _longest(wanted, kept)[1] >= MIN_LIVE_TOKENS


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """How many leading values are equal."""
    size = min(len(a), len(b))
    differs = a[:size] != b[:size]
    first = int(differs.argmax()) if size else 0
    return first if size and differs[first] else size
