"""The caches of the rows that decode together, in the three shapes they can have. Worker thread only.

`AloneCaches`: one row, its caches as the model made them. `SlotCaches`: several rows of a model with plain KV caches,
each in a slot of its own, so that a row comes and goes without the others being copied. `PaddedCaches`: mlx-lm's own
batch caches, for every other kind (sliding windows, state-space layers), which copy all rows when one comes or goes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import mlx.core as mx
from mlx_lm.models.cache import BatchKVCache, KVCache, RotatingKVCache

from periscope.engine.batch.prompt_cache import LayerCaches
from periscope.engine.device.memory import BLOCK_TOKENS, flat, window_of


class RowCaches(Protocol):
    """Caches of rows numbered from 0. After `append`, `replace` and `keep` the object itself has changed."""

    @property
    def layers(self) -> list[Any]:
        """What the model is called with, one a layer."""
        ...

    @property
    def can_replace(self) -> bool:
        """Whether a row's place can be taken by another's."""
        ...

    def advance(self) -> None:
        """A forward pass of one token a row has been built."""
        ...

    def extract(self, index: int) -> LayerCaches:
        """One row's own caches."""
        ...

    def append(self, states: Sequence[LayerCaches]) -> None:
        """More rows, at the end."""
        ...

    def replace(self, index: int, state: LayerCaches) -> None:
        """Another row in the place of one that has left."""
        ...

    def keep(self, indices: Sequence[int]) -> None:
        """These rows stay, in this order."""
        ...


def together(states: Sequence[LayerCaches], num_tokens: int) -> RowCaches:
    """The caches of rows that begin to decode together.

    Args:
        num_tokens: room for so many tokens a row is made at once, where rows have slots: growing copies all of them.
    """
    if len(states) == 1:
        return AloneCaches(states[0])
    return SlotCaches(states, num_tokens) if _are_plain(states) else PaddedCaches(states)


def free_tokens(caches: RowCaches) -> float:
    """How many tokens every row can take before an array has to grow; infinity where none ever does."""
    return min((_free_tokens(cache) for cache in flat(caches.layers)), default=math.inf)


def growth_bytes(caches: RowCaches, num_tokens: int) -> int:
    """What the arrays grow by when every row takes so many tokens more; all kinds grow by blocks."""
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
    held = getattr(cache, "_idx", None)  # mlx-lm's name, in batch and window caches, for where the next token goes
    if held is None:
        held = cache.offset - getattr(cache, "start_position", 0)
    return capacity - int(held)


def _capacity(cache: Any) -> int:
    """Tokens that its arrays have room for; 0 before the first."""
    keys = cache.keys
    if keys is None:
        return 0
    widest = keys[0] if isinstance(keys, (tuple, list)) else keys  # quantised keys are (values, scales, biases)
    return int(widest.shape[-2])


def _are_plain(states: Sequence[LayerCaches]) -> bool:
    return all(type(cache) is KVCache and not cache.empty() for state in states for cache in state)


class AloneCaches:
    """One row: the fastest, and the only way for caches that mlx-lm cannot batch."""

    can_replace = False

    def __init__(self, state: LayerCaches) -> None:
        self.layers = state
        plain = [cache for cache in flat(state) if type(cache) is KVCache and not cache.empty()]
        if plain:  # a row taken out of a batch has no room for its next token, and growing then would not be foreseen
            reserve(plain, plain[0].offset + 1)

    def advance(self) -> None:
        return

    def extract(self, index: int) -> LayerCaches:  # noqa: ARG002 - there is one
        return self.layers

    def append(self, states: Sequence[LayerCaches]) -> None:  # noqa: ARG002
        raise RuntimeError("a row alone has no batch to append to")

    def replace(self, index: int, state: LayerCaches) -> None:  # noqa: ARG002
        raise RuntimeError("a row alone has no place to give away")

    def keep(self, indices: Sequence[int]) -> None:  # noqa: ARG002
        return


