"""ModelReading has the text in pictures read by a vision-language model (`ModelReader`). Event loop only.

The model is leased or asked like a captioner, a few pictures at a time. What it writes is cleaned to lines and bounded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Final

from periscope.captions.caption import Caption, CaptionOutcome
from periscope.errors import CaptionEmpty, CaptionFailed
from periscope.vision.captioner import CaptionRequest
from periscope.vision.captioning import outcomes_of
from periscope.vision.fetching import in_order
from periscope.vision.images.limits import ImageLimits
from periscope.vision.intake import Picture
from periscope.vision.prompts import printable
from periscope.vision.readers.model_reader import ModelReader
from periscope.vision.threads import Threads
from periscope.vision.turns import take_reading_turn

logger = logging.getLogger(__name__)

#: Pictures that a request has decoded for the model at once: a batch for it, and 50 MB at the reader's size.
_BATCH_SIZE: Final = 4
#: Requests that have pictures decoded for reader models at once; more wait for their turn.
_MAX_BATCHES: Final = 4


class ModelReading:
    """Owns the bound on the pictures that are decoded for reader models, over all requests.

    Args:
        executor: decodes pictures and draws pages.
        wait_timeout_s: how long a request waits for its turn.
    """

    def __init__(self, executor: Executor | None, wait_timeout_s: float) -> None:
        self._run = Threads(executor)
        self._wait_timeout_s = wait_timeout_s
        self._turns = asyncio.Semaphore(_MAX_BATCHES)

    async def read(
        self, pictures: Sequence[Picture], reader: ModelReader, limits: ImageLimits, timeout_s: float
    ) -> list[CaptionOutcome]:
        """One outcome for each picture, in order; "" where no text stands.

        Args:
            timeout_s: how long the model may work on one picture.

        Raises:
            ImageInvalid, FileInvalid: the pixels of a picture are broken; a page or a frame cannot be drawn.
            ServerBusy: the turn did not come in time, or the model has too many requests.
            ServerStopping: the executor was shut down.
        """
        outcomes: list[CaptionOutcome] = []
        for start in range(0, len(pictures), _BATCH_SIZE):
            await take_reading_turn(self._turns, self._wait_timeout_s)
            try:
                outcomes += await self._batch(pictures[start : start + _BATCH_SIZE], reader, limits, timeout_s)
            finally:
                self._turns.release()
        return outcomes

    async def _batch(
        self, pictures: Sequence[Picture], reader: ModelReader, limits: ImageLimits, timeout_s: float
    ) -> list[CaptionOutcome]:
        files = await in_order([picture.read() for picture in pictures])
        images = await self._run.all(
            partial(picture.decoded, data, limits) for picture, data in zip(pictures, files, strict=True)
        )
        prompts = (reader.family.prompt,) * len(images)
        request = CaptionRequest(tuple(images), prompts, reader.max_tokens, timeout_s * len(images))
        outcomes = await outcomes_of(reader.captioner, request, lambda _: None)
        took_ms = max((outcome.elapsed_ms for outcome in outcomes if isinstance(outcome, Caption)), default=0)
        return [_text_outcome(outcome, reader, elapsed_ms=took_ms // len(outcomes)) for outcome in outcomes]


def _text_outcome(outcome: CaptionOutcome, reader: ModelReader, *, elapsed_ms: int) -> CaptionOutcome:
    """What a captioner says of a picture, as what a reader says of it.

    Args:
        elapsed_ms: the picture's share of what the batch took.
    """
    match outcome:
        case Caption(answer, num_tokens):
            text = printable(reader.family.text_of(answer)).rstrip()
            if num_tokens >= reader.max_tokens:
                text = f"{text}\n(cut off after {reader.max_tokens} tokens)"
            return Caption(text, num_tokens=0, elapsed_ms=elapsed_ms)
        case CaptionEmpty():
            return Caption("", num_tokens=0, elapsed_ms=0)
        case CaptionFailed(reason=reason):
            return CaptionFailed(reason.replace("captioner", "reader"))
        case _:
            return outcome
