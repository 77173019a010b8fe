"""From logits to tokens, for all rows of a batch at once. Worker thread only.

Rows are sampled in as few calls as their settings allow: greedy rows together, then one call for each set of filters
(top_k, top_p, min_p), whatever the rows' temperatures and seeds. A row's random key depends on its seed and the
position in its completion and on nothing else, so the same seed gives the same tokens alone, in a batch, after a
cache hit, and however many tokens one step verifies.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import mlx.core as mx
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

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
    if top_p < 1.0 or min_p > 0.0 or top_k > 0:
        logits = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    if top_p < 1.0:
        logits = apply_top_p(logits, top_p)
    if min_p > 0.0:
        logits = apply_min_p(logits, min_p)
    if top_k > 0:
        logits = apply_top_k(logits, top_k)
    inverse = mx.array([[1.0 / sampling.temperature] for sampling, _ in draws], dtype=mx.float32)
    keys = mx.array([sampling.key(position) for sampling, position in draws], dtype=mx.uint32)
    return _categorical_by_row(logits.astype(mx.float32) * inverse, keys)


#: Takes the row's newest completion token `(1,)`, None before the first, and its logits `(1, vocab)`; returns logits
#: `(1, vocab)`. Stateful: called once for every token, in order. Its cost does not grow with the completion.
LogitsProcessor: TypeAlias = Callable[["mx.array | None", mx.array], mx.array]


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


class LogitBias:
    """Adds a constant to the logits of some tokens. Source: OpenAI API reference, "logit_bias"."""

    def __init__(self, biases: Sequence[tuple[int, float]]) -> None:
        self._tokens = mx.array([token for token, _ in biases])
        self._values = mx.array([bias for _, bias in biases])

    def __call__(self, _token: mx.array | None, logits: mx.array) -> mx.array:
        return logits.at[:, self._tokens].add(self._values.astype(logits.dtype))


#: Added to the logits of end tokens that may not come yet. Finite, unlike the mask of a grammar: where a grammar allows
#: nothing but the end, the end is still the likeliest token. Its probability beside any other is exactly 0 in float32.
_WITHHELD = -1e4


class WithheldEnds:
    """Keeps end tokens from being generated in the first tokens of a completion. Source: vLLM, "min_tokens"."""

    def __init__(self, token_ids: Iterable[int], num_tokens: int) -> None:
        self._ends = LogitBias([(token_id, _WITHHELD) for token_id in token_ids])
        self._num_left = num_tokens

    def __call__(self, token: mx.array | None, logits: mx.array) -> mx.array:
        if self._num_left <= 0:
            return logits
        self._num_left -= 1
        return self._ends(token, logits)


def logits_processors_for(
    params: GenerationParams, prompt: Sequence[int], eos_token_ids: Collection[int] = ()
) -> list[LogitsProcessor]:
    """New processors for one row. Empty when all settings are neutral, so that the batch stays on its fast path."""
    processors: list[LogitsProcessor] = []
    if params.repetition_penalty not in (None, 1.0):
        processors.append(RepetitionPenalty(params.repetition_penalty or 1.0, prompt))
    if params.frequency_penalty or params.presence_penalty:
        processors.append(
            CompletionPenalty(frequency=params.frequency_penalty or 0.0, presence=params.presence_penalty or 0.0)
        )
    if params.logit_bias:
        processors.append(LogitBias(params.logit_bias))
    if params.ignore_eos and eos_token_ids:
        processors.append(WithheldEnds(eos_token_ids, params.max_tokens or 1))
    ends = {*params.stop_token_ids} if params.ignore_eos else {*params.stop_token_ids, *eos_token_ids}
    if params.min_tokens and ends:
        processors.append(WithheldEnds(sorted(ends), params.min_tokens))
    return processors
