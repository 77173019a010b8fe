"""VisionProxy rewrites a conversation with images into one without. Event loop only.

It knows nothing of HTTP, the model pool or MLX: captions come from the `Captioner` that each call names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from periscope.captions.cache import Answer, CaptionCache
from periscope.core import CaptionedImage, ImagePart, Message, Role, Tell, VisionUsage
from periscope.errors import CaptionFailed
from periscope.vision.blocks import Rewritten, SeenPicture, Sources, captioned_image, rewritten
from periscope.vision.captioner import Captioner
from periscope.vision.captioning import NOT_AVAILABLE, ImageCaptioning
from periscope.vision.intake import AdmittedImages, ImageIntake, Picture, image_places
from periscope.vision.reading import ImageReading
from periscope.vision.settings import ProxySettings

_NO_CAPTIONER = Answer(CaptionFailed(NOT_AVAILABLE), is_made=False)


class VisionProxy:
    """Owns the order of the steps: intake, then captioning and reading side by side, then blocks.

    A request stays admitted, and its bytes stay counted, until its last image has been replaced by text.
    """

    def __init__(
        self, cache: CaptionCache, *, intake: ImageIntake | None = None, reading: ImageReading | None = None
    ) -> None:
        self._intake = intake or ImageIntake()
        self._reading = reading or ImageReading(cache)
        self._captioning = ImageCaptioning(cache)

    async def rewrite(
        self,
        messages: Sequence[Message],
        captioner: Captioner | None,
        settings: ProxySettings,
        *,
        tell: Tell = lambda _: None,
    ) -> Rewritten:
        """Replace every image part by one text part: its description, and the text in it.

        Images are numbered through the whole conversation.

        Captions that are in the cache are always used, however many there are. Of those that have to be made, the
        newest `settings.limits.max_images` are made; the other images get a marker, which they keep in later turns
        (`LeftOutImages`). So the messages of one turn are a prefix of those of the next.

        Args:
            captioner: None if none is configured; then `settings.on_error` decides.
            tell: called with what the request waits for, unless all captions are in the cache.

        Raises:
            ImageInvalid, ImageSourceRefused: an image cannot be taken; raised before any captioning.
            CaptionerUnavailable: an image could not be captioned, and `on_error` asks for an error.
            ServerBusy: the captioner or the intake has too many requests, or an image's turn did not come in time.
        """
        places = list(image_places(messages, settings))
        if not places:
            return Rewritten(tuple(messages), VisionUsage())
        async with self._intake.admitted(places, settings.limits) as admitted:
            pictures = admitted.pictures
            if captioner is None:
                left_out = frozenset(range(len(pictures) - settings.limits.max_images))
            else:
                left_out = await self._captioning.left_out(pictures, captioner, settings)
            shown = [picture for at, picture in enumerate(pictures) if at not in left_out]
            seen = iter(await self._seen(shown, admitted, captioner, settings, tell))
            all_seen = [SeenPicture(each, None) if at in left_out else next(seen) for at, each in enumerate(pictures)]
            return rewritten(messages, all_seen, _sources(captioner, settings), settings)

    async def _seen(
        self,
        pictures: Sequence[Picture],
        admitted: AdmittedImages,
        captioner: Captioner | None,
        settings: ProxySettings,
        tell: Tell,
    ) -> list[SeenPicture]:
        """Describe and read these pictures side by side. Of two errors the captioner's is raised."""
        reading = asyncio.create_task(
            self._reading.of(pictures, settings.limits, settings.reading), name="read the text in images"
        )
        try:
            if captioner is None:
                await admitted.decode(pictures)  # broken ones are the client's error
                answers = [_NO_CAPTIONER] * len(pictures)
            else:
                answers = await self._captioning.answers(pictures, admitted, captioner, settings, tell)
            texts = await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        return [SeenPicture(*each) for each in zip(pictures, answers, texts, strict=True)]

    async def describe(
        self, parts: Sequence[ImagePart], captioner: Captioner, settings: ProxySettings
    ) -> tuple[CaptionedImage, ...]:
        """Caption images without a chat: one result for each image, in order. A failed one holds the reason.

        Raises:
            InvalidRequest: more captions would have to be made than `settings.limits.max_images`.
            ImageInvalid, ImageSourceRefused: an image cannot be taken.
            ServerBusy: the captioner, or the intake of images, has too many requests already.
        """
        places = list(image_places([Message(Role.USER, tuple(parts))], settings))
        async with self._intake.admitted(places, settings.limits) as admitted:
            await self._captioning.check_all(admitted.pictures, captioner, settings)
            seen = await self._seen(admitted.pictures, admitted, captioner, settings, lambda _: None)
            sources = _sources(captioner, settings)
            return tuple(
                captioned_image(each.picture, each.answer, each.reading, sources)
                for each in seen
                if each.answer is not None
            )


def _sources(captioner: Captioner | None, settings: ProxySettings) -> Sources:
    reader = "" if settings.reading is None else settings.reading.reader.name
    return Sources("" if captioner is None else captioner.id.name, reader)
