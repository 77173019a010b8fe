"""OutputRate: how fast answers are written now, over all requests. Event loop only."""

from __future__ import annotations

from collections import deque
from typing import Final

#: Long enough to be steady, short enough to follow.
WINDOW_S: Final = 5.0


class OutputRate:
    """Owns how many pieces of answers came in each of the last seconds. A piece is one token, nearly always."""

    def __init__(self) -> None:
        self._seconds: deque[list[int]] = deque()  # [second, pieces in it], the newest last

    def note(self, now: float) -> None:
        """One more piece. `now`: in seconds, never going back."""
        if self._seconds and self._seconds[-1][0] == int(now):
            self._seconds[-1][1] += 1
        else:
            self._forget(now)
            self._seconds.append([int(now), 1])

    def per_s(self, now: float) -> float:
        """Pieces per second over the window, or over the time since the first of them."""
        self._forget(now)
        if not self._seconds:
            return 0.0
        return sum(pieces for _, pieces in self._seconds) / max(now - self._seconds[0][0], 1.0)

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] < now - WINDOW_S:
            self._seconds.popleft()
