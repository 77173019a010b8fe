"""The pool's clock in production: that of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from periscope.pool.contracts import TimerHandle


class LoopTimers:
    """Timers over the running event loop; see `Timers` for what the methods promise."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def call_at(self, when: float, call: Callable[[], None]) -> TimerHandle:
        return asyncio.get_running_loop().call_at(when, call)
