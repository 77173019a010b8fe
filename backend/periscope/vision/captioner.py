"""The captioner protocol: what a captioner is asked, and what every backend has to provide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from periscope.captions.caption import CaptionOutcome
from periscope.core import Image, Tell


@dataclass(frozen=True, slots=True)
class CaptionerId:
    """Identity of a captioner. The text model reads the name; the cache key holds name and revision."""

    name: str
    revision: str


@dataclass(frozen=True, slots=True)
class CaptionRequest:
    """Images of one request, to be captioned together.

    Attributes:
        prompts: the instruction for each image; as many as images.
        max_tokens: the longest caption, for each image.
        timeout_s: how long the captioner may work on all of them. Neither the load of its model counts, nor the time
            in which it works for other requests alone.
    """

    images: tuple[Image, ...]
    prompts: tuple[str, ...]
    max_tokens: int
    timeout_s: float


class Captioner(Protocol):
    """Captions images. Any number of calls may run at once, all on the event loop."""

    @property
    def id(self) -> CaptionerId:
        """Identity of this captioner; it never changes."""
        ...

    async def caption(self, request: CaptionRequest, tell: Tell) -> tuple[CaptionOutcome, ...]:
        """One outcome for each image, in order. What befalls a single image is returned, not raised. Cancellable.

        Args:
            tell: called with what the request waits for: a place in the queue, the load, then the captions.

        Raises:
            ServerBusy: the captioner has too many requests. It works, and a later try may succeed.
            ModelUnavailable, ModelLoadError, EngineClosed: the captioner cannot caption anything.
        """
        ...
