"""BytesInFlight bounds the bytes of images that all requests hold at the same time. Event loop only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from periscope.errors import ServerBusy

#: Seconds that the captions of one request typically take.
_RETRY_AFTER_S: Final = 5


@dataclass(slots=True, eq=False)
class Admission:
    """The bytes that one request holds. The amount may grow when its images are decoded; growing never waits."""

    num_bytes: int
    _in_flight: BytesInFlight

    def add(self, num_bytes: int) -> None:
        """Add to the held bytes. They may exceed the bound; later requests wait until there is room."""
        self.num_bytes += num_bytes
        self._in_flight.held_bytes += num_bytes

    def another(self, num_bytes: int) -> Admission:
        """An admission of its own for bytes that outlive this one. Does not wait, as `add` does not."""
        held = Admission(0, self._in_flight)
        held.add(num_bytes)
        return held

    def give_back(self, num_bytes: int) -> None:
        """Subtract from the held bytes, because they were not needed. Waiting requests may have room now."""
        self.num_bytes -= num_bytes
        self._in_flight.release(num_bytes)


@dataclass(slots=True, eq=False)
class _Waiter:
    num_bytes: int
    admitted: asyncio.Event = field(default_factory=asyncio.Event)


class BytesInFlight:
    """Owns the count of held bytes and the queue of requests that wait for room, in order of arrival.

    A request larger than the bound is admitted when nothing else is held, so that none waits for ever. As many bytes as
    may be held may wait. A request beyond that is refused at once, because its images take memory while it waits.

    Attributes:
        held_bytes: bytes of all admitted requests.
    """

    def __init__(self, max_bytes: int = 512 * 1024 * 1024, *, wait_timeout_s: float = 30.0) -> None:
        self.held_bytes = 0
        self._max_bytes = max_bytes
        self._wait_timeout_s = wait_timeout_s
        self._waiting: deque[_Waiter] = deque()

    def __repr__(self) -> str:
        return f"<BytesInFlight {self.held_bytes} of {self._max_bytes} bytes, waiting={len(self._waiting)}>"

    @asynccontextmanager
    async def admitted(self, num_bytes: int) -> AsyncIterator[Admission]:
        """Wait until there is room, and hold the bytes until the end of the block.

        Raises:
            ServerBusy: too many bytes wait already, or there was no room for `wait_timeout_s`.
        """
        await self._admit(num_bytes)
        admission = Admission(num_bytes, self)
        try:
            yield admission
        finally:
            self.release(admission.num_bytes)

    async def _admit(self, num_bytes: int) -> None:
        if not self._waiting and self._has_room(num_bytes):
            self.held_bytes += num_bytes
            return
        waiting_bytes = sum(waiter.num_bytes for waiter in self._waiting)
        if self._waiting and waiting_bytes + num_bytes > self._max_bytes:
            raise self._busy("too many wait already")
        waiter = _Waiter(num_bytes)
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(self._wait_timeout_s):
                await waiter.admitted.wait()
        except BaseException as error:
            self._abandon(waiter)
            if isinstance(error, TimeoutError):
                raise self._busy(f"for {self._wait_timeout_s:g} s no room came free") from None
            raise

    def _has_room(self, num_bytes: int) -> bool:
        return self.held_bytes == 0 or self.held_bytes + num_bytes <= self._max_bytes

    def _abandon(self, waiter: _Waiter) -> None:
        """A waiting request was cancelled or timed out. It may have been admitted in the same turn of the loop."""
        if waiter.admitted.is_set():
            self.release(waiter.num_bytes)
        else:
            self._waiting.remove(waiter)
            self._admit_waiting()  # a smaller request behind it may fit

    def release(self, num_bytes: int) -> None:
        """Release bytes of an `Admission`, which calls this."""
        self.held_bytes -= num_bytes
        self._admit_waiting()

    def _admit_waiting(self) -> None:
        while self._waiting and self._has_room(self._waiting[0].num_bytes):
            waiter = self._waiting.popleft()
            self.held_bytes += waiter.num_bytes
            waiter.admitted.set()

    def _busy(self, why: str) -> ServerBusy:
        return ServerBusy(
            f"The server is busy with the images of other requests: {why} "
            f"(`server.limits.max_image_bytes_in_flight` is {self._max_bytes}). Try again soon.",
            retry_after_s=_RETRY_AFTER_S,
        )
