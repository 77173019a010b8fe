"""PromptCache: KV states of earlier prompts, kept for prompts that begin alike. Worker thread only.

Bounded by bytes at every moment. States go in when a row ends, however it ends, and at checkpoints for models whose
caches cannot be cut back. The least recently used go first.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import KVCache, can_trim_prompt_cache, trim_prompt_cache

from periscope.engine.kv_memory import flat

#: One mlx-lm cache object per layer, of a single sequence.
LayerCaches: TypeAlias = list[Any]

#: Shorter beginnings are computed faster than they are looked after.
MIN_TOKENS = 16
#: Each look compares with every state: more than these would be felt, and are more conversations than anybody has.
MAX_STATES = 128
#: More capacity than this many times the tokens is not kept.
_SPARE_FACTOR = 1.25


@dataclass(slots=True, eq=False)
class _Entry:
    """`caches` hold exactly `tokens`; `nbytes` is what their arrays take, spare capacity included."""

    tokens: np.ndarray
    caches: LayerCaches
    nbytes: int


class PromptCache:
    """Owns the kept states. `max_bytes` 0 keeps nothing; changed, it holds from the next `keep` on.

    A state is handed out as a copy that shares memory with the kept one until either is written to.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[int, _Entry] = OrderedDict()  # the least recently used first
        self._num_kept = 0
        self._nbytes = 0

    def __repr__(self) -> str:
        return f"<PromptCache entries={len(self._entries)} bytes={self._nbytes}/{self.max_bytes}>"

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes of all kept states; after every `keep` not above `max_bytes`."""
        return self._nbytes

    def fetch(self, tokens: Sequence[int] | np.ndarray) -> tuple[LayerCaches | None, int]:
        """The state of the longest kept beginning of `tokens` and its length; at least one token is left to compute.

        (None, 0) when no beginning of MIN_TOKENS or more is kept.
        """
        wanted = np.asarray(tokens, dtype=np.int64)[:-1]
        best, best_length = None, MIN_TOKENS - 1
        for key, entry in self._entries.items():
            length = common_prefix(entry.tokens, wanted)
            if length < len(entry.tokens) and not can_be_cut(entry.caches):
                continue
            if length > best_length:
                best, best_length = key, length
        if best is None:
            return None, 0
        self._entries.move_to_end(best)
        entry = self._entries[best]
        caches = copy.deepcopy(entry.caches)
        if best_length < len(entry.tokens):
            trim_prompt_cache(caches, len(entry.tokens) - best_length)
        return caches, best_length

    def shared_length(self, tokens: Sequence[int] | np.ndarray) -> int:
        """How many tokens `fetch` would find, without touching anything."""
        wanted = np.asarray(tokens, dtype=np.int64)[:-1]
        lengths = [
            length
            for entry in self._entries.values()
            if (length := common_prefix(entry.tokens, wanted)) == len(entry.tokens) or can_be_cut(entry.caches)
        ]
        longest = max(lengths, default=0)
        return longest if longest >= MIN_TOKENS else 0

    def keep(self, tokens: Sequence[int], caches: LayerCaches) -> None:
        """Take over a state that holds exactly `tokens`; the caller must not use it any more (a copy is fine).

        Beginnings of it that can be cut out of it are dropped. A state above the bound is not kept at all.
        """
        self.trim_to(self.max_bytes)
        if len(tokens) < MIN_TOKENS or self.max_bytes == 0:
            return
        for cache in caches:
            _drop_spare(cache)
        nbytes = sum(int(cache.nbytes) for cache in caches)
        if nbytes > self.max_bytes:
            return
        # Slices of a batch are lazy: unevaluated they would hold on to the whole batch.
        mx.eval([cache.state for cache in caches])
        mine = np.asarray(tokens, dtype=np.int64)
        is_cuttable = can_be_cut(caches)
        for key, entry in list(self._entries.items()):
            shared = common_prefix(entry.tokens, mine)
            is_beginning = shared == len(entry.tokens)
            if is_beginning and (is_cuttable or len(entry.tokens) == len(mine)):
                self._drop(key)
            elif shared == len(mine) and can_be_cut(entry.caches):
                self._entries.move_to_end(key)
                return  # a longer state holds all of this one
        self._num_kept += 1
        self._entries[self._num_kept] = _Entry(mine, caches, nbytes)
        self._nbytes += nbytes
        self.trim_to(self.max_bytes)

    def trim_to(self, max_bytes: int) -> None:
        """Drop the least recently used until no more than `max_bytes` are held, in no more than MAX_STATES."""
        while self._entries and (self._nbytes > max_bytes or len(self._entries) > MAX_STATES):
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._nbytes = 0

    def _drop(self, key: int) -> None:
        self._nbytes -= self._entries.pop(key).nbytes


def _drop_spare(cache: Any) -> None:
    """Plain caches grow in blocks: what is spare is let go where it is a large part of a state."""
    if type(cache) is KVCache and cache.keys is not None and cache.keys.shape[2] > cache.offset * _SPARE_FACTOR:
        keys, values = cache.keys_and_values()
        cache.keys, cache.values = mx.contiguous(keys), mx.contiguous(values)


def can_be_cut(caches: LayerCaches) -> bool:
    """Whether a state can be cut back to any length.

    mlx-lm 0.32 says so of Llama 4's chunks even when their front is gone.
    """
    return can_trim_prompt_cache(caches) and not any(getattr(cache, "start_position", 0) for cache in flat(caches))


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """Pure: how many leading values are equal."""
    size = min(len(a), len(b))
    differs = a[:size] != b[:size]
    first = int(differs.argmax()) if size else 0
    return first if size and differs[first] else size
