"""States of a few tokens, as a prompt cache keeps them, and their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import KVCache

from periscope.engine.batch.disk.layout import layout_of
from periscope.engine.batch.disk.state_file import encode_header, write_pieces
from periscope.engine.batch.disk.tier import DiskTier
from periscope.engine.batch.prompt_cache import LayerCaches, PromptCache
from periscope.engine.config import StatesOnDisk

MB = 2**20
KEY = "of-this-model"
CHAT = [1000 + number for number in range(200)]


def state(tokens: Sequence[int], num_layers: int = 2) -> LayerCaches:
    """A state whose keys are the tokens themselves, and whose values are those of the layer, with room to spare."""
    caches: LayerCaches = []
    for layer in range(num_layers):
        cache = KVCache()
        keys = mx.broadcast_to(mx.array(list(tokens), dtype=mx.float32)[None, None, :, None], (1, 2, len(tokens), 4))
        cache.update_and_fetch(keys, keys + layer)
        caches.append(cache)
    mx.eval([cache.state for cache in caches])
    return caches


def new_caches() -> LayerCaches:
    return [KVCache(), KVCache()]


def tokens_in(caches: LayerCaches) -> list[int]:
    keys, _ = caches[0].keys_and_values()
    return [int(value) for value in keys[0, 0, :, 0].tolist()]


def write(path: Path, tokens: Sequence[int], caches: LayerCaches, key: str = KEY, *, is_trimmable: bool = True) -> Path:
    """Write a state as the tier does, at one go."""
    layout = layout_of(caches, len(tokens), is_trimmable=is_trimmable)
    as_array = np.asarray(tokens, dtype=np.int64)
    header, num_bytes = encode_header(key, as_array, layout)
    with path.open("wb", buffering=0) as file:
        for _ in write_pieces(file, header, as_array, layout, lambda: caches):
            pass
        assert file.tell() == num_bytes
    return path


class Clock:
    """Tells the time that it is set to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def tier(
    folder: Path,
    cache: PromptCache,
    *,
    key: str = KEY,
    max_bytes: int = 64 * MB,
    write_after_s: float = 60.0,
    clock: Clock | None = None,
) -> DiskTier:
    return DiskTier(StatesOnDisk(folder, max_bytes, write_after_s), key, cache, new_caches, clock or Clock())
