"""VisionProxy: a conversation with images in, the same conversation in words out. Event loop; decoding in an executor.

Knows nothing of HTTP, models in memory or MLX: captions come from whatever `Captioner` it is given.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import TypeVar

from periscope.core import CaptionedImage, Image, ImagePart, Message, Role, TextPart, VisionUsage
from periscope.errors import (
    CaptionerUnavailable,
    CaptionFailed,
    InvalidRequest,
    PeriscopeError,
    ServerBusy,
    ServerStopping,
)
from periscope.vision.cache import Answer, CaptionCache, caption_key
from periscope.vision.captioner import Caption, Captioner, CaptionOutcome, CaptionRequest, Tell
from periscope.vision.images.decode import ImageHeader, decode, read_header
from periscope.vision.images.limits import ImageLimits
from periscope.vision.images.source import fetch
from periscope.vision.intake import Admission, ImageIntake
from periscope.vision.left_out import LeftOutImages
from periscope.vision.prompts import DEFAULT_CAPTION_PROMPT, caption_block, caption_prompt, marker

logger = logging.getLogger(__name__)

T = TypeVar("T")

_NOT_AVAILABLE = "the captioner is not available"
_NOBODY_THERE = Answer(CaptionFailed(_NOT_AVAILABLE), is_made=False)
_STOPPING = "The server is stopping."


class _BehindFailureError(Exception):
    """A call was not begun, because one before it failed; that one's error is told."""


class OnError(StrEnum):
    """What an image becomes whose captioner is broken: a marker block in the prompt, or an error to the client.

    A captioner that is only busy is neither: the client gets `ServerBusy`, and its next try an answer.
    """

    MARKER = "marker"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """How one text model has its images described.

    Attributes:
        prompt: what the captioner is asked about every image.
        timeout_s: how long the captioner may work on all captions of a request; neither loads nor waits are in it.
        use_question: tell the captioner the text of the image's message; captions then depend on it.
    """

    prompt: str = DEFAULT_CAPTION_PROMPT
    max_tokens: int = 256
    timeout_s: float = 60.0
    on_error: OnError = OnError.MARKER
    use_question: bool = False
    limits: ImageLimits = ImageLimits()


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Messages without any image part, byte-identical for the same conversation, and what it took."""

    messages: tuple[Message, ...]
    vision: VisionUsage


@dataclass(frozen=True, slots=True)
class _Slot:
    """An image's place in the conversation."""

    number: int
    part: ImagePart
    prompt: str


@dataclass(frozen=True, slots=True)
class _Picture:
    """An image that was taken in: its bytes are here, its header is good, its pixels are not decoded."""

    slot: _Slot
    data: bytes
    header: ImageHeader

    @property
    def size(self) -> tuple[int, int]:
        return self.header.width, self.header.height

    def decoded_bytes(self, limits: ImageLimits) -> int:
        """What its pixels will take, scaled down."""
        width, height = self.size
        scale = min(1.0, limits.max_side_px / max(width, height))
        return round(3 * width * scale * height * scale)


