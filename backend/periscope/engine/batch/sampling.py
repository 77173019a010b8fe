"""From logits to tokens, for all rows of a batch at once. Worker thread only.

Rows are sampled in as few calls as their settings allow: greedy rows together, then one call for each set of filters
(top_k, top_p, min_p), whatever the rows' temperatures and seeds. A row's random key depends on its seed and the
position in its completion and on nothing else, so the same seed gives the same tokens alone, in a batch, after a
cache hit, and however many tokens one step verifies.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import mlx.core as mx
from mlx_lm.sample_utils import apply_min_p, apply_top_p

from periscope.core import GenerationParams

_MASK64 = 2**64 - 1


@dataclass(frozen=True, slots=True)
class RowSampling:
    """How one row is sampled; fixed for its life.

    Attributes:
        temperature: 0 = greedy, without filters.
        filters: (top_k, top_p, min_p), each with its neutral value (0, 1.0, 0.0) when it is off.
        seed: 64 bits; random when the request has none.
    """

    temperature: float
    filters: tuple[int, float, float]
    seed: int

    @classmethod
    def of(cls, params: GenerationParams, *, vocab_size: int) -> RowSampling:
        """The settings of a request. A temperature of None is 1, as in OpenAI's API."""
        temperature = 1.0 if params.temperature is None else params.temperature
        if temperature == 0.0 or params.top_p == 0.0:  # top_p 0 still keeps the most likely token
            return GREEDY
        top_k = params.top_k or 0
        top_p = 1.0 if params.top_p is None else params.top_p
        filters = (top_k if top_k < vocab_size else 0, top_p, params.min_p or 0.0)
        return cls(temperature, filters, secrets.randbits(64) if params.seed is None else params.seed % 2**64)

    def key(self, position: int) -> tuple[int, int]:
        """Pure: the two words of the random key of the completion's `position`-th token, from 0."""
        word = _mix(_mix(self.seed) + position)
        return word >> 32, word & 0xFFFFFFFF


GREEDY = RowSampling(0.0, (0, 1.0, 0.0), 0)


def _mix(word: int) -> int:
    """Pure. Source: Steele et al. 2014, SplitMix64."""
    word = (word + 0x9E3779B97F4A7C15) & _MASK64
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK64
    return word ^ (word >> 31)


#: For each row of the logits: how it is sampled, and the position of the sampled token in its completion.
Draws: TypeAlias = Sequence[tuple[RowSampling, int]]

_categorical_by_row = mx.vmap(lambda logits, key: mx.random.categorical(logits, key=key))


def sample(logits: mx.array, draws: Draws) -> mx.array:
    """Lazy token ids `(rows,)`, sampled from logits `(rows, vocab)`."""
    groups: dict[tuple[int, float, float], list[int]] = {}
    for index, (sampling, _) in enumerate(draws):
        if sampling.temperature > 0.0:
            groups.setdefault(sampling.filters, []).append(index)
    if len(groups) == 1 and len(next(iter(groups.values()))) == len(draws):
        ((filters, _),) = groups.items()
        return _sample_group(logits, filters, draws)
    tokens = mx.argmax(logits, axis=-1)
    for filters, indices in groups.items():
        chosen = mx.array(indices)
        tokens[chosen] = _sample_group(logits[chosen], filters, [draws[index] for index in indices])
    return tokens


def _sample_group(logits: mx.array, filters: tuple[int, float, float], draws: Draws) -> mx.array:
    top_k, top_p, min_p = filters
    if top_k:
        return _sample_likeliest(logits, filters, draws)
    if top_p < 1.0 or min_p > 0.0:
        logits = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    if top_p < 1.0:
        logits = apply_top_p(logits, top_p)
    if min_p > 0.0:
        logits = apply_min_p(logits, min_p)
    return _drawn(logits, draws)


def _sample_likeliest(logits: mx.array, filters: tuple[int, float, float], draws: Draws) -> mx.array:
    """Sample among the top_k likeliest tokens, to which the other filters and the drawing are confined, too.

    Sorting a whole vocabulary for top_p takes several times as long. A token stays if it passes all three filters, each
    of which looks at the probabilities that the model gave.
    """
    top_k, top_p, min_p = filters
    token_ids = mx.argpartition(-logits, kth=top_k - 1, axis=-1)[:, :top_k]
    scores = mx.take_along_axis(logits, token_ids, axis=-1).astype(mx.float32)
    order = mx.argsort(-scores, axis=-1)
    token_ids, scores = (mx.take_along_axis(each, order, axis=-1) for each in (token_ids, scores))
    is_kept = mx.ones(scores.shape, dtype=mx.bool_)
    if top_p < 1.0:
        total = mx.logsumexp(logits.astype(mx.float32), axis=-1, keepdims=True)
        is_kept = mx.cumsum(mx.exp(scores - total), axis=-1, inclusive=False) < top_p
    if min_p > 0.0:
        is_kept = is_kept & (scores >= scores[:, :1] + math.log(min_p))
    chosen = _drawn(mx.where(is_kept, scores, -mx.inf), draws)
    return mx.take_along_axis(token_ids, chosen[:, None], axis=-1)[:, 0]


def _drawn(scores: mx.array, draws: Draws) -> mx.array:
    """An index for each line of the scores `(rows, any)`, with the row's temperature and random key."""
    inverse = mx.array([[1.0 / sampling.temperature] for sampling, _ in draws], dtype=mx.float32)
    keys = mx.array([sampling.key(position) for sampling, position in draws], dtype=mx.uint32)
    return _categorical_by_row(scores.astype(mx.float32) * inverse, keys)
