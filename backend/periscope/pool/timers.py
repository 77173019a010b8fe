"""The pool's clock. A protocol, so that tests turn it by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class TimerHandle(Protocol):
    """A call that has been set and can be taken back."""

    def cancel(self) -> None:
        """Idempotent."""
        ...


class Timers(Protocol):
    """Seconds of one clock that never goes back, and calls at its times. Event loop only."""

    def now(self) -> float:
        """Seconds since some beginning."""
        ...

    def call_at(self, when: float, call: Callable[[], None]) -> TimerHandle:
        """Call once when the clock has reached `when`."""
        ...


class LoopTimers:
    """The event loop's own clock."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def call_at(self, when: float, call: Callable[[], None]) -> TimerHandle:
        return asyncio.get_running_loop().call_at(when, call)
