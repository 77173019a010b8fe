"""BodiesInFlight: how many bytes of large request bodies are being read at once. Event loop only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from periscope.errors import ServerBusy

#: Smaller bodies are not counted: they take less memory than their connections may, and a client that sends text must
#: not wait for others that send pictures slowly.
SMALL_BODY_BYTES: Final = 1024 * 1024
#: About how long a large body takes to arrive and to be parsed on this machine.
_RETRY_AFTER_S: Final = 2


class BodiesInFlight:
    """Owns the count of bytes that bodies being read take together, over all requests.

    A body whose length is known takes its place before it is read, any other one as it grows. There is no queue: a
    client that waits to send is as well served by `Retry-After`, and one that is halfway would wait holding its bytes.

    Attributes:
        held_bytes: of all bodies that have a place; never more than `max_bytes`.
    """

    def __init__(self, max_bytes: int) -> None:
        self.held_bytes = 0
        self._max_bytes = max_bytes

    def __repr__(self) -> str:
        return f"<BodiesInFlight {self.held_bytes} of {self._max_bytes} bytes>"

    def place(self) -> BodyPlace:
        """A place for one body, of which nothing has been received yet."""
        return BodyPlace(self)

    def add(self, num_bytes: int) -> None:
        """Count so many bytes more, or fewer if negative.

        Raises:
            ServerBusy: they do not fit beside the others; nothing was taken.
        """
        if num_bytes > 0 and self.held_bytes + num_bytes > self._max_bytes:
            raise ServerBusy(
                "The server is reading large requests of other clients "
                f"(`server.limits.max_body_bytes_in_flight` is {self._max_bytes}). Try again soon.",
                retry_after_s=_RETRY_AFTER_S,
            )
        self.held_bytes += num_bytes


@dataclass(slots=True, eq=False)
class BodyPlace:
    """One body's part of the count. Owner: whoever reads the body, who also gives it back."""

    _bodies: BodiesInFlight
    _num_bytes: int = 0

    def grow_to(self, num_bytes: int) -> None:
        """The body takes so many bytes, now or later; a smaller number changes nothing.

        Raises:
            ServerBusy: that is too much beside the others; the place is as large as before.
        """
        if num_bytes > max(self._num_bytes, SMALL_BODY_BYTES):
            self._bodies.add(num_bytes - self._num_bytes)
            self._num_bytes = num_bytes

    def give_back(self) -> None:
        """Give the whole place back. Idempotent."""
        self._bodies.add(-self._num_bytes)
        self._num_bytes = 0