class PaddedCaches:
    """Over mlx-lm's batch caches, which pad every row on the left to the longest."""

    can_replace = False

    def __init__(self, states: Sequence[LayerCaches]) -> None:
        self.layers = _merged(states)
        _to_blocks(self.layers)

    def advance(self) -> None:
        return

    def extract(self, index: int) -> LayerCaches:
        return [cache.extract(index) for cache in self.layers]

    def append(self, states: Sequence[LayerCaches]) -> None:
        for cache, others in zip(self.layers, _merged(states), strict=True):
            cache.extend(others)
        _to_blocks(self.layers)

    def replace(self, index: int, state: LayerCaches) -> None:  # noqa: ARG002
        raise RuntimeError("mlx-lm's batch caches have no places to give away")

    def keep(self, indices: Sequence[int]) -> None:
        for cache in self.layers:
            cache.filter(list(indices))
        _to_blocks(self.layers)


def _to_blocks(layers: LayerCaches) -> None:
    """Give batch caches whole blocks, with room for the next token.

    mlx-lm 0.32 merges to the exact length and adds a block to it with the next token, which is more than was reckoned
    and comes in a step in which nobody expects growth.
    """
    for cache in flat(layers):
        if type(cache) is BatchKVCache and cache.keys is not None:
            capacity = _blocks(cache._idx + 1)  # noqa: SLF001 - mlx-lm has no way to ask for it
            cache.keys, cache.values = _at(cache.keys, capacity), _at(cache.values, capacity)


def _merged(states: Sequence[LayerCaches]) -> LayerCaches:
    return [layer[0].merge(list(layer)) for layer in zip(*states, strict=True)]


class _Lengths:
    """How many tokens each row's slot holds; shared by the layers of one batch. `offset` is the same on the device."""

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
    """One layer's keys and values `(rows, heads, capacity, head_dim)`; row r holds its tokens from the left.

    What mlx-lm's models ask of a cache, for passes of one token a row.
    """

    def __init__(self, lengths: _Lengths, keys: mx.array, values: mx.array) -> None:
        self._lengths = lengths
        self.keys = keys
        self.values = values

    @property
    def offset(self) -> mx.array:
        """Each row's position of the token that comes."""
        return self._lengths.offset

    @property
    def nbytes(self) -> int:
        return int(self.keys.nbytes + self.values.nbytes)

    @property
    def _idx(self) -> int:
        """As in mlx-lm's batch caches: where the longest row's next token goes."""
        return self._lengths.longest

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.reserve(self._lengths.longest + 1)
        place = self._lengths.offset[:, None, None, None]
        self.keys = mx.put_along_axis(self.keys, mx.broadcast_to(place, keys.shape), keys, axis=2)
        self.values = mx.put_along_axis(self.values, mx.broadcast_to(place, values.shape), values, axis=2)
        end = self._lengths.longest + 1
        return self.keys[..., :end, :], self.values[..., :end, :]

    def make_mask(
        self,
        N: int,  # noqa: N803, ARG002 - mlx-lm's name; always one token
        return_array: bool = False,
        window_size: int | None = None,
    ) -> mx.array | None:
        """Which of the slots' tokens each row may look at; None = all."""
        lengths = self._lengths
        if not return_array and window_size is None and min(lengths.values) == lengths.longest:
            return None
        places = mx.arange(lengths.longest + 1)
        newest = lengths.offset[:, None, None, None]
        mask = places <= newest
        return mask if window_size is None else mask & (places > newest - window_size)

    def reserve(self, num_tokens: int) -> None:
        capacity = self.keys.shape[2]
        if num_tokens > capacity:
            self.keys = _at(self.keys, _blocks(num_tokens))
            self.values = _at(self.values, _blocks(num_tokens))


