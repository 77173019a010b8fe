"""Builds what a text model or a client reads in place of pictures: blocks, markers, usage.

Pure, except that failures are written to the log.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from periscope.captions.cache import Answer
from periscope.captions.caption import Caption
from periscope.core import CaptionedImage, ImagePart, Message, Part, TextPart, VisionUsage
from periscope.errors import CaptionerUnavailable, CaptionFailed
from periscope.vision.intake import Picture
from periscope.vision.numbering import Numbered
from periscope.vision.prompts import (
    Label,
    caption_block,
    first_of,
    marker,
    moment_text,
    undescribed_block,
    unread_section,
    verbatim_section,
    video_block,
)
from periscope.vision.reading import ReadPicture
from periscope.vision.settings import OnError, ProxySettings
from periscope.vision.videos.video import FrameImage, Video

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Messages without any image part, and what captioning them took.

    Attributes:
        messages: byte-identical each time the same conversation is rewritten.
        numbered: the numbers that are taken with their pictures and files.
    """

    messages: tuple[Message, ...]
    vision: VisionUsage
    numbered: Numbered = Numbered()


@dataclass(frozen=True, slots=True)
class SeenPicture:
    """A picture and what came of it.

    Attributes:
        answer: its caption, or why there is none; None if it was left out.
        reading: the text that stands in it.
    """

    picture: Picture
    answer: Answer | None
    reading: ReadPicture = ReadPicture()


@dataclass(frozen=True, slots=True)
class Sources:
    """Who described and read the pictures of a request, as the text model is told."""

    captioner: str
    reader: str = ""


def rewritten(
    messages: Sequence[Message], seen: Sequence[SeenPicture], sources: Sources, settings: ProxySettings
) -> Rewritten:
    """Replace each image part by the block or the marker of its picture.

    Args:
        seen: one for each image part, in order.

    Raises:
        CaptionerUnavailable: a picture has no caption, and `settings.on_error` asks for an error.
    """
    _report_failures(seen, settings.on_error)
    left_out = f"only the newest {settings.limits.max_images} images that are new in a request are described"
    described = [
        _Described(each.picture, CaptionFailed(left_out) if each.answer is None else each.answer.result, each.reading)
        for each in seen
    ]
    return Rewritten(_with_blocks(messages, _blocks(described, sources)), usage_of(seen))


def captioned_image(picture: Picture, answer: Answer, reading: ReadPicture, sources: Sources) -> CaptionedImage:
    """The result for a client that asked for captions without a chat."""
    width, height = picture.size
    result = answer.result
    text, error = (None, result.reason) if isinstance(result, CaptionFailed) else (result.text, None)
    block = block_of(picture, result, reading, sources)
    return CaptionedImage(text, error, width, height, sources.captioner, verbatim=reading.text or None, block=block)


def read_image(picture: Picture, reading: ReadPicture) -> CaptionedImage:
    """The result for a client that asked for the text in an image alone: it has no caption and no block."""
    width, height = picture.size
    return CaptionedImage(None, reading.failure, width, height, captioner="", verbatim=reading.text or None)


def _report_failures(seen: Sequence[SeenPicture], on_error: OnError) -> None:
    """Log all failures in one line, and raise for the first of them if `on_error` asks for an error."""
    failures = [
        (each.picture, each.answer.result)
        for each in seen
        if each.answer is not None and isinstance(each.answer.result, CaptionFailed)
    ]
    if not failures:
        return
    reasons = ", ".join(sorted({failure.reason for _, failure in failures}))
    logger.warning("%d of %d images were not described: %s", len(failures), len(seen), reasons)
    if on_error is OnError.ERROR:
        picture, failure = failures[0]
        raise CaptionerUnavailable(
            f"The image in `{picture.place.part.param}` could not be described: {failure.reason}. "
            "Try again later, or set `on_error: marker` to have such images marked instead."
        )


@dataclass(frozen=True, slots=True)
class _Described:
    """What is told of an image: its caption, or why there is none, and its text."""

    picture: Picture
    result: Caption | CaptionFailed
    reading: ReadPicture


def _blocks(described: Iterable[_Described], sources: Sources) -> Iterator[str | None]:
    """One for each image, in order. The block of a video stands at its first frame, and None at the others."""
    for video, group in itertools.groupby(described, lambda each: _video_of(each.picture)):
        if video is None:
            yield from (block_of(each.picture, each.result, each.reading, sources) for each in group)
        else:
            frames = list(group)
            yield _video_block(video, frames, sources)
            yield from itertools.repeat(None, len(frames) - 1)


def _video_of(picture: Picture) -> Video | None:
    part = picture.place.part
    return part.video if isinstance(part, FrameImage) else None


def block_of(picture: Picture, result: Caption | CaptionFailed, reading: ReadPicture, sources: Sources) -> str:
    """Pure: what a text model reads in place of one picture."""
    label, size = picture.place.label, picture.size
    label = Label(first_of(label.head, picture.header.series), label.name)
    verbatim = _verbatim(picture, reading, sources)
    if not isinstance(result, CaptionFailed):
        return caption_block(label, size, sources.captioner, result.text, verbatim)
    if reading.text:
        return undescribed_block(label, size, result.reason, verbatim)
    return marker(label, size, result.reason)


def _video_block(video: Video, frames: Sequence[_Described], sources: Sources) -> str:
    first = frames[0].picture
    assert isinstance(first.place.part, FrameImage)  # noqa: S101 - of a video
    label, failure = first.place.part.block, frames[0].result
    if isinstance(failure, CaptionFailed) and not any(
        each.reading.text or isinstance(each.result, Caption) for each in frames
    ):
        return marker(label, first.size, failure.reason)
    moments = "\n".join(_moment(each, sources) for each in frames)
    return video_block(label, first.size, video.facts().seconds, sources.captioner, moments)


def _moment(frame: _Described, sources: Sources) -> str:
    label, result = frame.picture.place.label, frame.result
    if isinstance(result, CaptionFailed):
        text = f"could not be described: {result.reason}. Do not guess what it shows."
    else:
        text = result.text
    return moment_text(label, text, _verbatim(frame.picture, frame.reading, sources))


def _verbatim(picture: Picture, reading: ReadPicture, sources: Sources) -> str:
    """The section of its text; empty if there is none."""
    label = picture.place.label
    if reading.failure is not None:
        return unread_section(label, reading.failure)
    return verbatim_section(label, sources.reader, reading.text)


def _with_blocks(messages: Sequence[Message], blocks: Iterator[str | None]) -> tuple[Message, ...]:
    return tuple(replace(message, parts=tuple(_shown(message.parts, blocks))) for message in messages)


def _shown(parts: Iterable[Part], blocks: Iterator[str | None]) -> Iterator[Part]:
    for part in parts:
        if not isinstance(part, ImagePart):
            yield part
        elif (block := next(blocks)) is not None:
            yield TextPart(block, is_data=True)


def usage_of(seen: Sequence[SeenPicture]) -> VisionUsage:
    """Pure: what these pictures of a request took."""
    captions = [
        (each.answer.result, each.answer.is_made)
        for each in seen
        if each.answer is not None and isinstance(each.answer.result, Caption)
    ]
    made = [caption for caption, is_made in captions if is_made]
    return VisionUsage(
        num_images=len(seen),
        num_cache_hits=len(captions) - len(made),
        num_failed=len(seen) - len(captions),
        num_caption_tokens=sum(caption.num_tokens for caption in made),
        caption_ms=max((caption.elapsed_ms for caption in made), default=0),
        reader_ms=sum(each.reading.elapsed_ms for each in seen),
    )
