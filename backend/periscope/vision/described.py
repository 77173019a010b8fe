"""What a captioner or a reader has done for one request, as it is told to the watchers of the server. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from periscope.captions.caption import Caption, CaptionOutcome
from periscope.errors import CaptionFailed
from periscope.events import ImagesDescribed


def described(name: str, outcomes: Sequence[CaptionOutcome], *, is_reader: bool = False) -> ImagesDescribed:
    """The event of one call. An image whose turn did not come is neither described nor failed."""
    made = [outcome for outcome in outcomes if isinstance(outcome, Caption)]
    return ImagesDescribed(
        name=name,
        is_reader=is_reader,
        elapsed_ms=tuple(caption.elapsed_ms for caption in made),
        num_failed=sum(isinstance(outcome, CaptionFailed) for outcome in outcomes),
        num_tokens=sum(caption.num_tokens for caption in made),
    )
