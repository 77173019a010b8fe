"""How much memory the rows of one model may take, and what gives way when they grow. Worker thread only.

A prompt is started when its row fits with room for its next block of tokens (`Row.reach`), so that a row that has just
been started is not the next to be preempted. The actual bytes are compared with the budget whenever an array grows.
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
    """The memory of one request. `row_id` grows with the order of arrival."""

    row_id: int
    num_bytes: int


def newest_to_preempt(holdings: Sequence[Holding], room_bytes: int) -> list[int]:
    """Pure: ids of the newest requests that must give up their memory so that the others fit into `room_bytes`.

    The oldest request is never among them, whatever its size. So it makes progress with every step, and since every
    request becomes the oldest in time, every request is served.
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
        checks_requests: refuse prompts that cannot fit, before they are prefilled.
    """

    def __init__(self, budget: KVBudget, prompt_cache: PromptCache, *, checks_requests: bool) -> None:
        self._budget = budget
        self._prompt_cache = prompt_cache
        self._checks_requests = checks_requests

    @property
    def max_num_tokens(self) -> float:
        """The longest row that the budget can hold by itself, in tokens; infinity when requests are not checked."""
        return self._budget.max_num_tokens if self._checks_requests else math.inf

    def check_fits(self, num_prompt_tokens: int, rows_bytes: int) -> None:
        """Check that a prompt would fit if this model held nothing else.

        Raises:
            MemoryExceeded: it would not.
        """
        if not self._checks_requests:
            return
        needed = self._budget.footprint.nbytes(num_prompt_tokens + 1)
        available = self.room_bytes(rows_bytes)
        if needed > available:
            raise MemoryExceeded(num_prompt_tokens=num_prompt_tokens, needed_bytes=needed, available_bytes=available)

    def room_bytes(self, rows_bytes: int) -> int:
        """What rows and kept states may take together now; the rows take `rows_bytes` of it already."""
        return self._budget.total_bytes(rows_bytes + self._prompt_cache.nbytes)

    def max_kept_bytes(self, rows_bytes: int, freed_bytes: int = 0) -> int:
        """What kept states may take now, beside rows that take `rows_bytes`, of which `freed_bytes` are freed soon."""
        used_bytes = rows_bytes + self._prompt_cache.nbytes
        left_bytes = max(self._budget.total_bytes(used_bytes) - (rows_bytes - freed_bytes), 0)
        return min(self._budget.kept_bytes(used_bytes), left_bytes)

    def keep(self, tokens: list[int], caches: LayerCaches, *, rows_bytes: int, freed_bytes: int = 0) -> None:
        """Hand a state to the prompt cache, if there is room for it. Never raises: states are only kept for speed.

        Args:
            rows_bytes: what the rows take now, including the row that this state comes from.
            freed_bytes: how much of `rows_bytes` is freed when that row is removed.
        """
        try:
            self._prompt_cache.max_bytes = self.max_kept_bytes(rows_bytes, freed_bytes)
            self._prompt_cache.keep(tokens, caches)
        except Exception as error:  # noqa: BLE001 - if the device is broken, the next step raises it again
            # Only the text is logged: a traceback's frames would keep the batch alive as long as the log record.
            logger.warning("a state of %d tokens is not kept: %s: %s", len(tokens), type(error).__name__, str(error))