class VisionProxy:
    """Owns the way from images to words and what it leaves out; the cache it is given owns the captions.

    Every request passes the intake before its images are read, and stays in it until they are words.
    """

    def __init__(
        self, cache: CaptionCache, *, executor: Executor | None = None, intake: ImageIntake | None = None
    ) -> None:
        self._cache = cache
        self._executor = executor
        self._intake = intake or ImageIntake()
        self._left_out = LeftOutImages()

    async def rewrite(
        self,
        messages: Sequence[Message],
        captioner: Captioner | None,
        settings: ProxySettings,
        *,
        tell: Tell = lambda _: None,
    ) -> Rewritten:
        """Every image part becomes one text part at its place, numbered through the whole conversation.

        A caption that is known always stands, however many there are. Of those that have to be made the newest
        `settings.limits.max_images` are, and the rest get a marker, which stays in later turns of the conversation
        (`LeftOutImages`): so the messages of one turn are where those of the next begin.

        Args:
            captioner: None where there is none or it failed: its images are handled by `settings.on_error`.
            tell: hears what the captions wait for, if any has to be waited for.

        Raises:
            ImageInvalid, ImageSourceRefused: an image cannot be taken; before any captioning.
            CaptionerUnavailable: an image has no caption and `on_error` asks for an error.
            ServerBusy: the captioner, or the intake of images, has too many requests already.
        """
        slots = list(_slots(messages, settings))
        if not slots:
            return Rewritten(tuple(messages), VisionUsage())
        async with self._intake.admitted(_sent_bytes(slots)) as admission:
            pictures = await self._take_in(slots, settings.limits)
            if captioner is None:
                await self._decode(pictures[-settings.limits.max_images :], settings.limits)
                return _rewritten(messages, pictures, [_NOBODY_THERE] * len(pictures), "", settings)
            keys = [_key(picture, captioner, settings) for picture in pictures]
            left_out = self._left_out.choose(keys, self._cache.missing(keys), settings.limits.max_images)
            shown = [picture for place, picture in enumerate(pictures) if place not in left_out]
            made = iter(await self._answers(shown, captioner, settings, admission, tell))
            answers = [None if place in left_out else next(made) for place in range(len(pictures))]
            return _rewritten(messages, pictures, answers, captioner.id.name, settings)

    async def describe(
        self, parts: Sequence[ImagePart], captioner: Captioner, settings: ProxySettings
    ) -> tuple[CaptionedImage, ...]:
        """Captions on their own, one per image in order; a failed one tells its reason.

        Raises:
            InvalidRequest: more captions would have to be made than `settings.limits.max_images`.
            ImageInvalid, ImageSourceRefused: an image cannot be taken.
            ServerBusy: the captioner, or the intake of images, has too many requests already.
        """
        slots = list(_slots([Message(Role.USER, tuple(parts))], settings))
        async with self._intake.admitted(_sent_bytes(slots)) as admission:
            pictures = await self._take_in(slots, settings.limits)
            missing = self._cache.missing(_key(picture, captioner, settings) for picture in pictures)
            if len(missing) > settings.limits.max_images:
                raise InvalidRequest(
                    f"`images` holds {len(missing)} images that have no caption yet; at most "
                    f"{settings.limits.max_images} are described at once (`max_images`). "
                    "Send them in several requests.",
                    param="images",
                )
            answers = await self._answers(pictures, captioner, settings, admission, lambda _: None)
        return tuple(
            _captioned(picture, answer.result, captioner.id.name)
            for picture, answer in zip(pictures, answers, strict=True)
        )

    async def _take_in(self, slots: Sequence[_Slot], limits: ImageLimits) -> list[_Picture]:
        return await self._run_all(partial(_take_in, slot, limits) for slot in slots)

    async def _decode(self, pictures: Sequence[_Picture], limits: ImageLimits) -> list[Image]:
        return await self._run_all(
            partial(decode, picture.data, limits, param=picture.slot.part.param) for picture in pictures
        )

    async def _run_all(self, calls: Iterable[Callable[[], T]]) -> list[T]:
        """In the executor, at once; of several errors the first image's is raised, so that the answer is stable.

        Calls behind one that has failed are not begun: nobody would see what comes of them.

        Raises:
            ServerStopping: the executor was shut down before or meanwhile.
        """
        loop = asyncio.get_running_loop()
        try:
            failed: list[int] = []
            running = [
                loop.run_in_executor(self._executor, _unless_behind, failed, number, call)
                for number, call in enumerate(calls)
            ]
        except RuntimeError as error:  # how an executor says that it takes nothing any more
            raise ServerStopping(_STOPPING) from error
        done = await asyncio.gather(*running, return_exceptions=True)
        results: list[T] = []
        for result in done:
            if isinstance(result, asyncio.CancelledError):  # not by us: then `gather` itself would have raised it
                raise ServerStopping(_STOPPING)
            if isinstance(result, BaseException):
                raise result
            results.append(result)
        return results

    async def _answers(
        self,
        pictures: Sequence[_Picture],
        captioner: Captioner,
        settings: ProxySettings,
        admission: Admission,
        tell: Tell,
    ) -> list[Answer]:
        """One for each picture; of equal pictures only the first counts as made."""
        keys = [_key(picture, captioner, settings) for picture in pictures]
        by_key = dict(zip(keys, pictures, strict=True))
        images: dict[str, Image] = {}
        # What is missing can change while pictures are decoded: entries are evicted, others' captions fail.
        while missing := [key for key in self._cache.missing(keys) if key not in images]:
            to_decode = [by_key[key] for key in missing]
            admission.add(sum(picture.decoded_bytes(settings.limits) for picture in to_decode))
            decoded = await self._decode(to_decode, settings.limits)
            images.update(zip(missing, decoded, strict=True))
        prompts = {key: picture.slot.prompt for key, picture in by_key.items()}
        make = partial(_make_captions, captioner=captioner, settings=settings, images=images, prompts=prompts)
        answers = await self._cache.get_or_caption(keys, make, tell=tell)
        first = {key: place for place, key in reversed(tuple(enumerate(keys)))}
        return [
            replace(answers[key], is_made=answers[key].is_made and first[key] == place)
            for place, key in enumerate(keys)
        ]


def _slots(messages: Sequence[Message], settings: ProxySettings) -> Iterator[_Slot]:
    number = 0
    for message in messages:
        prompt = caption_prompt(settings.prompt, message.text if settings.use_question else "")
        for part in message.images:
            number += 1
            yield _Slot(number, part, prompt)


def _sent_bytes(slots: Sequence[_Slot]) -> int:
    """What images take as base64 and as the bytes behind it, which are there at the same time."""
    return sum(len(slot.part.url) for slot in slots) * 7 // 4


def _unless_behind(failed: list[int], number: int, call: Callable[[], T]) -> T:
    """Runs the call and notes its number if it fails.

    Args:
        failed: numbers of the calls that failed so far; several threads add to it.

    Raises:
        _BehindFailureError: one before it has failed, so it was not begun.
        Exception: the call's own error.
    """
    if any(each < number for each in failed):
        raise _BehindFailureError
    try:
        return call()
    except BaseException:
        failed.append(number)
        raise


