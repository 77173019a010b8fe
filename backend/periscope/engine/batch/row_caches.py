"""The KV caches of the rows of one decode batch, in three layouts. Worker thread only.

`SingleRowCaches`: one row, its caches as the model made them. `SlotCaches`: several rows of a model with plain KV
caches, each in a slot of its own, so that a row is added or removed without copying the others. `PaddedCaches`:
mlx-lm's own batch caches, for every other kind (sliding windows, state-space layers); they copy all rows to add or
remove one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import mlx.core as mx
from mlx_lm.models.cache import BatchKVCache, KVCache, RotatingKVCache

from periscope.engine.batch.prompt_cache import LayerCaches
from periscope.engine.device.memory import BLOCK_TOKENS, flat, window_of


class RowCaches(Protocol):
    """Caches of rows numbered from 0. `append`, `replace` and `keep` change the object in place."""

    @property
    def layers(self) -> list[Any]:
        """The caches that the model is called with, one per layer."""
        ...

    @property
    def can_replace(self) -> bool:
        """Whether `replace` is supported."""
        ...

    def advance(self) -> None:
        """Note that a forward pass over one token of each row has been built."""
        ...

    def extract(self, index: int) -> LayerCaches:
        """The caches of one row as if it had been computed alone; they may share memory with the batch."""
        ...

    def append(self, states: Sequence[LayerCaches]) -> None:
        """Add rows after the last."""
        ...

    def replace(self, index: int, state: LayerCaches) -> None:
        """Put a new row into the slot of a retired one."""
        ...

    def keep(self, indices: Sequence[int]) -> None:
        """Reduce the batch to these rows, in this order."""
        ...


def batch_caches(states: Sequence[LayerCaches], num_tokens: int) -> RowCaches:
    """The caches of rows that start to decode as one batch.

    Args:
        num_tokens: the initial capacity of each slot, because growing later copies all slots. `SlotCaches` only.
    """
    if len(states) == 1:
        return SingleRowCaches(states[0])
    return SlotCaches(states, num_tokens) if _are_plain(states) else PaddedCaches(states)


def free_tokens(caches: RowCaches) -> float:
    """How many tokens every row can take before an array has to grow; infinity if none ever does."""
    return min((_free_tokens(cache) for cache in flat(caches.layers)), default=math.inf)


def growth_bytes(caches: RowCaches, num_tokens: int) -> int:
    """Bytes that the arrays grow by when every row takes `num_tokens` more; all kinds grow in whole blocks."""
    num_blocks = -(-num_tokens // BLOCK_TOKENS)
    return sum(
        int(cache.nbytes) * num_blocks * BLOCK_TOKENS // _capacity(cache)
        for cache in flat(caches.layers)
        if _free_tokens(cache) < num_tokens and _capacity(cache)
    )


def _free_tokens(cache: Any) -> float:
    if not hasattr(cache, "keys"):
        return math.inf  # a state of fixed size
    capacity, window = _capacity(cache), window_of(cache)
    if window is not None and capacity >= window:
        return math.inf
    num_stored = getattr(
        cache, "_idx", None
    )  # mlx-lm's name, in batch and window caches, for where the next token goes
    if num_stored is None:
        num_stored = cache.offset - getattr(cache, "start_position", 0)
    return capacity - int(num_stored)


def _capacity(cache: Any) -> int:
    """Tokens that the arrays have room for; 0 before the first token."""
    keys = cache.keys
    if keys is None:
        return 0
    widest = keys[0] if isinstance(keys, (tuple, list)) else keys  # quantised keys are (values, scales, biases)
    return int(widest.shape[-2])


def _are_plain(states: Sequence[LayerCaches]) -> bool:
    """Whether slots can hold these states: plain caches, of which one is filled. It tells the shape of the others.

    The caches of a prompt of one token are empty: that token is the first that is decoded.
    """
    if not all(type(cache) is KVCache for state in states for cache in state):
        return False
    filled = [state for state in states if not state[0].empty()]
    return bool(filled) and not any(cache.empty() for state in filled for cache in state)


class SingleRowCaches:
    """One row, its caches as the model made them: the fastest layout, and the only one for caches without `merge`."""

    can_replace = False

    def __init__(self, state: LayerCaches) -> None:
        self.layers = state
        plain = [cache for cache in flat(state) if type(cache) is KVCache and not cache.empty()]
        if plain:  # a row extracted from a batch has no room for its next token; `growth_bytes` would miss it
            reserve(plain, plain[0].offset + 1)

    def advance(self) -> None:
        return

    def extract(self, index: int) -> LayerCaches:  # noqa: ARG002 - there is only one row
        return self.layers

    def append(self, states: Sequence[LayerCaches]) -> None:  # noqa: ARG002
        raise RuntimeError("the caches of a single row cannot be appended to")

    def replace(self, index: int, state: LayerCaches) -> None:  # noqa: ARG002
        raise RuntimeError("the caches of a single row have no slots to replace")

    def keep(self, indices: Sequence[int]) -> None:  # noqa: ARG002
        return


class PaddedCaches:
    """mlx-lm's batch caches, which pad every row on the left to the length of the longest."""

    can_replace = False

    def __init__(self, states: Sequence[LayerCaches]) -> None:
        self.layers = _merged(states)
        _pad_to_blocks(self.layers)
        self._first = states[0] if self.layers[0].empty() else None

    def advance(self) -> None:
        return

    def extract(self, index: int) -> LayerCaches:
        if self._first is not None and self.layers[0].empty():
            return copy.deepcopy(self._first)  # mlx-lm 0.32 cannot extract from empty batch caches
        return [cache.extract(index) for cache in self.layers]

    def append(self, states: Sequence[LayerCaches]) -> None:
        for cache, others in zip(self.layers, _merged(states), strict=True):
            cache.extend(others)
        _pad_to_blocks(self.layers)

    def replace(self, index: int, state: LayerCaches) -> None:  # noqa: ARG002
        raise RuntimeError("mlx-lm's batch caches have no slots to replace")

    def keep(self, indices: Sequence[int]) -> None:
        for cache in self.layers:
            cache.filter(list(indices))
        _pad_to_blocks(self.layers)


