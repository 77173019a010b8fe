"""QuantizedCache: one layer's keys and values of a single row, in 8 or 4 bits. Worker thread only.

Every token's keys and values are quantised when they are computed, and attended to in that form only, so that nothing
depends on how a prompt was cut into chunks. mlx-lm 0.32 has such a cache, too, which cannot be put beside others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import mlx.core as mx
from mlx_lm.models.cache import KVCache, create_attention_mask

from periscope.engine.device.memory import BLOCK_TOKENS
from periscope.engine.loading.kv_quantization import KVQuantization
from periscope.errors import ModelLoadError

#: Packed numbers, scales and biases, each `(rows, heads, tokens, size)`.
Quantized: TypeAlias = tuple[mx.array, mx.array, mx.array]

#: Forward passes over more tokens of a row attend to keys and values in full precision, made anew for each layer: one
#: matrix product that unpacks them for each query would take several times as long, and hold all scores in memory.
MAX_PACKED_TOKENS = 8
#: Of the arrays of a cache, those of its keys; the others are those of its values.
_NUM_ARRAYS = 3


class QuantizedCache:
    """Owns the arrays of one layer of one row. Implements what mlx-lm's models and helpers call on a cache.

    Attributes:
        arrays: packed numbers, scales and biases of the keys, then those of the values, each
            `(1, heads, capacity, size)`. They are there from the start, with no capacity.
        offset: number of tokens.
        reads_packed: the model's attention can read them packed; else they are always fetched in full precision.
    """

    def __init__(
        self, quantization: KVQuantization, arrays: Sequence[mx.array], offset: int = 0, *, reads_packed: bool = True
    ) -> None:
        self.quantization = quantization
        self.arrays = list(arrays)
        self.offset = offset
        self.reads_packed = reads_packed
        self._is_packed = reads_packed  # what the newest `update_and_fetch` returned

    @property
    def keys(self) -> Quantized:
        """The keys of all tokens and of the spare capacity, packed."""
        return keys_of(self.arrays)

    @property
    def values(self) -> Quantized:
        """The values of all tokens and of the spare capacity, packed."""
        return values_of(self.arrays)

    @property
    def bits(self) -> int:
        """Tells a model's attention to take the keys and values just fetched as packed.

        Raises:
            AttributeError: they were fetched in full precision.
        """
        if not self._is_packed:
            raise AttributeError("bits")
        return self.quantization.bits

    @property
    def group_size(self) -> int:
        """Numbers that share a scale."""
        return self.quantization.group_size

    @property
    def state(self) -> tuple[Quantized, Quantized, int, int, int]:
        """Keys, values, number of tokens, group size and bits, as of mlx-lm's quantised cache. It may be set."""
        return self.keys, self.values, self.offset, self.group_size, self.quantization.bits

    @state.setter
    def state(self, state: tuple[Sequence[mx.array], Sequence[mx.array], int, int, int]) -> None:
        keys, values, self.offset, group_size, bits = state
        self.arrays = [*keys, *values]
        self.quantization = KVQuantization(bits, group_size)

    @property
    def nbytes(self) -> int:
        return sum(int(array.nbytes) for array in self.arrays)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Any, Any]:
        """Add tokens `(1, heads, tokens, head_dim)`; returns all keys and values, packed if the tokens are few."""
        start, num_tokens = self.offset, keys.shape[2]
        self.offset += num_tokens
        if self.offset > self.arrays[0].shape[2]:
            capacity = -(-self.offset // BLOCK_TOKENS) * BLOCK_TOKENS
            self.arrays = [resized(array, capacity) for array in self.arrays]
        for array, added in zip(self.arrays, packed(keys, values, self.quantization), strict=True):
            array[..., start : self.offset, :] = added
        fetched = [array[..., : self.offset, :] for array in self.arrays]
        self._is_packed = self.reads_packed and num_tokens <= MAX_PACKED_TOKENS
        if self._is_packed:
            return keys_of(fetched), values_of(fetched)
        return unpacked(fetched, self.quantization)

    def make_mask(
        self,
        N: int,  # noqa: N803 - mlx-lm's name
        return_array: bool = False,
        window_size: int | None = None,
    ) -> Any:
        """The causal mask that mlx-lm's plain cache makes."""
        return create_attention_mask(N, offset=self.offset, return_array=return_array, window_size=window_size)

    def empty(self) -> bool:
        """Whether it holds no token."""
        return self.offset == 0

    def size(self) -> int:
        """How many tokens it holds."""
        return self.offset

    def is_trimmable(self) -> bool:
        return True

    def trim(self, num_tokens: int) -> int:
        """Drop the newest tokens; returns how many there were to drop."""
        dropped = min(self.offset, num_tokens)
        self.offset -= dropped
        return dropped


def keys_of(arrays: Sequence[mx.array]) -> Quantized:
    """The arrays of the keys, of the arrays of a cache."""
    numbers, scales, biases = arrays[:_NUM_ARRAYS]
    return numbers, scales, biases


def values_of(arrays: Sequence[mx.array]) -> Quantized:
    """The arrays of the values, of the arrays of a cache."""
    numbers, scales, biases = arrays[_NUM_ARRAYS:]
    return numbers, scales, biases


def packed(keys: mx.array, values: mx.array, quantization: KVQuantization) -> list[mx.array]:
    """Keys and values `(rows, heads, tokens, head_dim)` as arrays of a cache; lazy."""
    group_size, bits = quantization.group_size, quantization.bits
    return [array for part in (keys, values) for array in mx.quantize(part, group_size=group_size, bits=bits)]


def unpacked(arrays: Sequence[mx.array], quantization: KVQuantization) -> tuple[mx.array, mx.array]:
    """Keys and values `(rows, heads, tokens, head_dim)` of arrays of a cache, in the type of the scales; lazy."""
    group_size, bits = quantization.group_size, quantization.bits
    keys, values = (mx.dequantize(*of(arrays), group_size=group_size, bits=bits) for of in (keys_of, values_of))
    return keys, values


def resized(array: mx.array, capacity: int) -> mx.array:
    """The array `(rows, heads, capacity, size)` trimmed or padded to a capacity. Padding is never attended to."""
    rows, heads, length, size = array.shape
    if length >= capacity:
        return array[:, :, :capacity]
    return mx.concatenate([array, mx.zeros((rows, heads, capacity - length, size), array.dtype)], axis=2)


def quantized_caches(
    new_caches: Callable[[], list[Any]],
    filled: Sequence[Any],
    bits: int,
    group_size: int | None,
    *,
    reads_packed: bool,
) -> Callable[[], list[Any]]:
    """What makes the caches of a new row: quantised ones in place of plain ones; all others stay as they are.

    Args:
        new_caches: makes the model's own.
        filled: the model's own, which hold a token, so that they tell its heads.
        reads_packed: see `QuantizedCache`.

    Raises:
        ModelLoadError: no cache is plain, or heads do not consist of whole groups.
    """
    plain = {index: cache for index, cache in enumerate(filled) if type(cache) is KVCache and not cache.empty()}
    if not plain:
        kinds = ", ".join(sorted({type(cache).__name__ for cache in filled}))
        raise ModelLoadError(
            f"`kv_bits` needs layers that keep keys and values of every token, and this model has none ({kinds}). "
            "Remove `kv_bits`."
        )
    dims = [array.shape[-1] for cache in plain.values() for array in (cache.keys, cache.values)]
    quantization = KVQuantization.of(bits, group_size, dims)
    empty = {}
    for index, cache in plain.items():
        arrays = packed(cache.keys[:, :, :0], cache.values[:, :, :0], quantization)
        mx.eval(arrays)
        empty[index] = QuantizedCache(quantization, arrays, reads_packed=reads_packed)

    def new() -> list[Any]:
        return [copy.deepcopy(empty.get(index, cache)) for index, cache in enumerate(new_caches())]

    return new
