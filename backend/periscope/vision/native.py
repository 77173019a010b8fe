"""NativeVision puts decoded images into a conversation, for a model that sees them itself. Event loop only.

It knows nothing of models: what becomes of the pixels is the engine's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from periscope.core import Image, ImagePart, Message, Part, TextPart, VisionUsage
from periscope.vision.images.in_flight import Admission
from periscope.vision.intake import ImageIntake, Picture
from periscope.vision.numbering import Numbered
from periscope.vision.prompts import first_of, marker
from periscope.vision.settings import ProxySettings

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class ShownImages:
    """Messages with pixels in place of images. A context manager: the pixels count as held until it is left.

    Attributes:
        messages: documents are text and page images in them.
        numbered: the numbers that are taken with their images and files.
    """

    messages: tuple[Message, ...]
    vision: VisionUsage
    _admission: Admission
    numbered: Numbered = Numbered()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.give_back(self._admission.num_bytes)


class NativeVision:
    """Owns the order of the steps: intake, decoding, pixels in the messages. Files are dropped before it returns."""

    def __init__(self, intake: ImageIntake | None = None) -> None:
        self._intake = intake or ImageIntake()

    async def shown(
        self, messages: Sequence[Message], settings: ProxySettings, before: Numbered = Numbered()
    ) -> ShownImages:
        """The messages with an `Image` for each image part; of documents and videos, text, pages and frames.

        Beyond `settings.limits.max_images` the oldest images get a marker (`num_left_out`).

        Args:
            before: the numbers that earlier messages of the conversation have taken.

        Raises:
            ImageInvalid, ImageSourceRefused, FileInvalid: an image or a file cannot be taken.
            InvalidRequest: more images would have to be fetched than one request may have.
            ServerBusy: too many bytes of images are in the server already.
        """
        async with self._intake.admitted(messages, settings, before) as admitted:
            pictures, limits = admitted.pictures, settings.limits
            num_old = num_left_out(len(pictures), limits.max_images)
            images = await admitted.decode(pictures[num_old:])
            parts = [
                *(_left_out(picture, limits.max_images) for picture in pictures[:num_old]),
                *(_with_label(picture, image) for picture, image in zip(pictures[num_old:], images, strict=True)),
            ]
            return ShownImages(
                tuple(_with_parts(admitted.messages, iter(parts))),
                VisionUsage(num_images=len(pictures), num_failed=num_old),
                admitted.hold(sum(len(image.rgb) for image in images)),
                admitted.numbered,
            )


def num_left_out(num_images: int, most: int) -> int:
    """Pure: how many of a conversation's images, the oldest first, its model is not shown.

    They grow in steps of half of `most`, so that the prefix of the prompt, and with it the prompt cache, holds for
    several turns after an image has been left out.
    """
    step = max(most // 2, 1)
    return -(-max(num_images - most, 0) // step) * step


def _left_out(picture: Picture, most: int) -> tuple[Part, ...]:
    reason = f"the model is shown at most the newest {most} images of a conversation"
    return (TextPart(marker(picture.place.label, picture.size, reason), is_data=True),)


def _with_label(picture: Picture, image: Image) -> tuple[Part, ...]:
    """A page or a frame says which it is, by the name that its block would have, and so does one of several."""
    series = picture.header.series
    if not (picture.is_drawn or series):
        return (image,)
    return TextPart(f"[This is {first_of(picture.place.label.name, series)}.]", is_data=True), image


def _with_parts(messages: Sequence[Message], parts: Iterator[tuple[Part, ...]]) -> Iterator[Message]:
    for message in messages:
        shown = [next(parts) if isinstance(part, ImagePart) else (part,) for part in message.parts]
        yield replace(message, parts=tuple(part for each in shown for part in each))
