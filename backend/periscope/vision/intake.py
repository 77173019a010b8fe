"""ImageIntake reads and checks the images and documents of a request. Pixels are decoded only where they are needed.

Its methods run on the event loop; reading and decoding block, so they run in the executor it is given.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from periscope.core import Image, ImagePart, Message
from periscope.vision.drawn import DrawnImage
from periscope.vision.fetching import Fetching, in_order, num_to_fetch
from periscope.vision.images.decode import ImageHeader, decode, read_header
from periscope.vision.images.formats import format_of
from periscope.vision.images.in_flight import Admission, BytesInFlight
from periscope.vision.images.limits import ImageLimits
from periscope.vision.images.remote import RemoteImages, is_remote
from periscope.vision.images.source import fetch
from periscope.vision.numbering import Numbered
from periscope.vision.prompts import Label, caption_prompt, image_label
from periscope.vision.settings import ProxySettings
from periscope.vision.threads import Threads

if TYPE_CHECKING:
    from periscope.vision.documents.opening import FileOpening

#: An image file's bytes, at hand or fetched again.
ReadBytes: TypeAlias = Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class ImagePlace:
    """One image part, with what its place in the conversation decides.

    Attributes:
        label: what its block is called: the number of an image counts all images of the conversation, from 1.
        part: as the client sent it, or a page or a frame of a file that it sent.
        prompt: what the captioner is asked about it.
    """

    label: Label
    part: ImagePart
    prompt: str


@dataclass(frozen=True, slots=True)
class Picture:
    """An image whose header has been checked; its pixels are not decoded yet.

    Attributes:
        read: the image file's bytes; none of a page or a frame, which is drawn from its file. They are at hand, unless
            the image was fetched from the web for an earlier request: then it is fetched again, and may raise what
            that raises.
    """

    place: ImagePlace
    header: ImageHeader
    read: ReadBytes = field(repr=False)

    @property
    def is_drawn(self) -> bool:
        """Whether it is a page of a document or a frame of a video."""
        return isinstance(self.place.part, DrawnImage)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, upright, of the image as the client sent it."""
        return self.header.width, self.header.height

    def decoded(self, data: bytes, limits: ImageLimits) -> Image:
        """Blocks: its pixels, scaled down to `limits.max_side_px`.

        Args:
            data: what `read` gave.

        Raises:
            ImageInvalid, FileInvalid: the pixels are broken or cut off; the page or frame cannot be drawn.
            ServerBusy: the turn of a page or a frame to be drawn did not come.
        """
        part, sha256 = self.place.part, self.header.sha256
        if isinstance(part, DrawnImage):
            return part.drawn(max_side_px=limits.max_side_px)
        return decode(data, limits, sha256=sha256, param=part.param)

    def decoded_bytes(self, limits: ImageLimits) -> int:
        """Memory that its pixels will take as 8-bit RGB, scaled down to `limits.max_side_px`."""
        width, height = self.size
        scale = min(1.0, limits.max_side_px / max(width, height))
        return round(3 * width * scale * height * scale)


class AdmittedImages:
    """Owns the pictures of one admitted request. Decoded pixels are added to the bytes that the request holds.

    Attributes:
        messages: without documents: text and images stand in their places. Empty after `keep_files_only`.
        pictures: one for each image in the messages, in order.
        numbered: the numbers that are taken with them.
    """

    def __init__(
        self,
        messages: Sequence[Message],
        pictures: Sequence[Picture],
        admission: Admission,
        run: Threads,
        limits: ImageLimits,
        *,
        num_text_bytes: int,
        numbered: Numbered,
    ) -> None:
        self.messages = messages
        self.pictures = pictures
        self.numbered = numbered
        self._admission = admission
        self._run = run
        self._limits = limits
        self._passing_bytes = num_text_bytes  # of those held, what `keep_files_only` gives back

    async def decode(self, pictures: Sequence[Picture]) -> list[Image]:
        """Decode these pictures of the request, in order, off the event loop.

        Raises:
            ImageInvalid, FileInvalid: the pixels of a picture are broken or cut off; a page or a frame cannot be drawn.
            ImageNotFetched, ImageSourceRefused: a picture had to be fetched again.
            ServerBusy: the turn of a page or a frame to be drawn did not come.
            ServerStopping: the executor was shut down.
        """
        limits = self._limits
        files = await in_order([picture.read() for picture in pictures])
        num_bytes = sum(picture.decoded_bytes(limits) for picture in pictures)
        self._passing_bytes += num_bytes
        self._admission.add(num_bytes)
        return await self._run.all(
            partial(picture.decoded, data, limits) for picture, data in zip(pictures, files, strict=True)
        )

    def keep_files_only(self) -> None:
        """Let go of the messages with their base64, and of decoded pixels; the pictures can be decoded again."""
        self.messages = ()
        for picture in self.pictures:
            if isinstance(picture.place.part, DrawnImage):
                picture.place.part.drop_pixels()
        self._admission.give_back(self._passing_bytes)
        self._passing_bytes = 0

    def hold(self, num_bytes: int) -> Admission:
        """An admission for pixels that outlive the files of this request. Whoever holds it gives it back."""
        return self._admission.another(num_bytes)


