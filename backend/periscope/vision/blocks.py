"""Builds what a text model or a client reads in place of pictures: blocks, markers, usage.

Pure, except that failures are written to the log.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from periscope.captions.cache import Answer
from periscope.captions.caption import Caption
from periscope.core import CaptionedImage, ImagePart, Message, TextPart, VisionUsage
from periscope.errors import CaptionerUnavailable, CaptionFailed
from periscope.vision.intake import Picture
from periscope.vision.prompts import caption_block, marker
from periscope.vision.settings import OnError, ProxySettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Messages without any image part, and what captioning them took.

    Attributes:
        messages: byte-identical each time the same conversation is rewritten.
    """

    messages: tuple[Message, ...]
    vision: VisionUsage


def rewritten(
    messages: Sequence[Message],
    pictures: Sequence[Picture],
    answers: Sequence[Answer | None],
    captioner_name: str,
    settings: ProxySettings,
) -> Rewritten:
    """Replace each image part by the block or the marker of its picture.

    Args:
        answers: one for each picture; None for a picture that was left out.

    Raises:
        CaptionerUnavailable: a picture has no caption, and `settings.on_error` asks for an error.
    """
    _report_failures(pictures, answers, settings.on_error)
    left_out = f"only the newest {settings.limits.max_images} images that are new in a request are described"
    blocks = [
        marker(picture.place.number, picture.size, left_out)
        if answer is None
        else _block(picture, answer.result, captioner_name)
        for picture, answer in zip(pictures, answers, strict=True)
    ]
    return Rewritten(_with_blocks(messages, blocks), _usage(answers))


def captioned_images(
    pictures: Sequence[Picture], answers: Sequence[Answer], captioner_name: str
) -> tuple[CaptionedImage, ...]:
    """Results for a client that asked for captions without a chat, one for each picture."""
    return tuple(
        _captioned_image(picture, answer.result, captioner_name)
        for picture, answer in zip(pictures, answers, strict=True)
    )


def _captioned_image(picture: Picture, result: Caption | CaptionFailed, captioner_name: str) -> CaptionedImage:
    width, height = picture.size
    if isinstance(result, CaptionFailed):
        return CaptionedImage(None, result.reason, width, height, captioner_name)
    return CaptionedImage(result.text, None, width, height, captioner_name)


def _report_failures(pictures: Sequence[Picture], answers: Sequence[Answer | None], on_error: OnError) -> None:
    """Log all failures in one line, and raise for the first of them if `on_error` asks for an error."""
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
            f"The image in `{picture.place.part.param}` could not be described: {failure.reason}. "
            "Try again later, or set `on_error: marker` to have such images marked instead."
        )


def _block(picture: Picture, result: Caption | CaptionFailed, captioner_name: str) -> str:
    if isinstance(result, CaptionFailed):
        return marker(picture.place.number, picture.size, result.reason)
    return caption_block(picture.place.number, picture.size, captioner_name, result.text)


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
