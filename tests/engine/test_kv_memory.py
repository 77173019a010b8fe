"""What a prompt's caches will take, told before they exist."""

from __future__ import annotations

import mlx.core as mx
import pytest
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache

from periscope.engine.kv_memory import DeviceMemory, KVBudget, KVFootprint


class FixedMemory(DeviceMemory):
    """A device of a given size."""

    def __init__(self, budget: int, active: int) -> None:
        self._budget, self._active = budget, active

    def budget_bytes(self) -> int:
        return self._budget

    def active_bytes(self) -> int:
        return self._active


def fed(cache: KVCache | RotatingKVCache, num_tokens: int) -> KVCache | RotatingKVCache:
    keys = mx.zeros((1, 2, num_tokens, 16))
    cache.update_and_fetch(keys, keys)
    return cache


@pytest.mark.parametrize("num_tokens", [1, 256, 257, 1000])
def test_the_estimate_is_what_the_cache_then_takes(num_tokens: int) -> None:
    """Measured on one token, right for a thousand: the byte count of a real cache of that length."""
    footprint = KVFootprint.measure([fed(KVCache(), 1), fed(KVCache(), 1)])
    assert footprint.nbytes(num_tokens) == 2 * fed(KVCache(), num_tokens).nbytes


def test_a_sliding_window_stops_growing() -> None:
    """Past its window a layer costs no more, however long the prompt."""
    footprint = KVFootprint.measure([fed(RotatingKVCache(max_size=512), 1)])
    assert footprint.nbytes(100_000) == footprint.nbytes(512) == 512 * 2 * 2 * 16 * 4


def test_a_state_space_layer_costs_the_same_at_any_length() -> None:
    """Only layers that keep keys grow; caches inside a list count too."""
    arrays = ArraysCache(1)
    arrays[0] = mx.zeros((1, 100))
    footprint = KVFootprint.measure([CacheList(arrays, fed(KVCache(), 1))])
    assert footprint.nbytes(512) - footprint.nbytes(256) == fed(KVCache(), 256).nbytes
    assert footprint.nbytes(1) == 400 + fed(KVCache(), 1).nbytes


def test_room_is_what_other_models_leave() -> None:
    """What this model's own caches hold is its to use again; weights and other models' memory are not."""
    budget = KVBudget(KVFootprint(()), None, FixedMemory(budget=1000, active=700))
    assert budget.total_bytes(0) == 300
    assert budget.total_bytes(held_bytes=200) == 500
    assert KVBudget(KVFootprint(()), 50, FixedMemory(budget=1000, active=700)).total_bytes(0) == 50


def test_this_machine_has_memory() -> None:
    """Also where MLX tells nothing of its device."""
    assert DeviceMemory().budget_bytes() > 2**28
    assert DeviceMemory().active_bytes() >= 0
