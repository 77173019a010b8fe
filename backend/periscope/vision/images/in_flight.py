"""BytesInFlight: how many bytes of pictures are read, decoded and described at once. Event loop only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from periscope.errors import ServerBusy

#: About how long the captions of one request take, when nothing better is known.
_RETRY_AFTER_S: Final = 5


@dataclass(slots=True, eq=False)
class Admission:
    """One request's share; it may grow once its pictures are known, which never waits."""

    num_bytes: int
    _in_flight: BytesInFlight

    def add(self, num_bytes: int) -> None:
        """More than was asked for at first; whoever comes later waits for it."""
        self.num_bytes += num_bytes
        self._in_flight.held_bytes += num_bytes


@dataclass(slots=True, eq=False)
class _Waiter:
    num_bytes: int
    admitted: asyncio.Event = field(default_factory=asyncio.Event)


class BytesInFlight:
    """Owns the count of picture bytes that requests hold, and the queue of those that wait for room, first come first.

    A request that is larger than the bound is let in alone, so that none waits for ever. As many bytes as may be held
    may wait; a request beyond that is refused at once, because its pictures take memory while it waits, too.

    Attributes:
        held_bytes: of the requests that were let in.
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
        """Room for so many bytes until the block is left; waits for it.

        Raises:
            ServerBusy: too much waits already, or the wait was too long.
        """
        await self._admit(num_bytes)
        admission = Admission(num_bytes, self)
        try:
            yield admission
        finally:
            self._release(admission.num_bytes)

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
        """It gave up; it may have been let in at the very same moment."""
        if waiter.admitted.is_set():
            self._release(waiter.num_bytes)
        else:
            self._waiting.remove(waiter)
            self._admit_waiting()  # who was behind it may be smaller

    def _release(self, num_bytes: int) -> None:
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
