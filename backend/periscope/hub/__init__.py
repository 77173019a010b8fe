"""Models on the Hugging Face hub and in its cache on this disk: fetched, listed, removed. Never loads or serves one.

There is one copy of everything: the cache that `hf`, mlx-lm and transformers use too. Nothing here runs while serving.
"""

from periscope.hub.cache import CachedModel, cached_models, complete_snapshot, remove_model
from periscope.hub.download import PullProgress, PullStatus, pull
from periscope.hub.plan import Hub

__all__ = [
    "CachedModel",
    "Hub",
    "PullProgress",
    "PullStatus",
    "cached_models",
    "complete_snapshot",
    "pull",
    "remove_model",
]
