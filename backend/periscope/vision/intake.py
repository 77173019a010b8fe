"""ImageIntake reads and checks the images of a request; pixels are decoded only for captions that have to be made.

Its methods run on the event loop; reading and decoding block, so they run in the executor it is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from periscope.core import Image, ImagePart, Message
from periscope.errors import ServerStopping
from periscope.vision.images.decode import ImageHeader, decode, read_header
from periscope.vision.images.formats import format_of
from periscope.vision.images.in_flight import Admission, BytesInFlight
from periscope.vision.images.limits import ImageLimits
from periscope.vision.images.source import fetch
from periscope.vision.prompts import caption_prompt
from periscope.vision.settings import ProxySettings

T = TypeVar("T")

_STOPPING = "The server is stopping."


@dataclass(frozen=True, slots=True)
class ImagePlace:
    """One image part, with what its place in the conversation decides.

    Attributes:
        number: its position among all images of the conversation, from 1.
        part: as the client sent it.
        prompt: what the captioner is asked about it.
    """

    number: int
    part: ImagePart
    prompt: str


@dataclass(frozen=True, slots=True)
class Picture:
    """An image whose bytes have been read and whose header has been checked; its pixels are not decoded yet."""

    place: ImagePlace
    data: bytes
    header: ImageHeader

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, upright, of the image as the client sent it."""
        return self.header.width, self.header.height

    def decoded_bytes(self, limits: ImageLimits) -> int:
        """Memory that its pixels will take as 8-bit RGB, scaled down to `limits.max_side_px`."""
        width, height = self.size
        scale = min(1.0, limits.max_side_px / max(width, height))
        return round(3 * width * scale * height * scale)


class AdmittedImages:
    """Owns the pictures of one admitted request. Decoded pixels are added to the bytes that the request holds."""

    def __init__(self, pictures: Sequence[Picture], admission: Admission, run: _Executor, limits: ImageLimits) -> None:
        self.pictures = pictures
        self._admission = admission
        self._run = run
        self._limits = limits

    async def decode(self, pictures: Sequence[Picture]) -> list[Image]:
        """Decode these pictures of the request, in order, off the event loop.

        Raises:
            ImageInvalid: the pixels of a picture are broken or cut off.
            ServerStopping: the executor was shut down.
        """
        limits = self._limits
        self._admission.add(sum(picture.decoded_bytes(limits) for picture in pictures))
        return await self._run.all(
            partial(decode, picture.data, limits, sha256=picture.header.sha256, param=picture.place.part.param)
            for picture in pictures
        )


class ImageIntake:
    """Owns the executor that reads and decodes images, and the bound on the bytes that all requests hold.

    The images of a request are admitted together, before any of them is read.
    """

    def __init__(self, *, executor: Executor | None = None, in_flight: BytesInFlight | None = None) -> None:
        self._run = _Executor(executor)
        self._in_flight = in_flight or BytesInFlight()

    @asynccontextmanager
    async def admitted(self, places: Sequence[ImagePlace], limits: ImageLimits) -> AsyncIterator[AdmittedImages]:
        """Admit a request's images and read them; they count as held until the block is left.

        Raises:
            ImageInvalid, ImageSourceRefused: an image cannot be taken; of several errors, that of the first image.
            ServerBusy: too many bytes of images are in the server already.
            ServerStopping: the executor was shut down.
        """
        async with self._in_flight.admitted(_sent_bytes(places)) as admission:
            pictures = await self._run.all(partial(_read_picture, place, limits) for place in places)
            yield AdmittedImages(pictures, admission, self._run, limits)


class _Executor:
    """Runs the blocking calls of a request in parallel, in the threads of an executor that somebody else owns."""

    def __init__(self, executor: Executor | None) -> None:
        self._executor = executor

    async def all(self, calls: Iterable[Callable[[], T]]) -> list[T]:
        """Results of all calls, in order. Of several errors the first call's is raised, so that the answer is stable.

        Calls behind one that has failed are not begun: nobody would see their results.

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


class _BehindFailureError(Exception):
    """A call was not begun, because one before it failed; that one's error is told."""


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


def image_places(messages: Sequence[Message], settings: ProxySettings) -> Iterator[ImagePlace]:
    """Pure: all images of a conversation, in order, with their numbers and caption prompts."""
    number = 0
    for message in messages:
        prompt = caption_prompt(settings.prompt, message.text if settings.use_question else "")
        for part in message.images:
            number += 1
            yield ImagePlace(number, part, prompt)


def _sent_bytes(places: Sequence[ImagePlace]) -> int:
    """Memory that images take as base64 text and as decoded bytes, which exist at the same time."""
    return sum(len(place.part.url) for place in places) * 7 // 4


def _read_picture(place: ImagePlace, limits: ImageLimits) -> Picture:
    param = place.part.param
    data = fetch(place.part, limits, check_head=partial(format_of, param=param))
    return Picture(place, data, read_header(data, limits, param=param))
