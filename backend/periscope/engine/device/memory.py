"""How much memory KV caches take, and how much the device has for them.

The bytes per token are measured once on the loaded model's own caches, so that they are right for every architecture:
full attention grows with the length, a sliding window up to its size, a state-space layer not at all.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

#: mlx-lm's caches grow in blocks of this many tokens.
BLOCK_TOKENS = 256
#: Part of the device's memory for weights and caches. The rest is for activations and other programs.
USABLE_PART = 0.9
#: Part of the machine's memory for weights and caches where the device reports none (MLX's CPU backend).
USABLE_PART_OF_HOST = 0.5
#: Part of the KV cache memory that the prompt cache may take, unless configured.
DEFAULT_PROMPT_CACHE_PART = 0.25


@dataclass(frozen=True, slots=True)
class _Layer:
    """Size of the cache objects that have room for as many: `slot_bytes` per token up to `max_slots`, and the rest."""

    slot_bytes: int
    max_slots: int | None
    fixed_bytes: int

    def nbytes(self, num_tokens: int) -> int:
        blocks = -(-num_tokens // BLOCK_TOKENS) * BLOCK_TOKENS
        slots = blocks if self.max_slots is None else min(blocks, self.max_slots)
        return self.fixed_bytes + slots * self.slot_bytes


@dataclass(frozen=True, slots=True)
class KVFootprint:
    """Bytes of one sequence's caches as a function of its length. Pure."""

    layers: tuple[_Layer, ...]

    @classmethod
    def measure(cls, caches: Iterable[Any]) -> KVFootprint:
        """Measure caches that hold a few tokens. Reads their shapes; evaluates nothing."""
        sizes: dict[int | None, _Layer] = {}
        for layer in map(_layer, flat(caches)):
            others = sizes.get(layer.max_slots, _Layer(0, layer.max_slots, 0))
            slot_bytes, fixed_bytes = others.slot_bytes + layer.slot_bytes, others.fixed_bytes + layer.fixed_bytes
            sizes[layer.max_slots] = _Layer(slot_bytes, layer.max_slots, fixed_bytes)
        return cls(tuple(sizes.values()))

    def nbytes(self, num_tokens: int) -> int:
        """Bytes of the caches of a sequence of `num_tokens` tokens."""
        return sum(layer.nbytes(num_tokens) for layer in self.layers)

    def max_num_tokens(self, num_bytes: int) -> float:
        """The longest sequence whose caches take at most `num_bytes`; infinity if no layer grows with the length."""
        growing = sum(layer.slot_bytes for layer in self.layers if layer.max_slots is None)
        if growing == 0:
            return math.inf
        # In blocks. `high` is an upper bound, because windows and fixed parts take some of the bytes.
        low, high = 0, num_bytes // (growing * BLOCK_TOKENS)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.nbytes(middle * BLOCK_TOKENS) <= num_bytes else (low, middle - 1)
        return low * BLOCK_TOKENS


def flat(caches: Iterable[Any]) -> Iterator[Any]:
    """The cache objects of all layers, with mlx-lm's `CacheList` flattened."""
    for cache in caches:
        inner = getattr(cache, "caches", None)
        if inner is None:
            yield cache
        else:
            yield from flat(inner)


def window_of(cache: Any) -> int | None:
    """Most tokens that a cache holds; None = all. Sliding windows and the chunks of Llama 4 have such a bound."""
    window: int | None = getattr(cache, "max_size", None) or getattr(cache, "chunk_size", None)
    return window


