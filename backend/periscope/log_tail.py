"""The newest lines of the log, in memory, for those who ask the server for them."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from itertools import count, islice
from typing import Final

#: A line has a few hundred bytes; none is longer than `_MAX_CHARS`.
KEPT_LINES: Final = 2000
_MAX_CHARS: Final = 4000


@dataclass(frozen=True, slots=True)
class LogLine:
    """One thing that was logged.

    Attributes:
        id: grows by one with each line, from 1.
        at: seconds since 1970.
        level: as logging names it, in lower case.
        text: as it stands in the log file, with time and level, and with its traceback if it has one.
    """

    id: int
    at: float
    level: str
    text: str


class LogTail(logging.Handler):
    """Owns the newest lines. Any thread; its formatter must keep secrets out of them."""

    def __init__(self) -> None:
        super().__init__()
        self._ids = count(1)
        self._lines: deque[LogLine] = deque(maxlen=KEPT_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """One record. Called with the handler's lock held."""
        try:
            text = self.format(record)[:_MAX_CHARS]
        except Exception:  # noqa: BLE001 - a log that cannot be written must not end the server
            self.handleError(record)
            return
        self._lines.append(LogLine(next(self._ids), record.created, record.levelname.lower(), text))

    def newest(self, num_lines: int, *, after: int = 0, level: str = "debug") -> tuple[LogLine, ...]:
        """The newest lines, the oldest of them first.

        Args:
            after: only lines with a larger id.
            level: only lines of this level or a more serious one.
        """
        numbers = logging.getLevelNamesMapping()
        least = numbers[level.upper()]
        self.acquire()
        try:
            lines = tuple(self._lines)
        finally:
            self.release()
        fitting = (
            line for line in reversed(lines) if line.id > after and numbers.get(line.level.upper(), least) >= least
        )
        return tuple(islice(fitting, num_lines))[::-1]
