"""Constants that requests add to the logits of some tokens, those of all rows in one operation. Worker thread only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from periscope.core import GenerationParams

#: Added to the logits of end tokens that may not come yet. Finite, unlike the mask of a grammar: where a grammar allows
#: nothing but the end, the end is still the likeliest token. Its probability beside any other is exactly 0 in float32.
_WITHHELD = -1e4


@dataclass(frozen=True, slots=True, eq=False)
class TokenBias:
    """Constants that are added to the logits of some tokens.

    Attributes:
        token_ids: `(tokens,)`.
        values: `(tokens,)`, float32.
        num_tokens: it acts on so many tokens of the completion, the first ones; None = on all.
    """

    token_ids: np.ndarray
    values: np.ndarray
    num_tokens: int | None = None

    @classmethod
    def of(cls, biases: Sequence[tuple[int, float]]) -> TokenBias:
        """Source: OpenAI API reference, "logit_bias"."""
        token_ids, values = zip(*biases, strict=True)
        return cls(np.asarray(token_ids, dtype=np.int32), np.asarray(values, dtype=np.float32))

    @classmethod
    def withholding(cls, token_ids: Collection[int], num_tokens: int | None = None) -> TokenBias:
        """Keeps end tokens out of the first tokens of a completion. Source: vLLM, "min_tokens" and "ignore_eos"."""
        ends = np.asarray(sorted(token_ids), dtype=np.int32)
        return cls(ends, np.full(ends.shape, _WITHHELD, dtype=np.float32), num_tokens)

    def acts_on(self, position: int) -> bool:
        """Whether it acts on the completion's token at this position, from 0."""
        return self.num_tokens is None or position < self.num_tokens


def with_biases(logits: mx.array, biases: Sequence[tuple[int, TokenBias]]) -> mx.array:
    """Logits `(rows, vocab)` with these added, each to the row of its index."""
    lines = np.repeat([index for index, _ in biases], [len(bias.token_ids) for _, bias in biases])
    token_ids = np.concatenate([bias.token_ids for _, bias in biases])
    values = np.concatenate([bias.values for _, bias in biases])
    return logits.at[mx.array(lines), mx.array(token_ids)].add(mx.array(values).astype(logits.dtype))


def biases_for(params: GenerationParams, eos_token_ids: Collection[int] = ()) -> tuple[TokenBias, ...]:
    """The biases of one row; none where the settings are neutral."""
    biases: list[TokenBias] = []
    if params.logit_bias:
        biases.append(TokenBias.of(params.logit_bias))
    if params.ignore_eos and eos_token_ids:
        biases.append(TokenBias.withholding(eos_token_ids))
    ends = {*params.stop_token_ids} if params.ignore_eos else {*params.stop_token_ids, *eos_token_ids}
    if params.min_tokens and ends:
        biases.append(TokenBias.withholding(ends, params.min_tokens))
    return tuple(biases)
