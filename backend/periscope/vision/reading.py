"""ImageReading finds or makes the verbatim text of a request's pictures. Event loop only.

A reader is an OCR engine in a thread, or a model (`ModelReading`). An engine reads one picture at a time; others wait
for their turn, as for a captioner. Texts are cached like captions, also that there is none. What a reader raises
becomes a `CaptionFailed` of its picture, so that a broken reader costs no answer; only a turn that does not come is
`ServerBusy`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Final

from periscope.captions.cache import Answer, CaptionCache
from periscope.captions.caption import Caption, CaptionOutcome
from periscope.captions.keys import cache_key
from periscope.core import Tell
from periscope.errors import CaptionFailed, FileInvalid, ImageInvalid, ServerBusy, ServerStopping
from periscope.events import Event
from periscope.vision.described import described
from periscope.vision.images.limits import ImageLimits
from periscope.vision.intake import Picture
from periscope.vision.model_reading import ModelReading
from periscope.vision.prompts import printable
from periscope.vision.readers.layout import LAYOUT_VERSION, text_of
from periscope.vision.readers.model_reader import ModelReader
from periscope.vision.readers.reader import TextReader
from periscope.vision.settings import ReadingSettings
from periscope.vision.turns import take_reading_turn

logger = logging.getLogger(__name__)

_TOO_LONG: Final = "reading it took too long"


@dataclass(frozen=True, slots=True)
class ReadPicture:
    """What came of reading one picture. `failure` is set when it could not be read; a text may be empty."""

    text: str = ""
    failure: str | None = None
    elapsed_ms: int = 0


class ImageReading:
    """Owns the turn at the reader's thread; texts belong to the cache.

    Args:
        cache: may be that of captions, too: the keys differ in their namespace.
        executor: runs the reader; None is the loop's default.
        wait_timeout_s: how long a picture waits for its turn.
        clock: seconds.
        publish: told what each call of a reader has cost.
    """

    def __init__(
        self,
        cache: CaptionCache,
        *,
        executor: Executor | None = None,
        wait_timeout_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        publish: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self._cache = cache
        self._publish = publish
        self._executor = executor
        self._wait_timeout_s = wait_timeout_s
        self._clock = clock
        self._models = ModelReading(executor, wait_timeout_s)
        self._turn = asyncio.Semaphore(1)
        self._is_overdue = False

    async def of(
        self, pictures: Sequence[Picture], limits: ImageLimits, settings: ReadingSettings | None
    ) -> list[ReadPicture]:
        """One result for each picture, in order; without settings nothing is read. Of equal ones the first counts time.

        Raises:
            ImageInvalid, FileInvalid: the pixels of a picture are broken; a page or a frame cannot be drawn.
            ServerBusy: a picture's turn did not come in time.
            ServerStopping: the executor was shut down.
        """
        if settings is None or not pictures:
            return [ReadPicture()] * len(pictures)
        keys = [reading_key(picture.header.sha256, settings) for picture in pictures]
        by_key = dict(zip(keys, pictures, strict=True))
        limits = replace(limits, max_side_px=settings.max_side_px)

        async def make(missing: tuple[str, ...], _tell: Tell) -> Sequence[CaptionOutcome]:
            made, reader = [by_key[key] for key in missing], settings.reader
            if isinstance(reader, ModelReader):
                outcomes = await self._models.read(made, reader, limits, settings.timeout_s)
            else:
                outcomes = [await self._read(picture, reader, limits, settings.timeout_s) for picture in made]
            self._publish(described(reader.name, outcomes, is_reader=True))
            return [_bounded(outcome, settings.max_chars) for outcome in outcomes]

        await self._cache.loaded()
        answers = await self._cache.get_or_caption(keys, make)
        first = {key: at for at, key in reversed(tuple(enumerate(keys)))}
        return [_read_picture(answers[key], is_first=first[key] == at) for at, key in enumerate(keys)]

    async def _read(
        self, picture: Picture, reader: TextReader, limits: ImageLimits, timeout_s: float
    ) -> CaptionOutcome:
        """Wait for the turn, then read in the executor. The turn ends when the thread is done, not when we give up."""
        if self._is_overdue:
            return CaptionFailed("the reader hangs")
        data = await picture.read()
        try:
            await take_reading_turn(self._turn, self._wait_timeout_s)
        except ServerBusy as busy:
            return busy
        start = self._clock()
        try:
            reading = asyncio.get_running_loop().run_in_executor(
                self._executor, _text_in, picture, data, limits, reader
            )
        except RuntimeError as error:  # how an executor says that it takes nothing any more
            self._turn.release()
            raise ServerStopping("The server is stopping.") from error
        reading.add_done_callback(self._end_turn)
        done, _ = await asyncio.wait({reading}, timeout=timeout_s)
        if not done:
            self._is_overdue = True
            logger.warning("reader %s: %s", reader.name, _TOO_LONG)
            return CaptionFailed(_TOO_LONG)
        return _outcome(reading, reader, elapsed_ms=round(1000 * (self._clock() - start)))

    def _end_turn(self, reading: asyncio.Future[str]) -> None:
        self._is_overdue = False
        self._turn.release()
        if not reading.cancelled():
            reading.exception()  # told by `_read`, unless nobody waits any more


def reading_key(image_sha256: str, settings: ReadingSettings) -> str:
    """Pure: holds everything that the text of a picture depends on; the same in every process."""
    reader = settings.reader
    facts: list[str | int] = [reader.name, reader.revision, LAYOUT_VERSION, settings.max_side_px, settings.max_chars]
    return cache_key("text", image_sha256, facts)


def _text_in(picture: Picture, data: bytes, limits: ImageLimits, reader: TextReader) -> str:
    """Blocks: the text of a picture."""
    return printable(text_of(reader.read(picture.decoded(data, limits)))).rstrip()


def _bounded(outcome: CaptionOutcome, max_chars: int) -> CaptionOutcome:
    """Pure: a text cut to so many characters, with a line that says so."""
    if not isinstance(outcome, Caption) or len(outcome.text) <= max_chars:
        return outcome
    return replace(outcome, text=f"{outcome.text[:max_chars]}\n(cut off after {max_chars} characters)")


def _outcome(reading: asyncio.Future[str], reader: TextReader, *, elapsed_ms: int) -> CaptionOutcome:
    if reading.cancelled():
        raise ServerStopping("The server is stopping.")
    error = reading.exception()
    if error is None:
        return Caption(reading.result(), num_tokens=0, elapsed_ms=elapsed_ms)
    if isinstance(error, (ImageInvalid, FileInvalid)):
        raise error
    if isinstance(error, ServerBusy):
        return error
    logger.warning("reader %s failed: %s: %s", reader.name, type(error).__name__, error)
    return CaptionFailed("the reader failed")


def _read_picture(answer: Answer, *, is_first: bool) -> ReadPicture:
    if isinstance(answer.result, CaptionFailed):
        return ReadPicture(failure=answer.result.reason)
    return ReadPicture(answer.result.text, elapsed_ms=answer.result.elapsed_ms if answer.is_made and is_first else 0)
