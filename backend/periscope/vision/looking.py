"""Looking: a text model looks again at images of the request that it is answering. Event loop only.

A look goes the way of every picture: cache, captioner, reader. Only the instruction differs, and the picture may be a
part of one. So the same question about the same part costs nothing when it comes again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, TypeAlias

from periscope.captions.cache import Answer
from periscope.core import Tell, VisionUsage
from periscope.errors import CaptionFailed, ImageNotFetched, RequestError, ServerBusy, ServerStopping
from periscope.vision.blocks import SeenPicture, Sources, block_of, usage_of
from periscope.vision.intake import AdmittedImages, Picture
from periscope.vision.prompts import look_prompt
from periscope.vision.regions import Region, picture_region

#: Describes one picture and, if the flag is set, reads the text in it. Raises what `VisionProxy.rewrite` raises.
See: TypeAlias = Callable[[Picture, bool, Tell], Awaitable[SeenPicture]]


@dataclass(frozen=True, slots=True)
class Look:
    """What a text model wants to know about an image, or about a part of it.

    Attributes:
        image: the name of the image in its block, such as `image 2` or `document 1, page 3`.
        question: "" to have it described as it was the first time, which is of use with a region.
    """

    image: str
    question: str = ""
    region: Region | None = None


@dataclass(frozen=True, slots=True)
class KeptImages:
    """The images of a request after they were replaced by text, and how they are seen.

    Attributes:
        left_out: indices of those that were not described.
        usage: what the text in their place has taken.
        look_form: how the captioner is asked a question.
    """

    admitted: AdmittedImages
    left_out: frozenset[int]
    see: See
    sources: Sources
    usage: VisionUsage
    look_form: str


class Looking:
    """Owns the images that one request keeps while it is answered, until the block is left.

    It has none unless `VisionProxy.rewrite` hands them over, once for the request and again for results of tools. One
    look at a time.

    Attributes:
        usage: what the images and all looks at them have taken; None while there are no images.
    """

    def __init__(self) -> None:
        self.usage: VisionUsage | None = None
        self._held = AsyncExitStack()
        self._places: dict[str, tuple[KeptImages, int]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._places = {}
        await self._held.aclose()

    @property
    def images(self) -> tuple[str, ...]:
        """The names of the images, in order."""
        return tuple(self._places)

    def keep(self, images: KeptImages, held: AsyncExitStack) -> None:
        """Take the images over, and what is to be closed when they are let go."""
        images.admitted.keep_files_only()
        self._held.push_async_exit(held)
        self.usage = images.usage if self.usage is None else self.usage.plus(images.usage)
        self._places |= {picture.place.label.name: (images, at) for at, picture in enumerate(images.admitted.pictures)}

    async def look(self, look: Look, tell: Tell) -> str:
        """The block that the text model reads: what was seen, or that and why nothing was.

        Args:
            look: of one of `images`.

        Raises:
            ServerStopping: nothing new is taken.
        """
        kept, place = self._places[look.image]
        picture, is_read = _target(look, kept, place)
        try:
            seen = await kept.see(picture, is_read, tell)
        except ServerStopping:
            raise
        except (ServerBusy, RequestError) as error:
            seen = SeenPicture(picture, Answer(CaptionFailed(_reason_of(error)), is_made=False))
        finally:
            kept.admitted.keep_files_only()
        self.usage = (self.usage or VisionUsage()).with_look(usage_of([seen]))
        assert seen.answer is not None  # noqa: S101 - a look leaves nothing out
        return block_of(picture, seen.answer.result, seen.reading, kept.sources)


def _target(look: Look, kept: KeptImages, place: int) -> tuple[Picture, bool]:
    """The picture to describe, and whether to read it: the text of a whole picture stands in its block already."""
    whole = kept.admitted.pictures[place]
    picture = whole if look.region is None else picture_region(whole, look.region)
    if look.question:
        picture = replace(picture, place=replace(picture.place, prompt=look_prompt(look.question, kept.look_form)))
    return picture, look.region is not None or place in kept.left_out


def _reason_of(error: ServerBusy | RequestError) -> str:
    match error:
        case ServerBusy():
            return "too many other images are being described now"
        case ImageNotFetched():
            return "it could not be fetched again"
        case _:
            return "its file is broken"
