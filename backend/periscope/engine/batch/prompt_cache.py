"""PromptCache: KV states of earlier requests, kept for prompts that share a prefix. Worker thread only.

Bounded in bytes at every moment. A state is kept when a row ends, unless it failed, and at checkpoints for models whose
caches cannot be trimmed. The least recently used state is evicted first.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import can_trim_prompt_cache, trim_prompt_cache

from periscope.engine.batch.sharing import MIN_TOKENS, Source, StateView, common_prefix
from periscope.engine.batch.slot_caches import drop_spare
from periscope.engine.device.memory import flat

#: One mlx-lm cache object per layer, of a single sequence.
LayerCaches: TypeAlias = list[Any]

#: Every lookup compares the prompt with every state, so their number is bounded too. This is far more conversations
#: than one server has open at a time.
MAX_STATES = 128


@dataclass(slots=True, eq=False)
class _Entry:
    """A kept state: `caches` hold exactly the tokens of `view`; `nbytes` includes spare capacity."""

    view: StateView
    caches: LayerCaches
    nbytes: int


class PromptCache:
    """Owns the kept states. States are handed out as copies, which share memory until one is written to.

    Attributes:
        max_bytes: may be changed, with effect from the next `keep`; 0 keeps nothing.
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
        """Bytes of all kept states; at most `max_bytes` after every `keep`."""
        return self._nbytes

    @property
    def num_kept(self) -> int:
        """How many states have ever been kept."""
        return self._num_kept

    @property
    def states(self) -> Sequence[StateView]:
        """The kept states, the least recently used first."""
        return [entry.view for entry in self._entries.values()]

    def fetch(self, key: int, num_tokens: int) -> LayerCaches | None:
        """A copy of a kept state, trimmed to its first `num_tokens` tokens; None if it has been evicted."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        caches = copy.deepcopy(entry.caches)
        if num_tokens < entry.view.num_tokens:
            trim_prompt_cache(caches, entry.view.num_tokens - num_tokens)
        return caches

    def peek(self, key: int) -> LayerCaches | None:
        """A kept state, to be read and not written to; None if it has been evicted. It counts as no use of it."""
        entry = self._entries.get(key)
        return None if entry is None else entry.caches

    def keep(self, tokens: Sequence[int], caches: LayerCaches) -> None:
        """Take over a state that holds exactly `tokens`; the caller must not use `caches` any more.

        Kept states that this one can be trimmed to are dropped. A state larger than `max_bytes` is not kept.
        """
        self.trim_to(self.max_bytes)
        if len(tokens) < MIN_TOKENS or self.max_bytes == 0:
            return
        drop_spare(caches)
        nbytes = sum(int(cache.nbytes) for cache in caches)
        if nbytes > self.max_bytes:
            return
        # Slices of a batch are lazy: unevaluated, they would keep the whole batch in memory.
        mx.eval([cache.state for cache in caches])
        mine = np.asarray(tokens, dtype=np.int64)
        is_trimmable = can_be_trimmed(caches)
        for key, entry in list(self._entries.items()):
            kept = entry.view
            if not _is_prefix_of_other(kept.tokens, mine):
                continue
            if len(kept.tokens) <= len(mine) and (is_trimmable or len(kept.tokens) == len(mine)):
                self._drop(key)
            elif len(kept.tokens) >= len(mine) and kept.is_trimmable:
                self._entries.move_to_end(key)
                return  # this state is a prefix of a longer one that can be trimmed to it
        self._num_kept += 1
        view = StateView(Source.KEPT, self._num_kept, mine, len(mine), is_trimmable)
        self._entries[self._num_kept] = _Entry(view, caches, nbytes)
        self._nbytes += nbytes
        self.trim_to(self.max_bytes)

    def trim_to(self, max_bytes: int) -> None:
        """Evict the least recently used states until at most `max_bytes` and MAX_STATES states are left."""
        while self._entries and (self._nbytes > max_bytes or len(self._entries) > MAX_STATES):
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Drop all kept states."""
        self._entries.clear()
        self._nbytes = 0

    def _drop(self, key: int) -> None:
        self._nbytes -= self._entries.pop(key).nbytes


def _is_prefix_of_other(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether one of two arrays begins with all of the other. The last place in common tells most that do not."""
    size = min(len(a), len(b))
    return bool(a[size - 1] == b[size - 1]) and common_prefix(a, b) == size


def can_be_trimmed(caches: LayerCaches) -> bool:
    """Whether a state can be trimmed to any length.

    mlx-lm 0.32 claims it of Llama 4's chunked caches even when their first tokens have been dropped; those are refused.
    """
    return can_trim_prompt_cache(caches) and not any(getattr(cache, "start_position", 0) for cache in flat(caches))
