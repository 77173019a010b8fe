"""Plain KV caches, of single rows and of several rows with a slot each. Worker thread only.

A plain cache holds the keys and values of every token: mlx-lm's `KVCache`, or a `QuantizedCache`. Both are arrays
`(rows, heads, capacity, size)` of which the first `offset` tokens are in use. So they are put into slots, copied out
and resized in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import add
from typing import Any, TypeAlias

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from periscope.engine.batch.quantized_cache import QuantizedCache, keys_of, packed, resized, unpacked, values_of
from periscope.engine.device.memory import BLOCK_TOKENS

#: A cache with more capacity than this many times its tokens has so much to spare that it is worth a copy.
_SPARE_FACTOR = 1.25

PlainCache: TypeAlias = KVCache | QuantizedCache


def is_plain(cache: Any) -> bool:
    """Whether a cache holds the keys and values of every token of one row."""
    return type(cache) is KVCache or type(cache) is QuantizedCache


def fit_slots(states: Sequence[list[Any]]) -> bool:
    """Whether slots can hold these states: plain caches, of which one is filled. It tells the shape of the others.

    The caches of a prompt of one token are empty: that token is the first that is decoded. Quantised caches know their
    shape when they are empty.
    """
    if not all(is_plain(cache) for state in states for cache in state):
        return False
    return any(all(arrays_of(cache) for cache in state) for state in states)


def reserve(caches: Sequence[Any], num_tokens: int, at_most: int | None = None) -> None:
    """Give plain caches room for `num_tokens` at once, because growing block by block copies them each time.

    Capacities are whole blocks, as `KVFootprint` counts them; mlx-lm 0.32 would add a block to the exact length.

    Args:
        at_most: how many caches to resize in this call; None = all.
    """
    short = [c for c in caches if is_plain(c) and (arrays := arrays_of(c)) and arrays[0].shape[2] < num_tokens]
    for cache in short[:at_most]:
        _put(cache, [resized(array, whole_blocks(num_tokens)) for array in arrays_of(cache)])


def drop_spare(caches: Sequence[Any]) -> None:
    """Copy plain caches to their exact length if their spare capacity is a large part of them; lazy."""
    for cache in caches:
        arrays = arrays_of(cache) if is_plain(cache) else ()
        if arrays and arrays[0].shape[2] > cache.offset * _SPARE_FACTOR:
            _put(cache, [mx.contiguous(array[:, :, : cache.offset]) for array in arrays])


def whole_blocks(num_tokens: int) -> int:
    """The capacity that holds so many tokens."""
    return -(-num_tokens // BLOCK_TOKENS) * BLOCK_TOKENS


class _Lengths:
    """How many tokens each slot holds, shared by the layers of one batch; `offset` `(rows,)` is its device copy.

    Attributes:
        longest: tokens of the longest row.
    """

    def __init__(self, lengths: Iterable[int]) -> None:
        self.set(lengths)

    def set(self, lengths: Iterable[int]) -> None:
        self.values = list(lengths)
        self.longest = max(self.values)
        self.offset = mx.array(self.values, dtype=mx.int32)
        self._indices: dict[tuple[int, ...], mx.array] = {}

    def advance(self) -> None:
        self.values = [length + 1 for length in self.values]
        self.longest += 1
        self.offset = self.offset + 1
        self._indices = {}

    def places(self, num_tokens: int) -> mx.array:
        """`(rows, 1, num_tokens, 1)`, where each row's next tokens go."""
        if num_tokens == 1:
            return self.offset[:, None, None, None]
        return (self.offset[:, None] + mx.arange(num_tokens))[:, None, :, None]

    def indices(self, shape: tuple[int, ...]) -> mx.array:
        """`places` for new keys or values `(rows, heads, tokens, size)`, made once for all layers of a forward pass."""
        indices = self._indices.get(shape)
        if indices is None:
            indices = self._indices[shape] = mx.broadcast_to(self.places(shape[2]), shape)
        return indices


