"""What a captioner is: the nouns of captioning and the protocol every backend keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from periscope.core import Image
from periscope.errors import CaptionFailed


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
        timeout_s: for all of them, counted from when the model is there: load time is not in it.
    """

    images: tuple[Image, ...]
    prompts: tuple[str, ...]
    max_tokens: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Caption:
    """A description, never empty.

    Attributes:
        num_tokens: tokens generated for it, a retry included.
        elapsed_ms: from the captioner's start on the request, load time left out, to this caption.
    """

    text: str
    num_tokens: int
    elapsed_ms: int = 0


class Captioner(Protocol):
    """Describes images. Any number of requests may run at once."""

    @property
    def id(self) -> CaptionerId:
        """Who describes; does not change."""
        ...

    async def caption(self, request: CaptionRequest) -> tuple[Caption | CaptionFailed, ...]:
        """One caption or failure for each image, in order; a failure is returned, not raised. Cancellable.

        Raises:
            ServerBusy: not now, because of others; it is not broken, and a later try may succeed.
            ModelUnavailable, ModelLoadError, EngineClosed: nothing can be captioned at all.
        """
        ...

    async def health_check(self) -> bool:
        """Whether captions can be expected; loads nothing."""
        ...
