"""Log-probabilities of tokens, computed of logits. Worker thread only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

import mlx.core as mx

from periscope.core import TokenLogprob, TokenText

#: A token, its log-probability, and the likeliest tokens with theirs, the likeliest first.
Scored: TypeAlias = tuple[int, float, list[tuple[int, float]]]


@dataclass(frozen=True, slots=True)
class LazyScores:
    """Lazy arrays over some tokens.

    Attributes:
        tokens, chosen: `(tokens, 1)`, ids and their log-probabilities.
        top_ids, top_values: `(tokens, num_top)`, unordered; None if no alternatives are wanted.
    """

    tokens: mx.array
    chosen: mx.array
    top_ids: mx.array | None
    top_values: mx.array | None

    @classmethod
    def of(cls, logits: mx.array, tokens: mx.array, num_top: int) -> LazyScores:
        """From the model's logits `(tokens, vocab)` and the tokens `(tokens,)` that followed."""
        asked = logits.astype(mx.float32)
        logprobs = asked - mx.logsumexp(asked, axis=-1, keepdims=True)
        tokens = tokens[:, None].astype(mx.int32)
        chosen = mx.take_along_axis(logprobs, tokens, axis=-1)
        num_top = min(num_top, logits.shape[-1] - 1)
        if not num_top:
            return cls(tokens, chosen, None, None)
        ids = mx.argpartition(-logprobs, num_top - 1, axis=-1)[:, :num_top]
        return cls(tokens, chosen, ids, mx.take_along_axis(logprobs, ids, axis=-1))

    @property
    def arrays(self) -> list[mx.array]:
        every = (self.tokens, self.chosen, self.top_ids, self.top_values)
        return [array for array in every if array is not None]

    def read(self) -> list[Scored]:
        """Blocks until they are computed."""
        tokens, chosen = _values(self.tokens), _values(self.chosen)
        nothing: list[list[float]] = [[] for _ in tokens]
        ids = nothing if self.top_ids is None else _values(self.top_ids)
        values = nothing if self.top_values is None else _values(self.top_values)
        scored: list[Scored] = []
        for each in range(len(tokens)):
            ranked = sorted(zip(values[each], ids[each], strict=True), key=lambda pair: -pair[0])
            top = [(int(token), value) for value, token in ranked]
            scored.append((int(tokens[each][0]), chosen[each][0], top))
        return scored


def reported(scored: Scored, num_top: int, token_text: Callable[[int], TokenText]) -> TokenLogprob:
    """What is reported of it, with `num_top` alternatives at most."""
    token, logprob, top = scored
    return TokenLogprob(token_text(token), logprob, tuple((token_text(each), value) for each, value in top[:num_top]))


def _values(array: mx.array) -> list[list[float]]:
    return cast("list[list[float]]", array.tolist())
