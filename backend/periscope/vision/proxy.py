"""VisionProxy: a conversation with images in, the same conversation in words out. Event loop only.

Knows nothing of HTTP, models in memory or MLX: captions come from whatever `Captioner` it is given.
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
    """Owns the order of the steps: intake, captioning, blocks. A request stays in the intake until it is in words."""

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
        """Captions on their own, one per image in order; a failed one tells its reason.

        Raises:
            InvalidRequest: more captions would have to be made than `settings.limits.max_images`.
            ImageInvalid, ImageSourceRefused: an image cannot be taken.
            ServerBusy: the captioner, or the intake of images, has too many requests already.
        """
        places = list(image_places([Message(Role.USER, tuple(parts))], settings))
        async with self._intake.admitted(places, settings.limits) as admitted:
            answers = await self._captioning.for_all(admitted, captioner, settings)
            return captioned_images(admitted.pictures, answers, captioner.id.name)
