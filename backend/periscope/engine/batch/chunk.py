"""Chunk: the next tokens of one prompt, or of several short ones, as one forward pass. Worker thread only.

MLX is lazy, so the forward pass over a chunk is built whole and evaluated in layer slices: evaluating one layer's keys
and values computes the layers up to it and no more. Decoding rows get their tokens in between and never wait for a
whole chunk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from periscope.engine.batch.quantized_cache import QuantizedCache, packed, unpacked
from periscope.engine.batch.slot_caches import PlainCache, arrays_of, is_plain

if TYPE_CHECKING:
    from periscope.engine.batch.prompt_cache import LayerCaches


@dataclass(slots=True, eq=False)
class Chunk:
    """A forward pass that has been built and is being computed. Shared by the prompts whose tokens it is over.

    Attributes:
        row_ids: the rows of these prompts.
        num_tokens: tokens of all of them.
        slices: the caches of each layer slice still to be computed, in the order of the layers.
        logits: `(1, num_tokens, vocab)`, lazy, if the log-probabilities of the prompt are wanted.
        slice_s: seconds per slice when slices were last computed; None before the first.
        spent_s: seconds spent on all slices so far.
    """

    row_ids: tuple[int, ...]
    num_tokens: int
    slices: deque[list[Any]]
    logits: mx.array | None = None
    slice_s: float | None = None
    spent_s: float = 0.0

    def compute(self, num_slices: int, clock: Callable[[], float]) -> bool:
        """Compute layer slices; blocks. Returns whether they were the last."""
        started = clock()
        mx.eval([cache.state for _ in range(num_slices) for cache in self.slices.popleft()])
        took_s = clock() - started
        self.slice_s = took_s / num_slices
        self.spent_s += took_s
        return not self.slices


def num_slices_of(caches: LayerCaches) -> int:
    """How many layer slices a chunk is computed in."""
    return len(slices_of([caches]))


def slices_of(states: Sequence[LayerCaches]) -> deque[list[Any]]:
    """The caches of each layer slice, those of all prompts: one layer each, but the first two together.

    The first layer's keys and values are one projection of the embeddings, too little work for a slice of its own.
    """
    layers = [list(layer) for layer in zip(*states, strict=True)]
    return deque([[cache for layer in layers[:2] for cache in layer], *layers[2:]])


def forward_together(model: Any, states: Sequence[LayerCaches], tokens: Sequence[Sequence[int]]) -> list[LayerCaches]:
    """Build one forward pass over the next tokens of several prompts. Nothing is computed yet.

    Shorter prompts are padded at their ends, where causal attention does not look, and the padding is in no state.

    Args:
        states: plain caches of one prompt each, see `can_be_grouped`; they are not changed.
        tokens: of each prompt; at least one.

    Returns:
        For each prompt new caches, lazy, that hold its tokens, too.
    """
    longest = max(len(each) for each in tokens)
    group = _Group([state[0].offset for state in states])
    layers = [_GroupLayer(group, list(layer)) for layer in zip(*states, strict=True)]
    model(mx.array([[*each, *[0] * (longest - len(each))] for each in tokens]), cache=layers)
    return [[layer.extract(row, len(each)) for layer in layers] for row, each in enumerate(tokens)]


def can_be_grouped(caches: LayerCaches) -> bool:
    """Whether a forward pass can be over several prompts with such caches: plain ones only, quantised or not."""
    return all(is_plain(cache) for cache in caches)


class _Group:
    """How many tokens each prompt's caches hold before the chunk; `offset` `(prompts,)` is the device's copy."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = lengths
        self.longest = max(lengths)
        self.are_equal = min(lengths) == self.longest
        self.offset = mx.array(list(lengths), dtype=mx.int32)


class _GroupLayer:
    """One layer's keys and values of several prompts. Implements what mlx-lm's models call on a cache in prefill.

    Those of quantised caches are packed when they are computed, and attended to as what the packed numbers say.
    """

    def __init__(self, group: _Group, caches: Sequence[PlainCache]) -> None:
        self._group = group
        self._caches = caches
        first = caches[0]
        self._quantized = first if isinstance(first, QuantizedCache) else None
        self._arrays: list[mx.array] = []

    @property
    def offset(self) -> mx.array:
        """`(prompts,)`, the position of each prompt's next token."""
        return self._group.offset

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        quantization = None if self._quantized is None else self._quantized.quantization
        added = [keys, values] if quantization is None else packed(keys, values, quantization)
        computed = [arrays_of(cache) for cache in self._caches]
        self._arrays = [
            self._with_computed(new, [arrays[part] if arrays else None for arrays in computed])
            for part, new in enumerate(added)
        ]
        if quantization is not None:
            return unpacked(self._arrays, quantization)
        keys, values = self._arrays
        return keys, values

    def _with_computed(self, new: mx.array, computed: Sequence[mx.array | None]) -> mx.array:
        """The new tokens `(prompts, heads, tokens, size)` of every prompt, each behind those computed before."""
        group = self._group
        if not group.longest:
            return new
        lines = []
        for row, (before, length) in enumerate(zip(computed, group.lengths, strict=True)):
            line = new[row : row + 1]
            parts = [line] if before is None or not length else [before[..., :length, :], line]
            _, heads, _, size = line.shape
            if length < group.longest:
                parts.append(mx.zeros((1, heads, group.longest - length, size), new.dtype))
            lines.append(mx.concatenate(parts, axis=2))
        return mx.concatenate(lines)

    def make_mask(
        self,
        N: int,  # noqa: N803 - mlx-lm's name
        return_array: bool = False,
        window_size: int | None = None,
    ) -> mx.array | str | None:
        """Which tokens each token of each prompt may attend to: its own prompt's up to itself."""
        group = self._group
        if group.are_equal and not return_array and (window_size is None or group.longest + N <= window_size):
            return "causal"
        own = group.offset[:, None, None, None] + mx.arange(N)[:, None]
        positions = mx.arange(group.longest + N)
        mask = positions <= own
        return mask if window_size is None else mask & (positions > own - window_size)

    def extract(self, row: int, num_tokens: int) -> PlainCache:
        """The cache of one prompt with its `num_tokens` new tokens, lazy."""
        length = self._group.lengths[row] + num_tokens
        arrays = [mx.contiguous(array[row : row + 1, :, :length]) for array in self._arrays]
        if self._quantized is not None:
            like = self._quantized
            return QuantizedCache(like.quantization, arrays, length, reads_packed=like.reads_packed)
        cache = KVCache()
        cache.keys, cache.values = arrays
        cache.offset = length
        return cache