def _pad_to_blocks(layers: LayerCaches) -> None:
    """Resize batch caches to whole blocks, with room for the next token.

    mlx-lm 0.32 merges to the exact length and adds a block at the next token. That is more than `KVFootprint` says,
    and it happens in a step for which `growth_bytes` was 0.
    """
    for cache in flat(layers):
        if type(cache) is BatchKVCache and cache.keys is not None:
            capacity = _whole_blocks(cache._idx + 1)  # noqa: SLF001 - mlx-lm has no way to ask for it
            cache.keys, cache.values = _resized(cache.keys, capacity), _resized(cache.values, capacity)


def _merged(states: Sequence[LayerCaches]) -> LayerCaches:
    return [layer[0].merge(list(layer)) for layer in zip(*states, strict=True)]


class _Lengths:
    """How many tokens each slot holds, shared by the layers of one batch; `offset` `(rows,)` is its device copy."""

    def __init__(self, lengths: Iterable[int]) -> None:
        self.set(lengths)

    def set(self, lengths: Iterable[int]) -> None:
        self.values = list(lengths)
        self.offset = mx.array(self.values, dtype=mx.int32)

    def advance(self) -> None:
        self.values = [length + 1 for length in self.values]
        self.offset = self.offset + 1

    @property
    def longest(self) -> int:
        return max(self.values)


