"""Captioner over a local vision-language model. Event loop only; MLX lives behind the protocol it is given."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from periscope.core import Image
from periscope.errors import CaptionFailed, EngineClosed
from periscope.vision.captioner import Caption, CaptionerId, CaptionRequest
from periscope.vision.prompts import clean_text

logger = logging.getLogger(__name__)

#: A captioner that said nothing is asked once more: another batch may round differently.
_NUM_TRIES: Final = 2


class VisionLanguage(Protocol):
    """A loaded vision-language model."""

    @property
    def is_alive(self) -> bool:
        """It takes requests."""
        ...

    async def describe(self, image: Image, prompt: str, max_tokens: int) -> tuple[str, int]:
        """Greedy text about one image, maybe empty, and the tokens it took. Many may run at once; cancellable."""
        ...


class MlxVlmCaptioner:
    """Captioner over a loaded model. Owns nothing; all images of a request are submitted at once, so they batch."""

    def __init__(
        self, engine: VisionLanguage, captioner_id: CaptionerId, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._id = captioner_id
        self._clock = clock

    @property
    def id(self) -> CaptionerId:
        """Who describes."""
        return self._id

    async def caption(self, request: CaptionRequest) -> tuple[Caption | CaptionFailed, ...]:
        """One caption or failure per image, in order; the timeout spares captions that are done by then."""
        started = self._clock()
        deadline = asyncio.get_running_loop().time() + request.timeout_s
        return tuple(
            await asyncio.gather(
                *(
                    self._caption_one(image, prompt, request.max_tokens, started, deadline)
                    for image, prompt in zip(request.images, request.prompts, strict=True)
                )
            )
        )

    async def health_check(self) -> bool:
        """The model is loaded and takes requests."""
        return self._engine.is_alive

    async def _caption_one(
        self, image: Image, prompt: str, max_tokens: int, started: float, deadline: float
    ) -> Caption | CaptionFailed:
        try:
            async with asyncio.timeout_at(deadline):
                text, num_tokens = await self._describe(image, prompt, max_tokens)
        except TimeoutError:
            return CaptionFailed("the captioner timed out")
        except EngineClosed:
            return CaptionFailed("the captioner is not available")
        except Exception as error:  # noqa: BLE001 - one image's failure must not take its neighbours along
            logger.warning("captioner %s failed on an image: %s", self._id.name, type(error).__name__)
            return CaptionFailed("the captioner failed")
        if not text:
            return CaptionFailed("the captioner returned nothing")
        return Caption(text, num_tokens, elapsed_ms=round((self._clock() - started) * 1000))

    async def _describe(self, image: Image, prompt: str, max_tokens: int) -> tuple[str, int]:
        """Text without what a reader cannot see; empty only when every try was."""
        num_tokens = 0
        for _ in range(_NUM_TRIES):
            text, num_more = await self._engine.describe(image, prompt, max_tokens)
            num_tokens += num_more
            if seen := clean_text(text):
                return seen, num_tokens
        return "", num_tokens
