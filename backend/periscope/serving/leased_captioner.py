"""A captioner whose model lives in the pool.

It is leased for one caption request and given back before the text model is wanted: a request never holds two models,
though it keeps a place in the queue of the second while it uses the first.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from periscope.core import ModelState
from periscope.errors import CaptionFailed, PeriscopeError
from periscope.pool.contracts import PooledEngine
from periscope.pool.pool import ModelPool
from periscope.vision.backends.mlx_vlm import MlxVlmCaptioner, VisionLanguage
from periscope.vision.captioner import Caption, CaptionerId, CaptionRequest


@runtime_checkable
class ImageDescriber(PooledEngine, VisionLanguage, Protocol):
    """A vision-language model in the pool, whichever process it runs in."""


class LeasedCaptioner:
    """Captioner over a pool's model. Owns nothing; load time is not caption time."""

    def __init__(self, pool: ModelPool, model: str, captioner_id: CaptionerId) -> None:
        self._pool = pool
        self._model = model
        self._id = captioner_id

    @property
    def id(self) -> CaptionerId:
        """Who describes."""
        return self._id

    async def caption(self, request: CaptionRequest) -> tuple[Caption | CaptionFailed, ...]:
        """One caption or failure per image, in order.

        Raises:
            ServerBusy: its queue is full, or the wait was too long; ServerStopping when the server stops.
            ModelUnavailable: the captioner cannot be loaded.
        """
        kind: type[ImageDescriber] = ImageDescriber  # type: ignore[type-abstract]  # nobody makes one of it
        async with self._pool.lease(self._model, kind) as engine:
            return await MlxVlmCaptioner(engine, self._id).caption(request)

    async def health_check(self) -> bool:
        """Loaded, or expected to load when it is wanted."""
        try:
            return self._pool.status(self._model).state is not ModelState.FAILED
        except PeriscopeError:
            return False
