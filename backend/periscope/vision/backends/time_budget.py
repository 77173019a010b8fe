"""TimeBudget counts the time of one request's captions in two accounts, work and wait. Event loop only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True)
class TimeBudget:
    """Owns the time that is left in both accounts.

    Attributes:
        work_s: seconds that the captioner may take for the request itself. After them it counts as broken.
        wait_s: seconds that the request may wait while the captioner serves others. After them it counts as busy.
    """

    work_s: float
    wait_s: float
    _work_spent_s: float = field(default=0.0, init=False)
    _wait_spent_s: float = field(default=0.0, init=False)

    async def spend(self, changed: asyncio.Event, *, is_work: bool) -> bool:
        """Wait for the event and charge the time to one account. False if the account is spent before that."""
        loop = asyncio.get_running_loop()
        left_s = self.work_s - self._work_spent_s if is_work else self.wait_s - self._wait_spent_s
        began_at = loop.time()
        try:
            async with asyncio.timeout(left_s):
                await changed.wait()
        except TimeoutError:
            return changed.is_set()
        finally:
            spent_s = loop.time() - began_at
            if is_work:
                self._work_spent_s += spent_s
            else:
                self._wait_spent_s += spent_s
        return True
