"""RemoteImages fetches images from the web, and remembers which image a URL stood for. Event loop only."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from periscope.core import ImagePart
from periscope.vision.images.decode import ImageHeader
from periscope.vision.images.limits import ImageLimits

#: Four thousand images are many long conversations, and take a megabyte or two.
_MAX_REMEMBERED: Final = 4096
#: Seconds since a URL was last used: a conversation can continue on the next morning.
_REMEMBERED_S: Final = 24 * 3600.0


class FetchImage(Protocol):
    """Fetches an http(s) URL, within its own limits on hosts and time."""

    async def __call__(self, url: str, *, max_bytes: int, check_head: Callable[[bytes], object], param: str) -> bytes:
        """Fetch the bytes of the file at an address.

        Args:
            check_head: called with the first bytes; raises if they are not the beginning of an image.

        Raises:
            ImageSourceRefused, ImageNotFetched, ImageInvalid: names `param`.
        """


def is_remote(part: ImagePart) -> bool:
    """Pure: whether the image is given by an http(s) URL, well formed or not."""
    return part.url.lstrip()[:6].lower().startswith(("http:", "https:"))


@dataclass(frozen=True, slots=True)
class _Found:
    header: ImageHeader
    used_at: float


class RemoteImages:
    """Owns the headers of the images at recently used URLs, in memory.

    A conversation sends the URLs of its images again in every turn. In later turns a URL stands for the image that it
    held in the first one: the caption is found without fetching, so that the prompt stays the same byte by byte, even
    if the image has changed or is no longer there.

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
        """The header that is remembered for the URL, checked against the limits. Counts as use."""
        found = self._found.pop((url, limits), None)
        if found is None or self._clock() - found.used_at > _REMEMBERED_S:
            return None
        self.remember(url, limits, found.header)
        return found.header

    def remember(self, url: str, limits: ImageLimits, header: ImageHeader) -> None:
        """Remember the header for the URL."""
        self._found[url, limits] = _Found(header, self._clock())
        self._found.move_to_end((url, limits))
        if len(self._found) > _MAX_REMEMBERED:
            self._found.popitem(last=False)
