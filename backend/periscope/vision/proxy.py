"""VisionProxy rewrites a conversation with images and documents into one without. Event loop only.

It knows nothing of HTTP, the model pool or MLX: captions come from the `Captioner` that each call names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from periscope.captions.cache import Answer, CaptionCache
from periscope.core import CaptionedImage, ImagePart, Message, Role, Tell, VisionUsage
from periscope.errors import CaptionFailed, InvalidRequest
from periscope.events import Event
from periscope.vision.blocks import Rewritten, SeenPicture, Sources, captioned_image, read_image, rewritten
from periscope.vision.captioner import Captioner
from periscope.vision.captioning import NOT_AVAILABLE, ImageCaptioning, ReportProblem
from periscope.vision.intake import AdmittedImages, ImageIntake, Picture
from periscope.vision.looking import KeptImages, Looking, See
from periscope.vision.numbering import Numbered
from periscope.vision.reading import ImageReading, ReadPicture
from periscope.vision.settings import ProxySettings

_NO_CAPTIONER = Answer(CaptionFailed(NOT_AVAILABLE), is_made=False)


class VisionProxy:
    """Owns the order of the steps: intake, then captioning and reading side by side, then blocks.

    A request stays admitted, and its bytes stay counted, until its last image has been replaced by text.
    """

    def __init__(
        self,
        cache: CaptionCache,
        *,
        intake: ImageIntake | None = None,
        reading: ImageReading | None = None,
        report_problem: ReportProblem = lambda *_: None,
        publish: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self._intake = intake or ImageIntake()
        self._reading = reading or ImageReading(cache)
        self._captioning = ImageCaptioning(cache, report_problem, publish)

    async def rewrite(
        self,
        messages: Sequence[Message],
        captioner: Captioner | None,
        settings: ProxySettings,
        *,
        tell: Tell = lambda _: None,
        looking: Looking | None = None,
        before: Numbered = Numbered(),
    ) -> Rewritten:
        """Replace every image part by one text part: its description, and the text in it; and documents by theirs.

        Images are numbered through the whole conversation, and so are documents.

        Captions that are in the cache are always used, however many there are. Of those that have to be made, the
        newest `settings.limits.max_images` are made; the other images get a marker, which they keep in later turns
        (`LeftOutImages`). So the messages of one turn are a prefix of those of the next.

        Args:
            captioner: None if none is configured; then `settings.on_error` decides.
            tell: called with what the request waits for, unless all captions are in the cache.
            looking: is handed the images, so that they can be looked at again; without it they are let go.
            before: the numbers that earlier messages of the conversation have taken.

        Raises:
            ImageInvalid, ImageSourceRefused, FileInvalid: an image or a file cannot be taken; raised before any
                captioning.
            CaptionerUnavailable: an image could not be captioned, and `on_error` asks for an error.
            ServerBusy: the captioner or the intake has too many requests, or an image's turn did not come in time.
        """
        if not any(message.images or message.files for message in messages):
            return Rewritten(tuple(messages), VisionUsage(), before)
        async with AsyncExitStack() as held:
            admitted = await held.enter_async_context(self._intake.admitted(messages, settings, before))
            pictures, sources = admitted.pictures, _sources(captioner, settings)
            if captioner is None:
                left_out = frozenset(range(len(pictures) - settings.limits.max_images))
            else:
                left_out = await self._captioning.left_out(pictures, captioner, settings)
            seen = await self._seen(admitted, pictures, captioner, settings, left_out=left_out, tell=tell)
            result = replace(rewritten(admitted.messages, seen, sources, settings), numbered=admitted.numbered)
            if looking is not None and captioner is not None and pictures:
                see = self._see(admitted, captioner, settings)
                kept = KeptImages(admitted, left_out, see, sources, result.vision, settings.look_form)
                looking.keep(kept, held.pop_all())
            return result

    def _see(self, admitted: AdmittedImages, captioner: Captioner, settings: ProxySettings) -> See:
        async def see(picture: Picture, is_read: bool, tell: Tell) -> SeenPicture:
            asked = settings if is_read else replace(settings, reading=None)
            (seen,) = await self._seen(admitted, [picture], captioner, asked, tell=tell)
            return seen

        return see

    async def _seen(
        self,
        admitted: AdmittedImages,
        pictures: Sequence[Picture],
        captioner: Captioner | None,
        settings: ProxySettings,
        *,
        left_out: frozenset[int] = frozenset(),
        tell: Tell = lambda _: None,
    ) -> list[SeenPicture]:
        """Describe and read the pictures side by side, but for those left out. Of two errors the captioner's is raised.

        A page or a frame that is left out is read all the same: what matters in a document is its words.
        """
        shown = [picture for at, picture in enumerate(pictures) if at not in left_out]
        to_read = {at: picture for at, picture in enumerate(pictures) if at not in left_out or picture.is_drawn}
        reading = asyncio.create_task(
            self._reading.of(tuple(to_read.values()), settings.limits, settings.reading), name="read the text in images"
        )
        try:
            if captioner is None:
                await admitted.decode([each for each in shown if not each.is_drawn])  # broken ones: the client's error
                answers = iter([_NO_CAPTIONER] * len(shown))
            else:
                answers = iter(await self._captioning.answers(shown, admitted, captioner, settings, tell))
            texts = dict(zip(to_read, await reading, strict=True))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        return [
            SeenPicture(picture, None if at in left_out else next(answers), texts.get(at, ReadPicture()))
            for at, picture in enumerate(pictures)
        ]

    async def describe(
        self, parts: Sequence[ImagePart], captioner: Captioner, settings: ProxySettings
    ) -> tuple[CaptionedImage, ...]:
        """Caption images without a chat: one result for each image, in order. A failed one holds the reason.

        Raises:
            InvalidRequest: more captions would have to be made than `settings.limits.max_images`.
            ImageInvalid, ImageSourceRefused: an image cannot be taken.
            ServerBusy: the captioner, or the intake of images, has too many requests already.
        """
        async with self._intake.admitted([Message(Role.USER, tuple(parts))], settings) as admitted:
            await self._captioning.check_all(admitted.pictures, captioner, settings)
            seen = await self._seen(admitted, admitted.pictures, captioner, settings)
            sources = _sources(captioner, settings)
            return tuple(
                captioned_image(each.picture, each.answer, each.reading, sources)
                for each in seen
                if each.answer is not None
            )

    async def read(self, parts: Sequence[ImagePart], settings: ProxySettings) -> tuple[CaptionedImage, ...]:
        """Read the text in images without describing them: one result for each, in order, or the reason.

        Raises:
            InvalidRequest: there is no reader, or there are more images than `settings.limits.max_images`.
            ImageInvalid, ImageSourceRefused: an image cannot be taken.
            ServerBusy: the intake of images has too many requests already, or an image's turn did not come in time.
        """
        if settings.reading is None:
            raise InvalidRequest(
                "Nothing reads the text in images here: no reader is installed, or `vision_proxy.reader` is `none`. "
                "`pip install 'mlx-periscope[ocr]'` has one; models.yaml can also name a model that reads.",
                param="images",
            )
        if len(parts) > settings.limits.max_images:
            raise InvalidRequest(
                f"`images` holds {len(parts)} images; at most {settings.limits.max_images} are read at once "
                "(`max_images`). Send them in several requests.",
                param="images",
            )
        async with self._intake.admitted([Message(Role.USER, tuple(parts))], settings) as admitted:
            read = await self._reading.of(admitted.pictures, settings.limits, settings.reading)
            return tuple(map(read_image, admitted.pictures, read))


def _sources(captioner: Captioner | None, settings: ProxySettings) -> Sources:
    reader = "" if settings.reading is None else settings.reading.reader.name
    return Sources("" if captioner is None else captioner.id.name, reader)
