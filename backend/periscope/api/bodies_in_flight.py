"""BodiesInFlight: how many bytes of large request bodies are being read at once. Event loop only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from periscope.errors import ServerBusy

#: Smaller bodies are not counted: they take less memory than their connections may, and a client that sends text must
#: not wait for others that send images slowly.
SMALL_BODY_BYTES: Final = 1024 * 1024
#: About how long a large body takes to arrive and to be parsed on this machine.
_RETRY_AFTER_S: Final = 2


class BodiesInFlight:
    """Owns the count of bytes that all bodies that are being read take together.

    A body whose length is known takes its place before it is read, any other one as it grows. There is no queue:
    `Retry-After` serves a client that has not begun to send as well, and one in the middle would hold its bytes.

    Attributes:
        held_bytes: of all bodies that have a place; never more than `max_bytes`.
    """

    def __init__(self, max_bytes: int) -> None:
        self.held_bytes = 0
        self._max_bytes = max_bytes

    def __repr__(self) -> str:
        return f"<BodiesInFlight {self.held_bytes} of {self._max_bytes} bytes>"

    def place(self) -> BodyPlace:
        """A place for one body, before any of its bytes are received."""
        return BodyPlace(self)

    def add(self, num_bytes: int) -> None:
        """Add bytes to the count; a negative number subtracts.

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
    """One body's part of the count. The reader of the body owns it and gives it back."""

    _bodies: BodiesInFlight
    _num_bytes: int = 0

    def grow_to(self, num_bytes: int) -> None:
        """Count the body with at least this many bytes.

        Raises:
            ServerBusy: the bytes do not fit beside other bodies; the place is as large as before.
        """
        if num_bytes > max(self._num_bytes, SMALL_BODY_BYTES):
            self._bodies.add(num_bytes - self._num_bytes)
            self._num_bytes = num_bytes

    def give_back(self) -> None:
        """Give the whole place back. Idempotent."""
        self._bodies.add(-self._num_bytes)
        self._num_bytes = 0