class _SlotLayer:
    """One layer's keys and values `(rows, heads, capacity, head_dim)`, each row's tokens from the left.

    Implements what mlx-lm's models call on a cache, for forward passes over one token per row.
    """

    def __init__(self, lengths: _Lengths, keys: mx.array, values: mx.array) -> None:
        self._lengths = lengths
        self.keys = keys
        self.values = values

    @property
    def offset(self) -> mx.array:
        """`(rows,)`, the position of each row's next token."""
        return self._lengths.offset

    @property
    def nbytes(self) -> int:
        return int(self.keys.nbytes + self.values.nbytes)

    @property
    def _idx(self) -> int:
        """The position of the longest row's next token, under the name that mlx-lm's batch caches have for it."""
        return self._lengths.longest

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.reserve(self._lengths.longest + 1)
        position = self._lengths.offset[:, None, None, None]
        self.keys = mx.put_along_axis(self.keys, mx.broadcast_to(position, keys.shape), keys, axis=2)
        self.values = mx.put_along_axis(self.values, mx.broadcast_to(position, values.shape), values, axis=2)
        end = self._lengths.longest + 1
        return self.keys[..., :end, :], self.values[..., :end, :]

    def make_mask(
        self,
        N: int,  # noqa: N803, ARG002 - mlx-lm's name; always one token
        return_array: bool = False,
        window_size: int | None = None,
    ) -> mx.array | None:
        """Which cached tokens each row may attend to; None = all of them."""
        lengths = self._lengths
        if not return_array and window_size is None and min(lengths.values) == lengths.longest:
            return None
        positions = mx.arange(lengths.longest + 1)
        newest = lengths.offset[:, None, None, None]
        mask = positions <= newest
        return mask if window_size is None else mask & (positions > newest - window_size)

    def reserve(self, num_tokens: int) -> None:
        capacity = self.keys.shape[2]
        if num_tokens > capacity:
            self.keys = _resized(self.keys, _whole_blocks(num_tokens))
            self.values = _resized(self.values, _whole_blocks(num_tokens))


class SlotCaches:
    """Plain KV caches, one slot per row. A new row can take the slot of a retired one without copying the others."""

    can_replace = True

    def __init__(self, states: Sequence[LayerCaches], num_tokens: int) -> None:
        self._lengths = _Lengths([state[0].offset for state in states])
        capacity = _whole_blocks(max(num_tokens, self._lengths.longest + 1))
        filled = next(state for state in states if not state[0].empty())
        layers = zip(zip(*states, strict=True), filled, strict=True)
        self.layers = [_SlotLayer(self._lengths, *_stacked(layer, capacity, like)) for layer, like in layers]

    def advance(self) -> None:
        self._lengths.advance()

    def extract(self, index: int) -> LayerCaches:
        length = self._lengths.values[index]
        return [_plain(layer, index, length) for layer in self.layers]

    @property
    def num_layers(self) -> int:
        """Number of layers that `extract_layer` can copy."""
        return len(self.layers)

    def extract_layer(self, index: int, length: int, number: int) -> KVCache:
        """An evaluated copy of the first `length` tokens of a row in layer `number`. The row may be retired."""
        cache = _plain(self.layers[number], index, length)
        mx.eval(cache.keys, cache.values)
        return cache

    def append(self, states: Sequence[LayerCaches]) -> None:
        lengths = [*self._lengths.values, *(state[0].offset for state in states)]
        capacity = _whole_blocks(max(lengths) + 1)
        for layer, others in zip(self.layers, zip(*states, strict=True), strict=True):
            layer.reserve(capacity)
            keys, values = _stacked(others, layer.keys.shape[2], layer)
            layer.keys = mx.concatenate([layer.keys, keys])
            layer.values = mx.concatenate([layer.values, values])
        self._lengths.set(lengths)

    def replace(self, index: int, state: LayerCaches) -> None:
        length = state[0].offset
        for layer, cache in zip(self.layers, state, strict=True):
            layer.reserve(length + 1)
            if length:
                keys, values = cache.keys_and_values()
                layer.keys[index : index + 1, :, :length, :] = keys
                layer.values[index : index + 1, :, :length, :] = values
        lengths = list(self._lengths.values)
        lengths[index] = length
        self._lengths.set(lengths)

    def keep(self, indices: Sequence[int]) -> None:
        rows = mx.array(list(indices))
        lengths = [self._lengths.values[index] for index in indices]
        capacity = _whole_blocks(max(lengths) + 1)
        for layer in self.layers:
            layer.keys = layer.keys[rows, :, :capacity]
            layer.values = layer.values[rows, :, :capacity]
        self._lengths.set(lengths)