class SlotCaches:
    """Plain KV caches side by side. A row that comes takes the place of one that has left, if there is one."""

    can_replace = True

    def __init__(self, states: Sequence[LayerCaches], num_tokens: int) -> None:
        self._lengths = _Lengths([state[0].offset for state in states])
        capacity = _blocks(max(num_tokens, self._lengths.longest + 1))
        self.layers = [_SlotLayer(self._lengths, *_stacked(layer, capacity)) for layer in zip(*states, strict=True)]

    def advance(self) -> None:
        self._lengths.advance()

    def extract(self, index: int) -> LayerCaches:
        length = self._lengths.values[index]
        return [_plain(layer, index, length) for layer in self.layers]

    @property
    def num_layers(self) -> int:
        """For `extract_layer`."""
        return len(self.layers)

    def extract_layer(self, index: int, length: int, number: int) -> KVCache:
        """A copy of one layer of a row's first tokens, made now; also after the row has left its place."""
        cache = _plain(self.layers[number], index, length)
        mx.eval(cache.keys, cache.values)
        return cache

    def append(self, states: Sequence[LayerCaches]) -> None:
        lengths = [*self._lengths.values, *(state[0].offset for state in states)]
        capacity = _blocks(max(lengths) + 1)
        for layer, others in zip(self.layers, zip(*states, strict=True), strict=True):
            layer.reserve(capacity)
            keys, values = _stacked(others, layer.keys.shape[2])
            layer.keys = mx.concatenate([layer.keys, keys])
            layer.values = mx.concatenate([layer.values, values])
        self._lengths.set(lengths)

    def replace(self, index: int, state: LayerCaches) -> None:
        length = state[0].offset
        for layer, cache in zip(self.layers, state, strict=True):
            layer.reserve(length + 1)
            keys, values = cache.keys_and_values()
            layer.keys[index : index + 1, :, :length, :] = keys
            layer.values[index : index + 1, :, :length, :] = values
        lengths = list(self._lengths.values)
        lengths[index] = length
        self._lengths.set(lengths)

    def keep(self, indices: Sequence[int]) -> None:
        lines = mx.array(list(indices))
        lengths = [self._lengths.values[index] for index in indices]
        capacity = _blocks(max(lengths) + 1)
        for layer in self.layers:
            layer.keys = layer.keys[lines, :, :capacity]
            layer.values = layer.values[lines, :, :capacity]
        self._lengths.set(lengths)


def reserve(caches: LayerCaches, num_tokens: int, at_most: int | None = None) -> None:
    """Make plain caches as long as they will get: growing block by block would copy all of them each time.

    Whole blocks, so that what a prompt takes is what was reckoned: mlx-lm (0.32) adds a block to the length as it is.

    Args:
        at_most: so many of them now.
    """
    short = [c for c in caches if type(c) is KVCache and c.keys is not None and c.keys.shape[2] < num_tokens]
    for cache in short[:at_most]:
        cache.keys = _at(cache.keys, _blocks(num_tokens))
        cache.values = _at(cache.values, _blocks(num_tokens))


def trim_to_windows(caches: LayerCaches) -> None:
    """Let go of what sliding windows have moved past.

    mlx-lm 0.32 keeps all of a chunk of a prompt behind its window until the next pass, which is as much again where
    chunks are as long as windows.
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


def _blocks(num_tokens: int) -> int:
    return -(-num_tokens // BLOCK_TOKENS) * BLOCK_TOKENS


def _at(array: mx.array, capacity: int) -> mx.array:
    """The array cut or lengthened to a capacity; what stands behind a row's own tokens is never looked at."""
    rows, heads, length, size = array.shape
    if length >= capacity:
        return array[:, :, :capacity]
    return mx.concatenate([array, mx.zeros((rows, heads, capacity - length, size), array.dtype)], axis=2)


def _stacked(caches: Sequence[KVCache], capacity: int) -> tuple[mx.array, mx.array]:
    """Each one's own tokens in a place of its own; the memory is asked for once."""
    return (
        _in_places([cache.keys[..., : cache.offset, :] for cache in caches], capacity),
        _in_places([cache.values[..., : cache.offset, :] for cache in caches], capacity),
    )


def _in_places(arrays: Sequence[mx.array], capacity: int) -> mx.array:
    _, heads, _, size = arrays[0].shape
    places = mx.zeros((len(arrays), heads, capacity, size), arrays[0].dtype)
    for index, array in enumerate(arrays):
        places[index : index + 1, :, : array.shape[2], :] = array
    return places


def _plain(layer: _SlotLayer, index: int, length: int) -> KVCache:
    cache = KVCache()
    cache.keys = mx.contiguous(layer.keys[index : index + 1, :, :length])
    cache.values = mx.contiguous(layer.values[index : index + 1, :, :length])
    cache.offset = length
    return cache