class ImageIntake:
    """Owns the threads that read and decode images, and the bound on the bytes that all requests hold.

    The images and documents of a request are admitted together, before any of them is read. Nobody knows how large an
    image of the web is before it is here, so the largest that is taken is held for it until then.

    Args:
        remote: fetches images of the web; None = they are refused.
        files: opens documents and videos; None = one of its own, made when the first of them comes.
    """

    def __init__(
        self,
        *,
        executor: Executor | None = None,
        in_flight: BytesInFlight | None = None,
        remote: RemoteImages | None = None,
        files: FileOpening | None = None,
    ) -> None:
        self._run = Threads(executor)
        self._in_flight = in_flight or BytesInFlight()
        self._remote = remote
        self._files = files

    @asynccontextmanager
    async def admitted(
        self, messages: Sequence[Message], settings: ProxySettings, before: Numbered = Numbered()
    ) -> AsyncIterator[AdmittedImages]:
        """Admit a request's images and documents and read them; they count as held until the block is left.

        Args:
            before: the numbers that earlier messages of the conversation have taken.

        Raises:
            DocumentInvalid, VideoInvalid: a document or a video cannot be taken.
            ImageInvalid, ImageSourceRefused: an image cannot be taken; of several errors, that of the first image.
                Images of the web are fetched when all others are good.
            ImageNotFetched: no image came from its address.
            InvalidRequest: more images would have to be fetched than one request may have.
            ServerBusy: too many bytes of images are in the server already, or too many documents.
            ServerStopping: the executor was shut down.
        """
        limits = settings.limits
        reserved = self._num_to_fetch(messages, limits) * limits.max_bytes
        num_text_bytes = _num_text_bytes(messages)
        async with self._in_flight.admitted(num_text_bytes * 7 // 4 + reserved) as admission:
            opened, numbered = await self._opened(messages, settings, before)
            places = list(image_places(opened, settings, before.images))
            pictures = await self._pictures(places, admission, limits)
            numbered = replace(numbered, images=before.images + sum(not each.is_drawn for each in pictures))
            admission.give_back(reserved)
            admitted = AdmittedImages(
                opened, pictures, admission, self._run, limits, num_text_bytes=num_text_bytes, numbered=numbered
            )
            del messages, opened, places  # they hold the base64, and the answer may come before the block is left
            yield admitted

    async def _opened(
        self, messages: Sequence[Message], settings: ProxySettings, before: Numbered
    ) -> tuple[tuple[Message, ...], Numbered]:
        """As `FileOpening.opened`, which few servers ever need."""
        if not any(message.files for message in messages):
            return tuple(messages), before
        if self._files is None:
            from periscope.vision.documents.opening import FileOpening

            self._files = FileOpening()
        return await self._files.opened(messages, settings, self._run, before)

    def _num_to_fetch(self, messages: Sequence[Message], limits: ImageLimits) -> int:
        if self._remote is None:
            return 0
        parts = [part for message in messages for part in message.images if is_remote(part)]
        return num_to_fetch(parts, self._remote, limits)

    async def _pictures(self, places: Sequence[ImagePlace], admission: Admission, limits: ImageLimits) -> list[Picture]:
        """One for each place, in order; those of the web come last, when all others are good."""
        remote = self._remote
        is_web = [remote is not None and is_remote(place.part) for place in places]
        sent = iter(
            await self._run.all(
                partial(_read_picture, place, limits) for place, web in zip(places, is_web, strict=True) if not web
            )
        )
        if remote is None or not any(is_web):
            return list(sent)
        fetching = Fetching(remote, self._run, admission, limits)
        on_web = [place for place, web in zip(places, is_web, strict=True) if web]
        headers = await in_order([fetching.header(place.part) for place in on_web])
        fetched = (
            Picture(place, header, partial(fetching.read, place.part, header))
            for place, header in zip(on_web, headers, strict=True)
        )
        return [next(fetched if web else sent) for web in is_web]


def image_places(messages: Sequence[Message], settings: ProxySettings, num_before: int = 0) -> Iterator[ImagePlace]:
    """Pure: all images of the messages, in order, with their labels and caption prompts.

    Args:
        num_before: images of the conversation before them.
    """
    number = num_before
    for message in messages:
        question = message.text if settings.use_question else ""
        prompt = caption_prompt(settings.prompt, question, settings.question_form)
        for part in message.images:
            if isinstance(part, DrawnImage):
                yield ImagePlace(part.label, part, prompt)
            else:
                number += 1
                yield ImagePlace(image_label(number), part, prompt)


def _num_text_bytes(messages: Sequence[Message]) -> int:
    """The bytes of images and documents in base64. Their decoded bytes, three quarters of it, exist beside them."""
    images = sum(len(part.url) for message in messages for part in message.images)
    return images + sum(len(part.url or part.text or "") for message in messages for part in message.files)


def _read_picture(place: ImagePlace, limits: ImageLimits) -> Picture:
    """Blocks. A page or a frame needs no reading: what identifies it is known before it is drawn."""
    if isinstance(place.part, DrawnImage):
        return Picture(place, place.part.header, partial(_at_hand, b""))
    param = place.part.param
    data = fetch(place.part, limits, check_head=partial(format_of, param=param))
    place = replace(place, part=ImagePart("", param))  # the base64 is of no further use
    return Picture(place, read_header(data, limits, param=param), partial(_at_hand, data))


async def _at_hand(data: bytes) -> bytes:
    return data