def reserve(caches: LayerCaches, num_tokens: int, at_most: int | None = None) -> None:
    """Give plain caches room for `num_tokens` at once, because growing block by block copies them each time.

    Capacities are whole blocks, as `KVFootprint` counts them; mlx-lm 0.32 would add a block to the exact length.

    Args:
        at_most: how many caches to resize in this call; None = all.
    """
    short = [c for c in caches if type(c) is KVCache and c.keys is not None and c.keys.shape[2] < num_tokens]
    for cache in short[:at_most]:
        cache.keys = _resized(cache.keys, _whole_blocks(num_tokens))
        cache.values = _resized(cache.values, _whole_blocks(num_tokens))


def trim_to_windows(caches: LayerCaches) -> None:
    """Drop the tokens that have left their sliding windows.

    mlx-lm 0.32 keeps a whole prefill chunk in addition to the window until the next forward pass. With chunks as long
    as windows, that doubles the cache.
    """
    for cache in flat(caches):
        if type(cache) is RotatingKVCache and not cache.keep and cache.keys is not None:
            _trim_to_window(cache)


def _trim_to_window(cache: RotatingKVCache) -> None:
    window = cache.max_size
    if cache.keys.shape[2] > window:
        cache.keys, cache.values = (mx.contiguous(array[..., -window:, :]) for array in (cache.keys, cache.values))
        cache._idx = window  # noqa: SLF001 - mlx-lm has no way to ask for it
        mx.eval(cache.keys, cache.values)


def _whole_blocks(num_tokens: int) -> int:
    return -(-num_tokens // BLOCK_TOKENS) * BLOCK_TOKENS


def _resized(array: mx.array, capacity: int) -> mx.array:
    """The array `(rows, heads, capacity, head_dim)` trimmed or padded to a capacity. Padding is never attended to."""
    rows, heads, length, size = array.shape
    if length >= capacity:
        return array[:, :, :capacity]
    return mx.concatenate([array, mx.zeros((rows, heads, capacity - length, size), array.dtype)], axis=2)


def _stacked(caches: Sequence[KVCache], capacity: int, like: KVCache | _SlotLayer) -> tuple[mx.array, mx.array]:
    """Keys and values of all caches, each in a slot of its own; each array is allocated once.

    Args:
        like: has keys and values of the same shape and type, which caches that are empty cannot tell.
    """
    filled = [(index, cache) for index, cache in enumerate(caches) if cache.offset]
    keys, values = (_empty_slots(len(caches), capacity, array) for array in (like.keys, like.values))
    for index, cache in filled:
        keys[index : index + 1, :, : cache.offset, :] = cache.keys[..., : cache.offset, :]
        values[index : index + 1, :, : cache.offset, :] = cache.values[..., : cache.offset, :]
    return keys, values


def _empty_slots(num_slots: int, capacity: int, like: mx.array) -> mx.array:
    _, heads, _, size = like.shape
    return mx.zeros((num_slots, heads, capacity, size), like.dtype)


def _plain(layer: _SlotLayer, index: int, length: int) -> KVCache:
    cache = KVCache()
    cache.keys = mx.contiguous(layer.keys[index : index + 1, :, :length])
    cache.values = mx.contiguous(layer.values[index : index + 1, :, :length])
    cache.offset = length
    return cache
