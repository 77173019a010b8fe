"""From `GenerationParams` to mlx-lm samplers and logits processors. Worker thread only.

Rows that share one sampler *object* are sampled in one call, so samplers of equal settings are shared; a seeded row
has its own, because its key advances with its own tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import mlx.core as mx
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p, make_sampler

from periscope.core import GenerationParams

#: logprobs `(rows, vocab)` -> token ids `(rows,)`
Sampler: TypeAlias = Callable[[mx.array], mx.array]
#: all tokens of the row so far `(num_tokens,)`, logits `(1, vocab)` -> logits `(1, vocab)`
LogitsProcessor: TypeAlias = Callable[[mx.array, mx.array], mx.array]


class SeededSampler:
    """Owns one row's random key: the same seed gives the same tokens, alone or in a batch."""

    def __init__(self, params: GenerationParams) -> None:
        self._key = mx.random.key(params.seed % 2**64 if params.seed is not None else 0)
        self._temperature = params.temperature or 0.0
        self._top_p = params.top_p or 0.0
        self._top_k = params.top_k or 0
        self._min_p = params.min_p or 0.0

    def __call__(self, logprobs: mx.array) -> mx.array:
        if 0.0 < self._top_p < 1.0:
            logprobs = apply_top_p(logprobs, self._top_p)
        if self._min_p > 0.0:
            logprobs = apply_min_p(logprobs, self._min_p)
        if 0 < self._top_k < logprobs.shape[-1]:
            logprobs = apply_top_k(logprobs, self._top_k)
        self._key, key = mx.random.split(self._key)
        return mx.random.categorical(logprobs * (1.0 / self._temperature), key=key)


@lru_cache(maxsize=256)
def _shared_sampler(temperature: float, top_p: float, top_k: int, min_p: float) -> Sampler:
    return make_sampler(temp=temperature, top_p=top_p, top_k=top_k, min_p=min_p)


def sampler_for(params: GenerationParams, *, vocab_size: int) -> Sampler:
    """A sampler for one row; one object for equal unseeded params. Temperature None is 1 (as OpenAI has it)."""
    temperature = 1.0 if params.temperature is None else params.temperature
    if temperature == 0.0 or params.top_p == 0.0:  # an empty nucleus still holds the likeliest token
        return _shared_sampler(0.0, 0.0, 0, 0.0)
    if params.seed is not None:
        return SeededSampler(GenerationParams(temperature=temperature).over(params))
    top_k = params.top_k or 0
    return _shared_sampler(temperature, params.top_p or 0.0, top_k if top_k < vocab_size else 0, params.min_p or 0.0)


class CompletionPenalty:
    """Frequency and presence penalty as OpenAI defines them: over the completion's tokens, the prompt not counted.

    Source: OpenAI API reference, "frequency and presence penalties". Work per step does not grow with the length.
    """

    def __init__(self, *, frequency: float, presence: float) -> None:
        self._frequency = frequency
        self._presence = presence
        self._counts: mx.array | None = None

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        if self._counts is None:  # first call: `tokens` is the prompt
            self._counts = mx.zeros((logits.shape[-1],), dtype=mx.float32)
            return logits
        self._counts = self._counts.at[tokens[-1:]].add(1.0)
        penalty = self._frequency * self._counts + self._presence * (self._counts > 0)
        return logits - penalty.astype(logits.dtype)


class RepetitionPenalty:
    """Sign-aware multiplicative penalty on every token of prompt and completion.

    Source: Keskar et al. 2019 (CTRL), as in Hugging Face transformers. Work per step does not grow with the length.
    """

    def __init__(self, penalty: float) -> None:
        self._penalty = penalty
        self._is_seen: mx.array | None = None

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        if self._is_seen is None:
            self._is_seen = mx.zeros((logits.shape[-1],), dtype=mx.bool_)
            self._is_seen[tokens] = True
        else:
            self._is_seen[tokens[-1:]] = True
        punished = mx.where(logits < 0, logits * self._penalty, logits / self._penalty)
        return mx.where(self._is_seen, punished, logits)


def logits_processors_for(params: GenerationParams) -> list[LogitsProcessor]:
    """Fresh processors for one row; empty when nothing is asked for, so that the batch stays on its fast path."""
    processors: list[LogitsProcessor] = []
    if params.repetition_penalty not in (None, 1.0):
        processors.append(RepetitionPenalty(params.repetition_penalty or 1.0))
    if params.frequency_penalty or params.presence_penalty:
        processors.append(
            CompletionPenalty(frequency=params.frequency_penalty or 0.0, presence=params.presence_penalty or 0.0)
        )
    return processors
