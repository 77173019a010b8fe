"""The KV caches of the rows of one decode batch, in four layouts. Worker thread only.

`SingleRowCaches`: one row, its caches as the model made them. `SlotCaches`: several rows of a model with plain KV
caches, each in a slot of its own, so that a row is added or removed without copying the others. `PaddedCaches`:
mlx-lm's own batch caches, for every other kind (sliding windows, state-space layers); they copy all rows to add or
remove one. `MixedCaches`: slots for the layers that are quantised, mlx-lm's batch caches for the others.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import compress
from operator import not_
from typing import Any, Protocol

from mlx_lm.models.cache import BatchKVCache, trim_prompt_cache

from periscope.engine.batch.prompt_cache import LayerCaches
from periscope.engine.batch.quantized_cache import QuantizedCache, resized
from periscope.engine.batch.slot_caches import SlotCaches, fit_slots, is_plain, reserve, whole_blocks
from periscope.engine.device.memory import flat


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

    @property
    def can_rewind(self) -> bool:
        """Whether `advance_by` is supported. Whether the caches of a single row can be trimmed is the model's."""
        ...

    def advance(self) -> None:
        """Note that a forward pass over one token of each row has been built."""
        ...

    def advance_by(self, nums_kept: Sequence[int], num_computed: int) -> None:
        """Note a forward pass over `num_computed` tokens of each row, of which the first `nums_kept` are to stay."""
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
        num_tokens: the initial capacity of each slot, because growing later copies all slots. Of slots only.
    """
    if len(states) == 1:
        return SingleRowCaches(states[0])
    if fit_slots(states):
        return SlotCaches(states, num_tokens)
    has_quantized = any(isinstance(cache, QuantizedCache) for cache in states[0])
    return MixedCaches(states, num_tokens) if has_quantized else PaddedCaches(states)


class SingleRowCaches:
    """One row, its caches as the model made them: the fastest layout, and the only one for caches without `merge`."""

    can_replace = False
    can_rewind = True

    def __init__(self, state: LayerCaches) -> None:
        self.layers = state
        plain = [cache for cache in flat(state) if is_plain(cache) and not cache.empty()]
        if plain:  # a row extracted from a batch has no room for its next token; `growth_bytes` would miss it
            reserve(plain, plain[0].offset + 1)

    def advance(self) -> None:
        return

    def advance_by(self, nums_kept: Sequence[int], num_computed: int) -> None:
        trim_prompt_cache(self.layers, num_computed - nums_kept[0])

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
    can_rewind = False

    def __init__(self, states: Sequence[LayerCaches]) -> None:
        self.layers = _merged(states)
        _pad_to_blocks(self.layers)
        self._first = states[0] if self.layers[0].empty() else None

    def advance(self) -> None:
        return

    def advance_by(self, nums_kept: Sequence[int], num_computed: int) -> None:  # noqa: ARG002
        raise RuntimeError("mlx-lm's batch caches cannot be taken back row by row")

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


class MixedCaches:
    """Slots for the layers whose caches are quantised, mlx-lm's batch caches for the others."""

    can_replace = False
    can_rewind = False

    def __init__(self, states: Sequence[LayerCaches], num_tokens: int) -> None:
        self._is_slot = [isinstance(cache, QuantizedCache) for cache in states[0]]
        in_slots, padded = self._parts(states)
        self._slots, self._padded = SlotCaches(in_slots, num_tokens), PaddedCaches(padded)

    def _parts(self, states: Sequence[LayerCaches]) -> tuple[list[LayerCaches], list[LayerCaches]]:
        """The caches of each state that go into slots, and the others."""
        slots = [list(compress(state, self._is_slot)) for state in states]
        others = [list(compress(state, map(not_, self._is_slot))) for state in states]
        return slots, others

    def _whole(self, in_slots: Sequence[Any], padded: Sequence[Any]) -> LayerCaches:
        """Caches of all layers in their order."""
        slots, others = iter(in_slots), iter(padded)
        return [next(slots if is_slot else others) for is_slot in self._is_slot]

    @property
    def layers(self) -> LayerCaches:
        return self._whole(self._slots.layers, self._padded.layers)

    def advance(self) -> None:
        self._slots.advance()

    def advance_by(self, nums_kept: Sequence[int], num_computed: int) -> None:  # noqa: ARG002
        raise RuntimeError("mlx-lm's batch caches cannot be taken back row by row")

    def extract(self, index: int) -> LayerCaches:
        return self._whole(self._slots.extract(index), self._padded.extract(index))

    def append(self, states: Sequence[LayerCaches]) -> None:
        in_slots, padded = self._parts(states)
        self._slots.append(in_slots)
        self._padded.append(padded)

    def replace(self, index: int, state: LayerCaches) -> None:  # noqa: ARG002
        raise RuntimeError("mlx-lm's batch caches have no slots to replace")

    def keep(self, indices: Sequence[int]) -> None:
        self._slots.keep(indices)
        self._padded.keep(indices)


def _pad_to_blocks(layers: LayerCaches) -> None:
    """Resize batch caches to whole blocks, with room for the next token.

    mlx-lm 0.32 merges to the exact length and adds a block at the next token. That is more than `KVFootprint` says,
    and it happens in a step for which `growth_bytes` was 0.
    """
    for cache in flat(layers):
        if type(cache) is BatchKVCache and cache.keys is not None:
            capacity = whole_blocks(cache._idx + 1)  # noqa: SLF001 - mlx-lm has no way to ask for it
            cache.keys, cache.values = resized(cache.keys, capacity), resized(cache.values, capacity)


def _merged(states: Sequence[LayerCaches]) -> LayerCaches:
    return [layer[0].merge(list(layer)) for layer in zip(*states, strict=True)]
