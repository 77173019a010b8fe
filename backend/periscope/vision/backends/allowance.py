"""Allowance: the time that the captions of one request may take, in two accounts. Event loop only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True)
class Allowance:
    """Owns what is left of both accounts.

    Attributes:
        own_s: seconds that the captioner may take for the request itself. When they are over, it is broken or too slow.
        wait_s: seconds that the request may wait while the captioner serves others. When they are over, it is busy.
    """

    own_s: float
    wait_s: float
    _own_spent_s: float = field(default=0.0, init=False)
    _wait_spent_s: float = field(default=0.0, init=False)

    async def spend(self, changed: asyncio.Event, *, is_own_time: bool) -> bool:
        """Wait for the event on one of the accounts; False when that account is empty before."""
        loop = asyncio.get_running_loop()
        left_s = self.own_s - self._own_spent_s if is_own_time else self.wait_s - self._wait_spent_s
        began_at = loop.time()
        try:
            async with asyncio.timeout(left_s):
                await changed.wait()
        except TimeoutError:
            return changed.is_set()
        finally:
            spent_s = loop.time() - began_at
            if is_own_time:
                self._own_spent_s += spent_s
            else:
                self._wait_spent_s += spent_s
        return True