class SlotLayer:
    """One layer's keys and values, each row's tokens from the left.

    Implements what mlx-lm's models call on a cache, for forward passes over one token per row, or over several of which
    each row keeps as many as it likes: those after its length are overwritten by the next.

    Attributes:
        arrays: those of a plain cache of the same kind, for all rows.
    """

    def __init__(self, lengths: _Lengths, arrays: Sequence[mx.array]) -> None:
        self._lengths = lengths
        self.arrays = list(arrays)

    @property
    def keys(self) -> Any:
        return self.arrays[0]

    @property
    def offset(self) -> mx.array:
        """`(rows,)`, the position of each row's next token."""
        return self._lengths.offset

    @property
    def capacity(self) -> int:
        """Tokens that each slot has room for."""
        return int(self.arrays[0].shape[2])

    @property
    def nbytes(self) -> int:
        return sum(int(array.nbytes) for array in self.arrays)

    @property
    def _idx(self) -> int:
        """The position of the longest row's next token, under the name that mlx-lm's batch caches have for it."""
        return self._lengths.longest

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Any, Any]:
        lengths = self._lengths
        end = lengths.longest + keys.shape[2]
        self.reserve(end)
        self.arrays = [
            mx.put_along_axis(array, lengths.indices(added.shape), added, axis=2)
            for array, added in zip(self.arrays, self._stored(keys, values), strict=True)
        ]
        return self._fetched([array[:, :, :end] for array in self.arrays])

    def _stored(self, keys: mx.array, values: mx.array) -> Sequence[mx.array]:
        """New keys and values as they stand in `arrays`."""
        return keys, values

    def _fetched(self, arrays: Sequence[mx.array]) -> tuple[Any, Any]:
        """Keys and values as attention takes them."""
        keys, values = arrays
        return keys, values

    def plain(self, index: int, length: int) -> PlainCache:
        """A copy of the first `length` tokens of a row; lazy."""
        cache = KVCache()
        cache.keys, cache.values = self._row(index, length)
        cache.offset = length
        return cache

    def _row(self, index: int, length: int) -> list[mx.array]:
        return [mx.contiguous(array[index : index + 1, :, :length]) for array in self.arrays]

    def make_mask(
        self,
        N: int,  # noqa: N803 - mlx-lm's name
        return_array: bool = False,
        window_size: int | None = None,
    ) -> mx.array | None:
        """Which cached tokens each of a row's `N` new tokens may attend to; None = all of them."""
        lengths = self._lengths
        if N == 1 and not return_array and window_size is None and min(lengths.values) == lengths.longest:
            return None
        positions = mx.arange(lengths.longest + N)
        newest = lengths.places(N)
        mask = positions <= newest
        return mask if window_size is None else mask & (positions > newest - window_size)

    def reserve(self, num_tokens: int) -> None:
        """Have room for so many tokens of every row."""
        if num_tokens > self.capacity:
            self.arrays = [resized(array, whole_blocks(num_tokens)) for array in self.arrays]


class QuantizedSlotLayer(SlotLayer):
    """One layer's quantised keys and values, in slots as in `SlotLayer`."""

    def __init__(self, lengths: _Lengths, arrays: Sequence[mx.array], like: QuantizedCache) -> None:
        super().__init__(lengths, arrays)
        self._quantization = like.quantization
        self._reads_packed = like.reads_packed
        if like.reads_packed:  # by these names mlx-lm's attention knows how to read what it fetches
            self.bits, self.group_size = like.quantization.bits, like.quantization.group_size

    @property
    def keys(self) -> Any:
        return keys_of(self.arrays)

    def _stored(self, keys: mx.array, values: mx.array) -> Sequence[mx.array]:
        return packed(keys, values, self._quantization)

    def _fetched(self, arrays: Sequence[mx.array]) -> tuple[Any, Any]:
        return (keys_of(arrays), values_of(arrays)) if self._reads_packed else unpacked(arrays, self._quantization)

    def plain(self, index: int, length: int) -> PlainCache:
        row = self._row(index, length)
        return QuantizedCache(self._quantization, row, length, reads_packed=self._reads_packed)


