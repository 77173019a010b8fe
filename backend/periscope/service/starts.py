"""The crash brake: how often in a row the server has died soon after its start."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from periscope.service.discovery import write_private

#: After so many starts in a row that did not last, nothing is loaded at the next one.
MAX_FAST_CRASHES = 5
#: A server that has run for so long has started well.
SETTLED_S = 60.0
#: Older starts say nothing about the next one.
_FORGOTTEN_S = 3600.0


class StartRecord:
    """Owns the file with the times of the starts that have neither lasted nor ended by themselves.

    A process that is killed, aborts inside Metal or is taken by the system for its memory can note nothing, so each
    start is noted before anything is loaded, and forgotten once it has lasted or has ended in order.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock

    def begin(self) -> int:
        """Note this start. Returns how many before it, in a row, did not last.

        Raises:
            OSError: the file cannot be written.
        """
        now = self._clock()
        before = [at for at in self._read() if now - _FORGOTTEN_S < at <= now]
        write_private(self._file, json.dumps([*before, now][-MAX_FAST_CRASHES:]))
        return len(before)

    def forget(self) -> None:
        """This start has lasted, or ends in order. Idempotent."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)

    def _read(self) -> list[float]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [float(at) for at in found if isinstance(at, (int, float))] if isinstance(found, list) else []
