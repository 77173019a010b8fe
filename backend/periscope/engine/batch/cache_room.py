"""How much room caches have before an array grows, and sliding windows kept to their size. Worker thread only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx_lm.models.cache import RotatingKVCache

from periscope.engine.device.memory import BLOCK_TOKENS, flat, window_of

if TYPE_CHECKING:
    from periscope.engine.batch.prompt_cache import LayerCaches
    from periscope.engine.batch.row_caches import RowCaches


def free_tokens(caches: RowCaches) -> float:
    """How many tokens every row can take before an array has to grow; infinity if none ever does."""
    return min((_free_tokens(cache) for cache in flat(caches.layers)), default=math.inf)


def growth_bytes(caches: RowCaches, num_tokens: int) -> int:
    """Bytes that the arrays grow by when every row takes `num_tokens` more; all kinds grow in whole blocks."""
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
    num_stored = getattr(
        cache, "_idx", None
    )  # mlx-lm's name, in batch and window caches, for where the next token goes
    if num_stored is None:
        num_stored = cache.offset - getattr(cache, "start_position", 0)
    return capacity - int(num_stored)


def _capacity(cache: Any) -> int:
    """Tokens that the arrays have room for; 0 before the first token."""
    keys = cache.keys
    if keys is None:
        return 0
    widest = keys[0] if isinstance(keys, (tuple, list)) else keys  # quantised keys are (values, scales, biases)
    return int(widest.shape[-2])


def trim_to_windows(caches: LayerCaches) -> None:
    """Drop the tokens that have left their sliding windows.

    mlx-lm 0.32 keeps a whole prefill chunk in addition to the window until the next forward pass. With chunks as long
    as windows, that doubles the cache.
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
