"""What a captioner is: the nouns of captioning and the protocol every backend keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from periscope.core import Image, Waiting
from periscope.errors import CaptionFailed, ServerBusy


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


@dataclass(frozen=True, slots=True)
class Caption:
    """A description, never empty.

    Attributes:
        num_tokens: tokens generated for it, a retry included.
        elapsed_ms: from the moment the captioner began to work on the request to this caption.
    """

    text: str
    num_tokens: int
    elapsed_ms: int = 0


#: What becomes of one image. `ServerBusy`: its turn did not come, because of others; it is not the captioner's failure.
CaptionOutcome: TypeAlias = Caption | CaptionFailed | ServerBusy

#: Hears what a request waits for, each time that changes. Called on the event loop; does not wait and does not raise.
Tell: TypeAlias = Callable[[Waiting], None]


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
