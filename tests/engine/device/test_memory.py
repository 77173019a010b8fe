"""KV cache sizes before the caches exist, and the memory that is left for them."""

from __future__ import annotations

import mlx.core as mx
import pytest
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache

from periscope.engine.device.memory import DeviceMemory, KVBudget, KVFootprint, device_budget_bytes


class FixedMemory(DeviceMemory):
    """A device with a given amount of memory."""

    def __init__(self, budget: int, active: int) -> None:
        super().__init__()
        self.budget, self.active = budget, active

    def budget_bytes(self) -> int:
        return self.budget

    def active_bytes(self) -> int:
        return self.active


def fed(cache: KVCache | RotatingKVCache, num_tokens: int) -> KVCache | RotatingKVCache:
    keys = mx.zeros((1, 2, num_tokens, 16))
    cache.update_and_fetch(keys, keys)
    return cache


@pytest.mark.parametrize("num_tokens", [1, 256, 257, 1000])
def test_the_estimate_is_what_the_cache_then_takes(num_tokens: int) -> None:
    """The size measured on one token is that of a real cache of any length."""
    footprint = KVFootprint.measure([fed(KVCache(), 1), fed(KVCache(), 1)])
    assert footprint.nbytes(num_tokens) == 2 * fed(KVCache(), num_tokens).nbytes


def test_a_sliding_window_stops_growing() -> None:
    """Beyond its window a layer takes no more memory, however long the prompt is."""
    footprint = KVFootprint.measure([fed(RotatingKVCache(max_size=512), 1)])
    assert footprint.nbytes(100_000) == footprint.nbytes(512) == 512 * 2 * 2 * 16 * 4


def test_a_state_space_layer_costs_the_same_at_any_length() -> None:
    """Only layers with keys grow with the length; caches inside a `CacheList` count too."""
    arrays = ArraysCache(1)
    arrays[0] = mx.zeros((1, 100))
    footprint = KVFootprint.measure([CacheList(arrays, fed(KVCache(), 1))])
    assert footprint.nbytes(512) - footprint.nbytes(256) == fed(KVCache(), 256).nbytes
    assert footprint.nbytes(1) == 400 + fed(KVCache(), 1).nbytes


def test_room_is_what_other_models_leave() -> None:
    """A model's own caches count as free for it; weights and other models' memory do not."""
    budget = KVBudget(KVFootprint(()), None, FixedMemory(budget=1000, active=700))
    assert budget.total_bytes(0) == 300
    assert budget.total_bytes(used_bytes=200) == 500
    assert KVBudget(KVFootprint(()), 50, FixedMemory(budget=1000, active=700)).total_bytes(0) == 50
    assert KVBudget(KVFootprint(()), 500, FixedMemory(budget=1000, active=700)).total_bytes(0) == 300
    assert KVBudget(KVFootprint(()), 500, FixedMemory(budget=1000, active=1200)).total_bytes(0) == 0


def test_memory_promised_to_others_is_not_free() -> None:
    """Memory that is reserved for a loading model is not used for the caches of others."""
    memory = FixedMemory(budget=1000, active=700)
    memory.promised_bytes = 250
    assert KVBudget(KVFootprint(()), None, memory).total_bytes(used_bytes=200) == 250


def test_this_machine_has_memory() -> None:
    """The budget is positive also where MLX does not report the memory of its device."""
    assert DeviceMemory().budget_bytes() == device_budget_bytes() > 2**28
    assert DeviceMemory().active_bytes() >= 0


def test_a_configured_budget_holds_up_to_what_the_machine_recommends() -> None:
    """A configured budget counts if it is below what the device recommends, and is limited to that."""
    assert DeviceMemory(2**20).budget_bytes() == device_budget_bytes(2**20) == 2**20
    most = device_budget_bytes(2**60)
    assert device_budget_bytes() <= most < 2**50
    assert DeviceMemory(2**60).budget_bytes() == most


@pytest.mark.parametrize(("configured", "kept"), [(None, 100), (0, 0), (250, 250), (4000, 400)])
def test_kept_states_may_take_what_is_configured_or_a_quarter_of_what_there_is(
    configured: int | None, kept: int
) -> None:
    """Kept states may take the configured bytes or a quarter of the total, and never more than the total."""
    budget = KVBudget(KVFootprint(()), None, FixedMemory(budget=1000, active=700), configured)
    assert budget.kept_bytes(used_bytes=100) == kept


def test_the_room_for_kept_states_follows_what_there_is() -> None:
    """Another model that is loaded takes room from this one's prompt cache, and its unloading gives it back."""
    memory = FixedMemory(budget=1000, active=200)
    budget = KVBudget(KVFootprint(()), None, memory)
    assert budget.kept_bytes(0) == 200
    memory.active = 900
    assert budget.kept_bytes(0) == 25
    memory.active = 200
    assert budget.kept_bytes(0) == 200
