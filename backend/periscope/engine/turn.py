"""The turn at the accelerator: one bounded piece of work at a time, first come, first served."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class DeviceTurn:
    """Owned by the process's composition root and shared by all workers.

    A worker takes the turn around one decode step, one prefill chunk, one image or one slice of a load. A plain
    `threading.Lock` is not fair: a busy worker would take it back at once and starve the others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_taken = False
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Block until it is this thread's turn; give it on at exit."""
        self._take()
        try:
            yield
        finally:
            self._give_on()

    def _take(self) -> None:
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return
            mine = threading.Event()
            self._waiting.append(mine)
        mine.wait()

    def _give_on(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._is_taken = False
