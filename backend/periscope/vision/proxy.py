"""VisionProxy rewrites a conversation with images into one without. Event loop only.

It knows nothing of HTTP, the model pool or MLX: captions come from the `Captioner` that each call names.
"""

from __future__ import annotations

from collections.abc import Sequence

from periscope.captions.cache import Answer, CaptionCache
from periscope.core import CaptionedImage, ImagePart, Message, Role, Tell, VisionUsage
from periscope.errors import CaptionFailed
from periscope.vision.blocks import Rewritten, captioned_images, rewritten
from periscope.vision.captioner import Captioner
from periscope.vision.captioning import NOT_AVAILABLE, ImageCaptioning
from periscope.vision.intake import ImageIntake, image_places
from periscope.vision.settings import ProxySettings

_NO_CAPTIONER = Answer(CaptionFailed(NOT_AVAILABLE), is_made=False)


class VisionProxy:
    """Owns the order of the steps: intake, captioning, blocks.

    A request stays admitted, and its bytes stay counted, until its last image has been replaced by text.
    """

    def __init__(self, cache: CaptionCache, *, intake: ImageIntake | None = None) -> None:
        self._intake = intake or ImageIntake()
        self._captioning = ImageCaptioning(cache)

    async def rewrite(
        self,
        messages: Sequence[Message],
        captioner: Captioner | None,
        settings: ProxySettings,
        *,
        tell: Tell = lambda _: None,
    ) -> Rewritten:
        """Replace every image part by one text part. Images are numbered through the whole conversation.

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
            answers: Sequence[Answer | None]
            if captioner is None:
                await admitted.decode(pictures[-settings.limits.max_images :])  # broken ones are the client's error
                answers, name = [_NO_CAPTIONER] * len(pictures), ""
            else:
                answers = await self._captioning.for_conversation(admitted, captioner, settings, tell)
                name = captioner.id.name
            return rewritten(messages, pictures, answers, name, settings)

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
            answers = await self._captioning.for_all(admitted, captioner, settings)
            return captioned_images(admitted.pictures, answers, captioner.id.name)
