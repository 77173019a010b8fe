"""Arrivals: the requests whose prefix is read from disk before the scheduler sees them. Worker thread only."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Generator
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from periscope.engine.batch.disk.tier import DiskTier
    from periscope.engine.batch.prompt import Prompt
    from periscope.engine.batch.prompt_cache import LayerCaches

logger = logging.getLogger(__name__)

_Reading: TypeAlias = Generator[None, None, "tuple[list[int], LayerCaches] | None"]


class Arrivals:
    """Owns the requests that wait for a state on disk, in order of arrival, and the one state being read.

    Args:
        keep: takes over a state that has been read.
        max_bytes: what the prompt cache may take now.
        clock: seconds.
    """

    def __init__(
        self,
        disk: DiskTier,
        keep: Callable[[list[int], LayerCaches], None],
        max_bytes: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self._disk = disk
        self._keep = keep
        self._max_bytes = max_bytes
        self._clock = clock
        self._prompts: deque[Prompt] = deque()
        self._reading: _Reading | None = None

    def __len__(self) -> int:
        return len(self._prompts)

    def prompt(self, row_id: int) -> Prompt | None:
        """The request of this id, if it is here."""
        return next((prompt for prompt in self._prompts if prompt.row.id == row_id), None)

    def take(self, prompt: Prompt) -> bool:
        """Take over a new request if a state on disk saves some of its computation; else False."""
        if prompt.row.prompt_logprobs is not None or self._disk.find(prompt.tokens, self._max_bytes()) is None:
            return False
        self._prompts.append(prompt)
        return True

    def step(self, within_s: float) -> list[Prompt]:
        """Read pieces for about so long, one at least. Returns the requests that are to wait for their start now."""
        deadline = self._clock() + within_s
        ready: list[Prompt] = []
        while self._prompts:
            if self._is_ready(self._prompts[0]):
                ready.append(self._prompts.popleft())
            if self._clock() >= deadline:
                break
        return ready

    def _is_ready(self, prompt: Prompt) -> bool:
        """Read a piece for the first request; True once there is nothing to read for it."""
        if self._reading is None:
            prefix = self._disk.find(prompt.tokens, self._max_bytes())
            if prefix is None:
                return True
            self._reading = self._disk.read(prefix)
        try:
            next(self._reading)
        except StopIteration as end:
            self._reading = None
            if end.value is None:
                return False  # another file may do
            self._keep(*end.value)
            return True
        except Exception as error:  # noqa: BLE001 - out of memory, most likely; the prompt is computed instead
            self._reading = None
            logger.warning("a prompt's state on disk is not read: %s: %s", type(error).__name__, error)
            return True
        return False

    def remove(self, ids: Collection[int]) -> None:
        """Drop requests. Unknown ids are ignored."""
        if self._prompts and self._prompts[0].row.id in ids:
            self._stop_reading()
        self._prompts = deque(prompt for prompt in self._prompts if prompt.row.id not in ids)

    def close(self) -> None:
        """Drop all requests and the state being read."""
        self._stop_reading()
        self._prompts.clear()

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.close()
            self._reading = None
