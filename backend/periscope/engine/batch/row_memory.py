"""How much memory the rows of one model may take, and what has to go when they grow. Worker thread only.

Rows are admitted by what they take once they have grown a little further (`Row.reach`), so that a row that has just
been admitted is not the next one to go. What they really take is compared with the budget whenever an array grows.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from periscope.errors import MemoryExceeded

if TYPE_CHECKING:
    from periscope.engine.batch.prompt_cache import LayerCaches, PromptCache
    from periscope.engine.device.memory import KVBudget

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Holding:
    """Memory that a request holds. `row_id` grows with the order of arrival."""

    row_id: int
    num_bytes: int


def newest_to_preempt(holdings: Sequence[Holding], room_bytes: int) -> list[int]:
    """Pure: ids of the newest requests that must give up their memory so that the others fit into `room_bytes`.

    The oldest request is never among them, whatever it holds: so each step of it makes progress, and every request is
    the oldest one day.
    """
    by_age = sorted(holdings, key=lambda holding: holding.row_id)
    total_bytes = sum(holding.num_bytes for holding in by_age)
    preempted = []
    for holding in reversed(by_age[1:]):
        if total_bytes <= room_bytes:
            break
        preempted.append(holding.row_id)
        total_bytes -= holding.num_bytes
    return preempted


class RowMemory:
    """Owns the bound of the prompt cache: kept states may take what live rows leave of the budget, and no more.

    Args:
        checks_requests: refuse what cannot fit, before it is read.
    """

    def __init__(self, budget: KVBudget, prompt_cache: PromptCache, *, checks_requests: bool) -> None:
        self._budget = budget
        self._prompt_cache = prompt_cache
        self._checks_requests = checks_requests

    @property
    def most_tokens(self) -> float:
        """Tokens that a row may have when it is alone: what the budget is at most, divided by what a token takes."""
        return self._budget.most_tokens if self._checks_requests else math.inf

    def check_fits(self, num_prompt_tokens: int, rows_bytes: int) -> None:
        """Whether a prompt could be held by itself, with everything else of this model gone.

        Raises:
            MemoryExceeded: it could not.
        """
        if not self._checks_requests:
            return
        needed = self._budget.footprint.nbytes(num_prompt_tokens + 1)
        available = self.room_bytes(rows_bytes)
        if needed > available:
            raise MemoryExceeded(num_prompt_tokens=num_prompt_tokens, needed_bytes=needed, available_bytes=available)

    def room_bytes(self, rows_bytes: int) -> int:
        """What rows and kept states may take together now, of which the rows hold `rows_bytes`."""
        return self._budget.total_bytes(rows_bytes + self._prompt_cache.nbytes)

    def make_room(self, wanted_bytes: int, rows_bytes: int) -> bool:
        """Let kept states go until rows may take `wanted_bytes`; whether they may then.

        Args:
            rows_bytes: what the rows hold now.
        """
        room_bytes = self.room_bytes(rows_bytes)
        if wanted_bytes + self._prompt_cache.nbytes > room_bytes:
            self._prompt_cache.trim_to(max(room_bytes - wanted_bytes, 0))
        return wanted_bytes <= room_bytes

    def keep(self, tokens: list[int], caches: LayerCaches, *, rows_bytes: int, freed_bytes: int = 0) -> None:
        """Hand a state to the prompt cache, if there is room for it. Never raises: a state is only kept for speed.

        Args:
            rows_bytes: what the rows hold now, the one whose state this is included.
            freed_bytes: what of it will be free when that row is gone.
        """
        try:
            held_bytes = rows_bytes + self._prompt_cache.nbytes
            left_bytes = max(self._budget.total_bytes(held_bytes) - (rows_bytes - freed_bytes), 0)
            self._prompt_cache.max_bytes = min(self._budget.kept_bytes(held_bytes), left_bytes)
            self._prompt_cache.keep(tokens, caches)
        except Exception as error:  # noqa: BLE001 - if the device is broken, the next step will say so too
            # Its text alone: the frames of its traceback would hold the batch for as long as somebody keeps the record.
            logger.warning("a state of %d tokens is not kept: %s: %s", len(tokens), type(error).__name__, str(error))
