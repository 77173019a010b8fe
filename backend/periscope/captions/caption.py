"""The outcomes of captioning one image. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from periscope.errors import CaptionFailed, ServerBusy


@dataclass(frozen=True, slots=True)
class Caption:
    """The description of one image.

    Attributes:
        text: never empty, without control characters.
        num_tokens: tokens generated for it, those of a second try included.
        elapsed_ms: from the moment the captioner began to work on the request to this caption.
    """

    text: str
    num_tokens: int
    elapsed_ms: int = 0


#: `ServerBusy`: the image's turn did not come, because of other requests; the captioner has not failed.
CaptionOutcome: TypeAlias = Caption | CaptionFailed | ServerBusy
