"""Fetches the images of a request that are given by http(s) URLs, each URL once. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import TypeVar

from periscope.core import ImagePart
from periscope.errors import ImageNotFetched, InvalidRequest
from periscope.vision.images.decode import ImageHeader, read_header
from periscope.vision.images.formats import format_of
from periscope.vision.images.in_flight import Admission
from periscope.vision.images.limits import ImageLimits
from periscope.vision.images.remote import RemoteImages
from periscope.vision.threads import Threads

T = TypeVar("T")


class Fetching:
    """Owns the files that were fetched for one request. Their bytes are added to what the request holds."""

    def __init__(self, remote: RemoteImages, run: Threads, admission: Admission, limits: ImageLimits) -> None:
        self._remote = remote
        self._run = run
        self._admission = admission
        self._limits = limits
        self._files: dict[str, tuple[bytes, ImageHeader]] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def header(self, part: ImagePart) -> ImageHeader:
        """The header that is remembered for the URL, or else that of the image that is there now.

        Raises:
            ImageNotFetched, ImageSourceRefused, ImageInvalid: no image could be fetched from the URL.
        """
        header = self._remote.remembered(part.url.strip(), self._limits)
        if header is None:
            _, header = await self._file(part)
        return header

    async def read(self, part: ImagePart, header: ImageHeader) -> bytes:
        """The bytes of the image with this header, fetched if the header is remembered from an earlier request.

        Raises:
            ImageNotFetched: the image has changed since then. It raises what `header` raises, too.
        """
        data, now = await self._file(part)
        if now.sha256 != header.sha256:
            raise ImageNotFetched(
                f"The image at the address in `{part.param}` is another one than in an earlier turn, and that one has "
                "no description yet. Send the request again to go on with the new one.",
                param=part.param,
            )
        return data

    async def _file(self, part: ImagePart) -> tuple[bytes, ImageHeader]:
        url, param, limits = part.url.strip(), part.param, self._limits
        async with self._turns.setdefault(url, asyncio.Lock()):
            if url not in self._files:
                check_head = partial(format_of, param=param)
                data = await self._remote.fetch(url, max_bytes=limits.max_bytes, check_head=check_head, param=param)
                self._admission.add(len(data))
                (header,) = await self._run.all([partial(read_header, data, limits, param=param)])
                self._remote.remember(url, limits, header)
                self._files[url] = data, header
            return self._files[url]


def num_to_fetch(parts: Sequence[ImagePart], remote: RemoteImages, limits: ImageLimits) -> int:
    """How many URLs have to be fetched.

    Raises:
        InvalidRequest: there are too many; names the first one beyond the limit.
    """
    unknown: dict[str, str] = {}
    for part in parts:
        url = part.url.strip()
        if url not in unknown and remote.remembered(url, limits) is None:
            unknown[url] = part.param
    if len(unknown) > remote.max_per_request:
        raise InvalidRequest(
            f"{len(unknown)} images would have to be fetched for this request; at most {remote.max_per_request} are "
            "(`server.remote_images.max_per_request`). Send the others as data: URLs.",
            param=list(unknown.values())[remote.max_per_request],
        )
    return len(unknown)


async def in_order(calls: Sequence[Awaitable[T]]) -> list[T]:
    """All results, computed side by side. The first call that fails ends the others, and its error is raised."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return [await task for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
