"""RemoteImages has pictures fetched from the web, and remembers which one was found at an address. Event loop only."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from periscope.core import ImagePart
from periscope.vision.images.decode import ImageHeader
from periscope.vision.images.limits import ImageLimits

#: Four thousand pictures are many long conversations, and a megabyte or two.
_MAX_REMEMBERED: Final = 4096
#: Since an address was last used: a conversation that rests over night goes on in the morning.
_REMEMBERED_S: Final = 24 * 3600.0


class FetchImage(Protocol):
    """Gets what is at an http(s) address, within its own limits on hosts and time."""

    async def __call__(self, url: str, *, max_bytes: int, check_head: Callable[[bytes], object], param: str) -> bytes:
        """The file's bytes.

        Args:
            check_head: called with the first bytes; raises if they begin no image.

        Raises:
            ImageSourceRefused, ImageNotFetched, ImageInvalid: names `param`.
        """


def is_remote(part: ImagePart) -> bool:
    """Pure: whether the image is at an http(s) address."""
    return part.url.lstrip()[:8].lower().startswith(("http://", "https://"))


@dataclass(frozen=True, slots=True)
class _Found:
    header: ImageHeader
    used_at: float


class RemoteImages:
    """Owns what was found at the addresses used last, in memory.

    A conversation sends its pictures' addresses again in every turn. What an address held in the first turn is what it
    stands for in the later ones: its caption is found without fetching it, so that the prompt stays the same byte by
    byte, also when the picture has changed or is gone from the web.

    Args:
        max_per_request: images fetched for one request.
        clock: seconds.
    """

    def __init__(
        self, fetch: FetchImage, *, max_per_request: int = 16, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.fetch = fetch
        self.max_per_request = max_per_request
        self._clock = clock
        self._found: OrderedDict[tuple[str, ImageLimits], _Found] = OrderedDict()

    def remembered(self, url: str, limits: ImageLimits) -> ImageHeader | None:
        """What was found there, checked against these limits. Asking counts as use."""
        found = self._found.pop((url, limits), None)
        if found is None or self._clock() - found.used_at > _REMEMBERED_S:
            return None
        self.remember(url, limits, found.header)
        return found.header

    def remember(self, url: str, limits: ImageLimits, header: ImageHeader) -> None:
        """This is what the address stands for from now on."""
        self._found[url, limits] = _Found(header, self._clock())
        self._found.move_to_end((url, limits))
        if len(self._found) > _MAX_REMEMBERED:
            self._found.popitem(last=False)