def _layer(cache: Any) -> _Layer:
    keys = getattr(cache, "keys", None)
    nbytes = int(cache.nbytes)
    if keys is None:
        return _Layer(0, None, nbytes)
    widest = keys[0] if isinstance(keys, (tuple, list)) else keys  # quantised keys are (values, scales, biases)
    return _Layer(nbytes // int(widest.shape[-2]), _max_slots(cache), 0)


def _max_slots(cache: Any) -> int | None:
    """Most tokens that the arrays of a cache have room for; None = they grow with the length.

    Llama 4's chunked caches are trimmed by copying when the next token is added, and take up to two blocks more until
    then.
    """
    window = window_of(cache)
    return window if window is None or hasattr(cache, "max_size") else window + 2 * BLOCK_TOKENS


def device_budget_bytes(configured_bytes: int | None = None) -> int:
    """Bytes for the weights and caches of all models: as configured, but never more than the device recommends."""
    info = mx.device_info()
    recommended = info.get("max_recommended_working_set_size") or info.get("total_memory")
    if recommended is not None:
        limit = int(recommended)
        return int(limit * USABLE_PART) if configured_bytes is None else min(configured_bytes, limit)
    usable = int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * USABLE_PART_OF_HOST)
    return usable if configured_bytes is None else min(configured_bytes, usable)


class WiredLimit:
    """Metal's wired limit: how many bytes in use are kept from being paged out. One per process.

    It is set once. The generators of mlx-lm 0.32 and mlx-vlm 0.7 set and reset it for each run, so that models in one
    process would unwire each other's weights.
    """

    _is_set = False

    @classmethod
    def set_once(cls, limit_bytes: int | None = None) -> None:
        """Set what Metal recommends, or `limit_bytes` if less. Only the first call counts; without Metal, none does."""
        recommended = mx.device_info().get("max_recommended_working_set_size") if mx.metal.is_available() else None
        if recommended is not None and not cls._is_set:
            cls._is_set = True
            mx.set_wired_limit(min(limit_bytes or int(recommended), int(recommended)))


class DeviceMemory:
    """The memory of the device that this process may use. Nothing is cached: every call reads it anew.

    Attributes:
        promised_bytes: reserved for models that are loading and for captioner processes. Set by the owner of the
            memory ledger, from any thread.
    """

    def __init__(self, budget_bytes: int | None = None) -> None:
        self.promised_bytes = 0
        self._configured_bytes = budget_bytes

    def budget_bytes(self) -> int:
        """Bytes for weights and caches together."""
        return device_budget_bytes(self._configured_bytes)

    def active_bytes(self) -> int:
        """Bytes that MLX has allocated now, for all models of this process."""
        return int(mx.get_active_memory())


@dataclass(frozen=True, slots=True)
class KVBudget:
    """How much KV memory the rows of one model may take.

    Attributes:
        footprint: bytes of one sequence's caches.
        limit_bytes: configured limit of rows and prompt cache together; None = all that the device's budget leaves.
        prompt_cache_bytes: configured limit of the prompt cache; None = DEFAULT_PROMPT_CACHE_PART of what there is.
    """

    footprint: KVFootprint
    limit_bytes: int | None
    memory: DeviceMemory
    prompt_cache_bytes: int | None = None

    def total_bytes(self, used_bytes: int) -> int:
        """Bytes that rows and prompt cache may take together; they take `used_bytes` of it now.

        The device's memory is read at every call, because other models are loaded and unloaded.
        """
        others = max(self.memory.active_bytes() - used_bytes, 0) + self.memory.promised_bytes
        left = max(self.memory.budget_bytes() - others, 0)
        return left if self.limit_bytes is None else min(self.limit_bytes, left)

    @property
    def max_num_tokens(self) -> float:
        """The longest sequence, in tokens, that fits when nothing else is in memory."""
        budget_bytes = self.memory.budget_bytes()
        return self.footprint.max_num_tokens(
            budget_bytes if self.limit_bytes is None else min(self.limit_bytes, budget_bytes)
        )

    def kept_bytes(self, used_bytes: int) -> int:
        """Bytes of `total_bytes` that the prompt cache may take."""
        total = self.total_bytes(used_bytes)
        if self.prompt_cache_bytes is None:
            return int(total * DEFAULT_PROMPT_CACHE_PART)
        return min(self.prompt_cache_bytes, total)
