"""The log files: their ends, and what is added to them. Each may begin anew at any time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from periscope.service.machine import Clock

FOLLOW_POLL_S = 0.5
#: Enough for any tail that is asked for; the files may be large.
_MAX_TAIL_BYTES = 4 * 2**20
_MAX_READ_BYTES = 2**20


def last_lines(file: Path, num_lines: int) -> list[str]:
    """The last lines of a file, none of one that does not exist."""
    try:
        with file.open("rb") as stream:
            num_bytes = stream.seek(0, 2)
            stream.seek(max(0, num_bytes - _MAX_TAIL_BYTES))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines()[-num_lines:] if num_lines > 0 else []


class Follower:
    """Owns how far each of the files has been read."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._read_bytes = {file: _size(file) for file in files}

    def new_text(self) -> Iterator[str]:
        """What was added since the last call, file by file. A file that became shorter begins anew."""
        for file, read_bytes in self._read_bytes.items():
            num_bytes = _size(file)
            start = read_bytes if num_bytes >= read_bytes else 0
            if num_bytes == start:
                self._read_bytes[file] = start
                continue
            with file.open("rb") as stream:
                stream.seek(start)
                added = stream.read(_MAX_READ_BYTES)
            self._read_bytes[file] = start + len(added)
            yield added.decode("utf-8", errors="replace")

    def follow(self, clock: Clock) -> Iterator[str]:
        """What is added, for ever; Ctrl-C ends it."""
        while True:
            yield from self.new_text()
            clock.sleep(FOLLOW_POLL_S)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
