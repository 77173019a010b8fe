"""What the program of a stdio server writes beside MCP: passed on to standard error, and its end kept."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from contextlib import suppress
from typing import Final, TextIO

_READ_BYTES: Final = 65_536
#: Kept of what was written last, and of its last line.
_KEPT_BYTES, _LINE_CHARS = 4096, 300
#: At the end so much is read at most: a process that the program has left behind may write for ever.
_MAX_LAST_READS: Final = 16
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class ProgramMessages:
    """Owns a pipe for the standard error of one program, which is to have ended when it is closed. Event loop only.

    Attributes:
        file: what the program writes into.
    """

    def __init__(self) -> None:
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        self.file: TextIO = os.fdopen(writer, "w")
        self._kept = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reader, self._read)

    @property
    def last_line(self) -> str:
        """The last line that is not blank; "" if there was none."""
        text = _COLOURS.sub("", self._kept.decode(errors="replace"))
        lines = [line.strip() for line in text.splitlines()]
        return next(filter(None, reversed(lines)), "")[:_LINE_CHARS]

    def close(self) -> None:
        """Read what is left, and give the pipe back."""
        self.file.close()
        for _ in range(_MAX_LAST_READS):
            if not self._read():
                break
        self._loop.remove_reader(self._reader)
        os.close(self._reader)

    def _read(self) -> bool:
        """Pass on what has come; returns whether there may be more."""
        try:
            data = os.read(self._reader, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._reader)
            return False
        self._kept = (self._kept + data)[-_KEPT_BYTES:]
        with suppress(OSError, ValueError):  # nobody reads it, or it is closed
            _stderr().buffer.write(data)
            _stderr().buffer.flush()
        return True


def _stderr() -> TextIO:
    """Notebooks replace standard error by what is no file."""
    try:
        sys.stderr.fileno()
    except (OSError, AttributeError):
        return sys.__stderr__ or sys.stderr
    return sys.stderr
