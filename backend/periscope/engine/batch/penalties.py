"""What requests change of the logits before sampling: penalties and biases. Worker thread only.

A penalty depends on the tokens so far, so it is an object of one row with its state. A bias is the same for every
token, so those of all rows are added by one operation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import mlx.core as mx
import numpy as np

from periscope.core import GenerationParams

#: Added to the logits of end tokens that may not come yet. Finite, unlike the mask of a grammar: where a grammar allows
#: nothing but the end, the end is still the likeliest token. Its probability beside any other is exactly 0 in float32.
_WITHHELD = -1e4

#: Takes the row's newest completion token `(1,)`, None before the first, and its logits `(1, vocab)`; returns logits
#: `(1, vocab)`. Stateful: called once for every token, in order. Its cost does not grow with the completion.
Penalty: TypeAlias = Callable[["mx.array | None", mx.array], mx.array]


class CompletionPenalty:
    """Frequency and presence penalty as OpenAI defines them: over the completion's tokens, the prompt not counted.

    Source: OpenAI API reference, "frequency and presence penalties".
    """

    def __init__(self, *, frequency: float, presence: float) -> None:
        self._frequency = frequency
        self._presence = presence
        self._counts: mx.array | None = None

    def __call__(self, token: mx.array | None, logits: mx.array) -> mx.array:
        if self._counts is None:
            self._counts = mx.zeros((logits.shape[-1],), dtype=mx.float32)
        if token is None:
            return logits
        self._counts = self._counts.at[token].add(1.0)
        penalty = self._frequency * self._counts + self._presence * (self._counts > 0)
        return logits - penalty.astype(logits.dtype)


class RepetitionPenalty:
    """Sign-aware multiplicative penalty on every token of prompt and completion.

    Source: Keskar et al. 2019 (CTRL), as in Hugging Face transformers.
    """

    def __init__(self, penalty: float, prompt: Iterable[int]) -> None:
        self._penalty = penalty
        self._prompt: mx.array | None = mx.array(list(prompt))
        self._is_seen: mx.array | None = None

    def __call__(self, token: mx.array | None, logits: mx.array) -> mx.array:
        if self._is_seen is None:
            self._is_seen = mx.zeros((logits.shape[-1],), dtype=mx.bool_)
            self._is_seen[self._prompt] = True
            self._prompt = None
        if token is not None:
            self._is_seen[token] = True
        punished = mx.where(logits < 0, logits * self._penalty, logits / self._penalty)
        return mx.where(self._is_seen, punished, logits)


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


def penalties_for(params: GenerationParams, prompt: Sequence[int]) -> list[Penalty]:
    """New penalties for one row; none where the settings are neutral."""
    penalties: list[Penalty] = []
    if params.repetition_penalty not in (None, 1.0):
        penalties.append(RepetitionPenalty(params.repetition_penalty or 1.0, prompt))
    if params.frequency_penalty or params.presence_penalty:
        penalties.append(
            CompletionPenalty(frequency=params.frequency_penalty or 0.0, presence=params.presence_penalty or 0.0)
        )
    return penalties


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
