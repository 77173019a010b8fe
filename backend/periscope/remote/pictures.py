"""PictureFetcher gets pictures from the web, and lets nobody reach through it what only this machine can reach.

Every hop is guarded anew: a name is resolved once, all its addresses are checked, and the connection goes to one of
these and not to the name, so that a name which resolves differently a moment later gains nothing. Host header, SNI and
certificate stay the name's. Event loop, but for the resolver, which blocks in threads of its own.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

import httpx

from periscope.errors import ImageInvalid, ImageNotFetched, ImageSourceRefused
from periscope.remote.addresses import Reach, reach_of
from periscope.remote.picture_url import PictureURL, allowed_host, parse_picture_url

#: The addresses of a host.
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
#: Called with the first bytes; raises if they begin no picture.
CheckHead: TypeAlias = Callable[[bytes], object]

MAX_REDIRECTS: Final = 4
#: A body that comes slower than this is cut off, once it had `_GRACE_S`.
MIN_BYTES_PER_S: Final = 4096
_GRACE_S: Final = 5.0
#: Of a host with several addresses, as many are tried in order.
_MAX_TRIES: Final = 3
_HEAD_BYTES: Final = 1024
_HEADERS: Final = {"accept": "image/*", "accept-encoding": "identity", "user-agent": "Periscope"}
_SEND = "Send the image as a data: URL."


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """What the fetcher may do.

    Attributes:
        allow_hosts: `host` or `host:port`; these may be private, use that port, and be redirected to over plain http.
        timeout_s: for one picture, from the first name that is resolved to its last byte.
        max_concurrent: pictures fetched at once; more wait.
    """

    allow_hosts: tuple[str, ...] = ()
    timeout_s: float = 20.0
    max_concurrent: int = 4


class PictureFetcher:
    """Owns the threads of its resolver and the turns of those that wait. A connection lives for one hop only.

    Args:
        resolve: a host's addresses, raising `OSError` if it has none; None = the system's resolver.
        trust: whose certificates are taken; None = the usual authorities.
    """

    def __init__(
        self, settings: FetchSettings, *, resolve: Resolve | None = None, trust: ssl.SSLContext | None = None
    ) -> None:
        self._settings = settings
        self._turns = asyncio.Semaphore(settings.max_concurrent)
        self._allowed = frozenset(map(allowed_host, settings.allow_hosts))
        self._threads = ThreadPoolExecutor(settings.max_concurrent, thread_name_prefix="periscope-resolve")
        self._resolve = resolve or self._resolved_by_system
        self._given_trust = trust

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        """Reading the authorities takes a while, so it is done once, for the first picture."""
        return self._given_trust or httpx.create_ssl_context(trust_env=False)

    def close(self) -> None:
        """Idempotent: take no further names; those under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def fetch(self, url: str, *, max_bytes: int, check_head: CheckHead, param: str) -> bytes:
        """The bytes at an http(s) address.

        Raises:
            ImageSourceRefused: the address, or one that it redirects to, may not be fetched.
            ImageNotFetched: nobody answers, or with something else than a picture in time.
            ImageInvalid: it is too large; or what `check_head` raised.
        """
        hop = parse_picture_url(url, param)
        async with self._turns:
            pace = _Pace(self._settings.timeout_s, asyncio.get_running_loop().time)
            try:
                async with asyncio.timeout_at(pace.end) as cut_off:
                    pace.cut_off = cut_off
                    return await self._follow(hop, _Body(max_bytes, check_head, param, pace))
            except TimeoutError:
                raise ImageNotFetched(
                    f"The image in `{param}` did not come from {hop.host} within {self._settings.timeout_s:g} s "
                    f"(`server.remote_images.timeout_s`), or came slower than {MIN_BYTES_PER_S} bytes a second. "
                    f"{_SEND}",
                    param=param,
                ) from None

    async def _follow(self, hop: PictureURL, body: _Body) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            async with self._answer(hop, body.param) as response:
                if not response.has_redirect_location:
                    _refuse_failure(response, hop, body.param)
                    return await body.read(response, hop)
                following = hop.joined(response.headers["location"], body.param)
            if hop.scheme == "https" and following.scheme == "http" and not self._is_allowed(following):
                raise ImageSourceRefused(
                    f"The image in `{body.param}`: {hop.host} redirects from https: to http:, which is not followed "
                    f"unless `server.remote_images.allow_hosts` names {following.host}. {_SEND}",
                    param=body.param,
                )
            hop = following
        raise ImageNotFetched(
            f"The image in `{body.param}` is redirected more than {MAX_REDIRECTS} times, last to {hop.host}. "
            "Send the address that it ends at, or the image as a data: URL.",
            param=body.param,
        )

    @asynccontextmanager
    async def _answer(self, hop: PictureURL, param: str) -> AsyncIterator[httpx.Response]:
        """What the host answers, its body unread; the connection goes to an address that was checked."""
        addresses = await self._checked_addresses(hop, param)
        # No client around it: that would read redirects by its own rules, and fail at some before we see them.
        async with (
            httpx.AsyncHTTPTransport(verify=self._trust, trust_env=False) as transport,
            aclosing(await self._first_answer(transport, hop, addresses, param)) as response,
        ):
            yield response

    async def _first_answer(
        self, transport: httpx.AsyncHTTPTransport, hop: PictureURL, addresses: Sequence[str], param: str
    ) -> httpx.Response:
        headers = _HEADERS | {"host": hop.authority}
        extensions = {} if hop.is_address else {"sni_hostname": hop.host}
        for address in addresses[:_MAX_TRIES]:
            request = httpx.Request("GET", hop.at(address), headers=headers, extensions=extensions)
            try:
                return await transport.handle_async_request(request)
            except httpx.ConnectError:
                continue
            except httpx.HTTPError as error:
                raise _broken(hop, param) from error
        raise ImageNotFetched(
            f"The image in `{param}` could not be fetched: no connection to {hop.host} on port {hop.port} could be "
            f"made. Check the address, or send the image as a data: URL.",
            param=param,
        )

    async def _resolved(self, hop: PictureURL, param: str) -> Sequence[str]:
        try:
            addresses = await self._resolve(hop.host, hop.port)
        except (OSError, UnicodeError):
            addresses = []
        if not addresses:
            raise ImageNotFetched(
                f"The image in `{param}` could not be fetched: the name {hop.host} has no address. "
                "Check its spelling, or send the image as a data: URL.",
                param=param,
            )
        return addresses

    async def _checked_addresses(self, hop: PictureURL, param: str) -> Sequence[str]:
        """All addresses of the host; one that may not be reached bars them all.

        Raises:
            ImageSourceRefused: in the same words for whatever is guarded, so that they tell nothing of networks here.
        """
        is_allowed = self._is_allowed(hop)
        if not is_allowed and not hop.has_usual_port:
            raise _guarded(hop, param)
        addresses = [hop.host] if hop.is_address else await self._resolved(hop, param)
        reachable = {Reach.PUBLIC, Reach.PRIVATE} if is_allowed else {Reach.PUBLIC}
        if not all(reach_of(address) in reachable for address in addresses):
            raise _guarded(hop, param)
        return addresses

    def _is_allowed(self, hop: PictureURL) -> bool:
        return (hop.host, hop.port) in self._allowed or (hop.has_usual_port and (hop.host, None) in self._allowed)

    async def _resolved_by_system(self, host: str, port: int) -> Sequence[str]:
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, _addresses, host, port)
        except RuntimeError as error:  # the threads are closed
            raise OSError("the server is stopping") from error
        return list(dict.fromkeys(found))


