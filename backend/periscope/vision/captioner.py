"""What a captioner is: what it is asked, and the protocol that every backend keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from periscope.captions.caption import CaptionOutcome
from periscope.core import Image, Tell


@dataclass(frozen=True, slots=True)
class CaptionerId:
    """Who describes. `name` stands in the block; name and revision are in the cache key."""

    name: str
    revision: str


@dataclass(frozen=True, slots=True)
class CaptionRequest:
    """Images to describe together.

    Attributes:
        prompts: what is asked about each image, one for each.
        timeout_s: how long the captioner may work on all of them. Neither the load of its model counts, nor the time
            in which it works for other requests alone.
    """

    images: tuple[Image, ...]
    prompts: tuple[str, ...]
    max_tokens: int
    timeout_s: float


class Captioner(Protocol):
    """Describes images. Any number of requests may run at once."""

    @property
    def id(self) -> CaptionerId:
        """Who describes; does not change."""
        ...

    async def caption(self, request: CaptionRequest, tell: Tell) -> tuple[CaptionOutcome, ...]:
        """One outcome for each image, in order; those of single images are returned, not raised. Cancellable.

        Args:
            tell: hears what the request waits for: the captioner's queue or its load, then its words.

        Raises:
            ServerBusy: not now, because of others; it is not broken, and a later try may succeed.
            ModelUnavailable, ModelLoadError, EngineClosed: nothing can be captioned at all.
        """
        ...