def _take_in(slot: _Slot, limits: ImageLimits) -> _Picture:
    data = fetch(slot.part, limits)
    return _Picture(slot, data, read_header(data, limits, param=slot.part.param))


def _key(picture: _Picture, captioner: Captioner, settings: ProxySettings) -> str:
    return caption_key(
        image_sha256=picture.header.sha256,
        captioner=captioner.id,
        prompt=picture.slot.prompt,
        max_tokens=settings.max_tokens,
        max_side_px=settings.limits.max_side_px,
    )


async def _make_captions(
    keys: Sequence[str],
    tell: Tell,
    *,
    captioner: Captioner,
    settings: ProxySettings,
    images: dict[str, Image],
    prompts: dict[str, str],
) -> list[CaptionOutcome]:
    """All images go to the captioner together, whatever is asked about each: one place in its queue for a request."""
    asked, shown = tuple(prompts[key] for key in keys), tuple(images[key] for key in keys)
    return list(await _ask(captioner, CaptionRequest(shown, asked, settings.max_tokens, settings.timeout_s), tell))


async def _ask(captioner: Captioner, request: CaptionRequest, tell: Tell) -> Sequence[CaptionOutcome]:
    """What the captioner says, or the same failure for every image.

    Raises:
        ServerBusy: that is no failure of the captioner, so there is no marker for it.
    """
    try:
        outcomes = await captioner.caption(request, tell)
    except ServerBusy:
        raise
    except PeriscopeError as error:
        logger.warning("captioner %s: %s", captioner.id.name, error.message)
        reason = _NOT_AVAILABLE
    except Exception as error:  # noqa: BLE001 - a captioner's bug must not take text requests along
        logger.warning("captioner %s failed: %s", captioner.id.name, type(error).__name__)
        reason = "the captioner failed"
    else:
        if len(outcomes) == len(request.images):
            return outcomes
        reason = "the captioner failed"
    return [CaptionFailed(reason)] * len(request.images)


def _rewritten(
    messages: Sequence[Message],
    pictures: Sequence[_Picture],
    answers: Sequence[Answer | None],
    described_by: str,
    settings: ProxySettings,
) -> Rewritten:
    """The end of the way; an image without an answer was left out."""
    _report_failures(pictures, answers, settings.on_error)
    left_out = f"only the newest {settings.limits.max_images} images that are new in a request are described"
    blocks = [
        marker(picture.slot.number, picture.size, left_out)
        if answer is None
        else _block(picture, answer.result, described_by)
        for picture, answer in zip(pictures, answers, strict=True)
    ]
    return Rewritten(_with_blocks(messages, blocks), _usage(answers))


def _report_failures(pictures: Sequence[_Picture], answers: Sequence[Answer | None], on_error: OnError) -> None:
    """Log them in one line; raise the first if that is what was asked for."""
    failures = [
        (picture, answer.result)
        for picture, answer in zip(pictures, answers, strict=True)
        if answer is not None and isinstance(answer.result, CaptionFailed)
    ]
    if not failures:
        return
    reasons = ", ".join(sorted({failure.reason for _, failure in failures}))
    logger.warning("%d of %d images were not described: %s", len(failures), len(pictures), reasons)
    if on_error is OnError.ERROR:
        picture, failure = failures[0]
        raise CaptionerUnavailable(
            f"The image in `{picture.slot.part.param}` could not be described: {failure.reason}. "
            "Try again later, or set `on_error: marker` to have such images marked instead."
        )


def _block(picture: _Picture, result: Caption | CaptionFailed, described_by: str) -> str:
    if isinstance(result, CaptionFailed):
        return marker(picture.slot.number, picture.size, result.reason)
    return caption_block(picture.slot.number, picture.size, described_by, result.text)


def _captioned(picture: _Picture, result: Caption | CaptionFailed, described_by: str) -> CaptionedImage:
    width, height = picture.size
    if isinstance(result, CaptionFailed):
        return CaptionedImage(None, result.reason, width, height, described_by)
    return CaptionedImage(result.text, None, width, height, described_by)


def _with_blocks(messages: Sequence[Message], blocks: Sequence[str]) -> tuple[Message, ...]:
    remaining = iter(blocks)
    return tuple(
        replace(
            message,
            parts=tuple(
                TextPart(next(remaining), is_data=True) if isinstance(part, ImagePart) else part
                for part in message.parts
            ),
        )
        for message in messages
    )


def _usage(answers: Sequence[Answer | None]) -> VisionUsage:
    captions = [
        (answer.result, answer.is_made)
        for answer in answers
        if answer is not None and isinstance(answer.result, Caption)
    ]
    made = [caption for caption, is_made in captions if is_made]
    return VisionUsage(
        num_images=len(answers),
        num_cache_hits=len(captions) - len(made),
        num_failed=len(answers) - len(captions),
        num_caption_tokens=sum(caption.num_tokens for caption in made),
        caption_ms=max((caption.elapsed_ms for caption in made), default=0),
    )