@dataclass(slots=True)
class _Pace:
    """Owns the moment at which a picture is given up: its time is over, or its bytes come too slowly."""

    timeout_s: float
    clock: Callable[[], float]
    cut_off: asyncio.Timeout | None = None
    end: float = 0.0
    _begun: float = 0.0

    def __post_init__(self) -> None:
        self.end = self.clock() + self.timeout_s

    def begin(self) -> None:
        """Start the clock of the body."""
        self._begun = self.clock()
        self.arrived(0)

    def arrived(self, num_bytes: int) -> None:
        """So much of the body is here."""
        if self.cut_off is not None:
            self.cut_off.reschedule(min(self.end, self._begun + _GRACE_S + num_bytes / MIN_BYTES_PER_S))


@dataclass(frozen=True, slots=True)
class _Body:
    """How a body is read, and what it may be."""

    max_bytes: int
    check_head: CheckHead
    param: str
    pace: _Pace

    async def read(self, response: httpx.Response, hop: PictureURL) -> bytes:
        self._check_headers(response, hop)
        data, is_checked = bytearray(), False
        self.pace.begin()
        try:
            async for chunk in response.aiter_raw():
                data += chunk
                self._refuse_over(len(data), hop)
                self.pace.arrived(len(data))
                if not is_checked and len(data) >= _HEAD_BYTES:
                    is_checked = True
                    self.check_head(bytes(data[:_HEAD_BYTES]))
        except httpx.HTTPError as error:
            raise _broken(hop, self.param) from error
        if not is_checked:
            self.check_head(bytes(data))
        return bytes(data)

    def _check_headers(self, response: httpx.Response, hop: PictureURL) -> None:
        coding = response.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("", "identity"):
            raise ImageNotFetched(
                f"The image in `{self.param}` comes compressed from {hop.host} although that was not asked for; "
                f"compressed answers are not read, because their size cannot be bounded. {_SEND}",
                param=self.param,
            )
        announced = response.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit():
            self._refuse_over(int(announced[:18]), hop)

    def _refuse_over(self, num_bytes: int, hop: PictureURL) -> None:
        if num_bytes > self.max_bytes:
            raise ImageInvalid(
                f"The image in `{self.param}`, from {hop.host}, has more than {self.max_bytes:,} bytes "
                "(`max_image_bytes`). Send it smaller or more compressed.",
                param=self.param,
            )


def _addresses(host: str, port: int) -> Iterable[str]:
    """Blocks. Addresses keep their scope, so that the guard sees it."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _refuse_failure(response: httpx.Response, hop: PictureURL, param: str) -> None:
    if response.status_code != httpx.codes.OK:
        raise ImageNotFetched(
            f"The image in `{param}` could not be fetched: {hop.host} answered {response.status_code}. "
            "Check the address, or send the image as a data: URL.",
            param=param,
        )


def _guarded(hop: PictureURL, param: str) -> ImageSourceRefused:
    return ImageSourceRefused(
        f"The image in `{param}` is not fetched from {hop.host} on port {hop.port}: only public hosts on ports 80 "
        "and 443 are, and those that `server.remote_images.allow_hosts` names. Send the image as a data: URL.",
        param=param,
    )


def _broken(hop: PictureURL, param: str) -> ImageNotFetched:
    return ImageNotFetched(
        f"The image in `{param}` could not be fetched: the connection to {hop.host} broke, or what it sent is no HTTP. "
        f"{_SEND}",
        param=param,
    )
