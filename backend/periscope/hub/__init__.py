"""Models on the Hugging Face hub and in its cache on this disk: fetched, listed, removed. Never loads or serves one.

There is one copy of everything: the cache that `hf`, mlx-lm and transformers use too. A running server fetches
models by command only (`downloads.py`), never because a request names one.
"""

from periscope.hub.cache import CachedModel, cached_models, complete_snapshot, remove_model
from periscope.hub.download import PullProgress, PullStatus, pull
from periscope.hub.downloads import Downloads
from periscope.hub.jobs import JobFile
from periscope.hub.plan import Hub

__all__ = [
    "CachedModel",
    "Downloads",
    "Hub",
    "JobFile",
    "PullProgress",
    "PullStatus",
    "cached_models",
    "complete_snapshot",
    "pull",
    "remove_model",
]
