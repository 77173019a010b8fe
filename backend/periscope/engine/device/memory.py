"""How much memory a prompt's KV cache will take, and whether there is room for it. Worker thread only.

The cost of a token is measured once on the loaded model's own caches, so that every architecture is right: full
attention grows with the length, a sliding window up to its size, a state-space layer not at all.
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
#: Part of the device's memory that models and caches may take: the rest is for activations and other programs.
USABLE_PART = 0.9
#: Where the device does not tell its memory (MLX's CPU backend), this part of the machine's is ours.
USABLE_PART_OF_HOST = 0.5
#: Part of the memory for KV caches that kept states may take, unless configured.
DEFAULT_PROMPT_CACHE_PART = 0.25


@dataclass(frozen=True, slots=True)
class _Layer:
    """One cache object. `slot_bytes` per token up to `max_slots`, and `fixed_bytes` whatever the length."""

    slot_bytes: int
    max_slots: int | None
    fixed_bytes: int

    def nbytes(self, num_tokens: int) -> int:
        blocks = -(-num_tokens // BLOCK_TOKENS) * BLOCK_TOKENS
        slots = blocks if self.max_slots is None else min(blocks, self.max_slots)
        return self.fixed_bytes + slots * self.slot_bytes


@dataclass(frozen=True, slots=True)
class KVFootprint:
    """Bytes of one sequence's caches by its length. Pure."""

    layers: tuple[_Layer, ...]

    @classmethod
    def measure(cls, caches: Iterable[Any]) -> KVFootprint:
        """From caches that have seen a few tokens."""
        return cls(tuple(_layer(cache) for cache in flat(caches)))

    def nbytes(self, num_tokens: int) -> int:
        """Bytes of the caches of a sequence of that many tokens."""
        return sum(layer.nbytes(num_tokens) for layer in self.layers)

    def most_tokens(self, num_bytes: int) -> float:
        """The longest sequence whose caches take no more than that; infinity where they stop growing before."""
        growing = sum(layer.slot_bytes for layer in self.layers if layer.max_slots is None)
        if growing == 0:
            return math.inf
        low, high = 0, num_bytes // (growing * BLOCK_TOKENS)  # in blocks; windows and fixed parts take from it
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.nbytes(middle * BLOCK_TOKENS) <= num_bytes else (low, middle - 1)
        return low * BLOCK_TOKENS


def flat(caches: Iterable[Any]) -> Iterator[Any]:
    """The cache objects of all layers, those inside mlx-lm's `CacheList` too."""
    for cache in caches:
        inner = getattr(cache, "caches", None)
        if inner is None:
            yield cache
        else:
            yield from flat(inner)


def window_of(cache: Any) -> int | None:
    """Tokens that a cache holds at most; None = all of them. mlx-lm has sliding windows and chunks (Llama 4)."""
    window: int | None = getattr(cache, "max_size", None) or getattr(cache, "chunk_size", None)
    return window


def _layer(cache: Any) -> _Layer:
    keys = getattr(cache, "keys", None)
    nbytes = int(cache.nbytes)
    if keys is None:
        return _Layer(0, None, nbytes)
    widest = keys[0] if isinstance(keys, (tuple, list)) else keys  # quantised keys are (values, scales, biases)
    return _Layer(nbytes // int(widest.shape[-2]), _most_slots(cache), 0)


def _most_slots(cache: Any) -> int | None:
    """Tokens that the arrays of a cache have room for at most; None = it depends on the length alone.

    Llama 4's chunks are cut back only when a token comes, by copying; till then a block or two more are held.
    """
    window = window_of(cache)
    return window if window is None or hasattr(cache, "max_size") else window + 2 * BLOCK_TOKENS


def device_budget_bytes(configured_bytes: int | None = None) -> int:
    """For the weights and caches of all models: as configured, but never more than the device recommends."""
    info = mx.device_info()
    told = info.get("max_recommended_working_set_size") or info.get("total_memory")
    if told is not None:
        return int(int(told) * USABLE_PART) if configured_bytes is None else min(configured_bytes, int(told))
    ours = int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * USABLE_PART_OF_HOST)
    return ours if configured_bytes is None else min(configured_bytes, ours)


class WiredLimit:
    """How much of what is in use is kept from being paged out: one limit for the process.

    It is set once, or generators of the model libraries that come and go would unwire each other's weights (mlx-lm
    0.32, mlx-vlm 0.7).
    """

    _is_set = False

    @classmethod
    def set_once(cls, limit_bytes: int | None = None) -> None:
        """To what Metal recommends, or less if so configured; only the first call counts. Nothing without Metal."""
        recommended = mx.device_info().get("max_recommended_working_set_size") if mx.metal.is_available() else None
        if recommended is not None and not cls._is_set:
            cls._is_set = True
            mx.set_wired_limit(min(limit_bytes or int(recommended), int(recommended)))


class DeviceMemory:
    """What the device has for us, or what of it we were told to use; read anew at every question.

    Attributes:
        promised_bytes: kept for models that are loading, and taken by other processes of ours; whoever shares this
            memory among models sets it, from any thread.
    """

    def __init__(self, budget_bytes: int | None = None) -> None:
        self.promised_bytes = 0
        self._configured_bytes = budget_bytes

    def budget_bytes(self) -> int:
        """For weights and caches together."""
        return device_budget_bytes(self._configured_bytes)

    def active_bytes(self) -> int:
        """What MLX holds now, of all models of this process."""
        return int(mx.get_active_memory())


@dataclass(frozen=True, slots=True)
class KVBudget:
    """How much KV memory the rows of one model may take.

    Attributes:
        limit_bytes: as configured; None = all that the device's budget leaves.
        prompt_cache_bytes: of it for kept states, as configured; None = a part of what there is at the time.
    """

    footprint: KVFootprint
    limit_bytes: int | None
    memory: DeviceMemory
    prompt_cache_bytes: int | None = None

    def total_bytes(self, used_bytes: int) -> int:
        """All that rows and prompt cache may take together, of which they hold `used_bytes` now.

        What the device's budget leaves is read each time: weights and other models come and go.
        """
        others = max(self.memory.active_bytes() - used_bytes, 0) + self.memory.promised_bytes
        left = max(self.memory.budget_bytes() - others, 0)
        return left if self.limit_bytes is None else min(self.limit_bytes, left)

    @property
    def most_tokens(self) -> float:
        """The longest sequence that could ever be held, with nothing else in memory."""
        budget_bytes = self.memory.budget_bytes()
        return self.footprint.most_tokens(
            budget_bytes if self.limit_bytes is None else min(self.limit_bytes, budget_bytes)
        )

    def kept_bytes(self, used_bytes: int) -> int:
        """What of `total_bytes` kept states may take."""
        total = self.total_bytes(used_bytes)
        if self.prompt_cache_bytes is None:
            return int(total * DEFAULT_PROMPT_CACHE_PART)
        return min(self.prompt_cache_bytes, total)