class SlotCaches:
    """Plain KV caches, one slot per row. A new row can take the slot of a retired one without copying the others."""

    can_replace = True
    can_rewind = True

    def __init__(self, states: Sequence[list[Any]], num_tokens: int) -> None:
        self._lengths = _Lengths([state[0].offset for state in states])
        capacity = whole_blocks(max(num_tokens, self._lengths.longest + 1))
        told = next(state for state in states if all(arrays_of(cache) for cache in state))
        layers = zip(zip(*states, strict=True), told, strict=True)
        self.layers = [self._layer(_stacked(layer, capacity, arrays_of(like)), like) for layer, like in layers]

    def _layer(self, arrays: Sequence[mx.array], like: PlainCache) -> SlotLayer:
        if isinstance(like, QuantizedCache):
            return QuantizedSlotLayer(self._lengths, arrays, like)
        return SlotLayer(self._lengths, arrays)

    def advance(self) -> None:
        self._lengths.advance()

    def advance_by(self, nums_kept: Sequence[int], num_computed: int) -> None:  # noqa: ARG002 - the rest is overwritten
        self._lengths.set(map(add, self._lengths.values, nums_kept))

    def extract(self, index: int) -> list[Any]:
        length = self._lengths.values[index]
        return [layer.plain(index, length) for layer in self.layers]

    @property
    def num_layers(self) -> int:
        """Number of layers that `extract_layer` can copy."""
        return len(self.layers)

    def extract_layer(self, index: int, length: int, number: int) -> PlainCache:
        """An evaluated copy of the first `length` tokens of a row in layer `number`. The row may be retired."""
        cache = self.layers[number].plain(index, length)
        mx.eval(cache.state)
        return cache

    def append(self, states: Sequence[list[Any]]) -> None:
        lengths = [*self._lengths.values, *(state[0].offset for state in states)]
        capacity = whole_blocks(max(lengths) + 1)
        for layer, others in zip(self.layers, zip(*states, strict=True), strict=True):
            layer.reserve(capacity)
            added = _stacked(others, layer.capacity, layer.arrays)
            layer.arrays = [mx.concatenate([*pair]) for pair in zip(layer.arrays, added, strict=True)]
        self._lengths.set(lengths)

    def replace(self, index: int, state: list[Any]) -> None:
        length = state[0].offset
        for layer, cache in zip(self.layers, state, strict=True):
            layer.reserve(length + 1)
            _fill(layer.arrays, index, cache)
        lengths = list(self._lengths.values)
        lengths[index] = length
        self._lengths.set(lengths)

    def keep(self, indices: Sequence[int]) -> None:
        rows = mx.array(list(indices))
        lengths = [self._lengths.values[index] for index in indices]
        capacity = whole_blocks(max(lengths) + 1)
        for layer in self.layers:
            layer.arrays = [array[rows, :, :capacity] for array in layer.arrays]
        self._lengths.set(lengths)


def arrays_of(cache: PlainCache) -> Sequence[mx.array]:
    """The arrays of a plain cache; none of one that has no shape yet."""
    if isinstance(cache, QuantizedCache):
        return cache.arrays
    return [] if cache.keys is None else [cache.keys, cache.values]


def values_of_tokens(cache: PlainCache) -> mx.array:
    """The values of all tokens, `(1, heads, tokens, head_dim)`, in full precision; lazy."""
    if isinstance(cache, QuantizedCache):
        return unpacked([array[:, :, : cache.offset] for array in cache.arrays], cache.quantization)[1]
    values: mx.array = cache.keys_and_values()[1]
    return values


def _put(cache: PlainCache, arrays: Sequence[mx.array]) -> None:
    if isinstance(cache, QuantizedCache):
        cache.arrays = list(arrays)
    else:
        cache.keys, cache.values = arrays


def _stacked(caches: Sequence[PlainCache], capacity: int, like: Sequence[mx.array]) -> list[mx.array]:
    """The arrays of all caches, each in a slot of its own; each array is allocated once.

    Args:
        like: arrays of the same shapes and types, which caches without a shape cannot tell.
    """
    shapes = [(len(caches), array.shape[1], capacity, array.shape[3]) for array in like]
    slots = [mx.zeros(shape, array.dtype) for shape, array in zip(shapes, like, strict=True)]
    for index, cache in enumerate(caches):
        _fill(slots, index, cache)
    return slots


def _fill(slots: Sequence[mx.array], index: int, cache: PlainCache) -> None:
    """Put a row's tokens into a slot of these arrays, in place."""
    length = cache.offset
    if length:
        for array, row in zip(slots, arrays_of(cache), strict=True):
            array[index : index + 1, :, :length, :] = row[..., :length, :]
