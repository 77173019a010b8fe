"""CaptionFile: the SQLite file in which captions survive a restart. May block; used by one thread at a time.

Several processes may have the same file open: SQLite's locks keep it whole, each process keeps its own captions in
memory, and what one writes the others find when they start.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

from periscope.captions.caption import Caption
from periscope.captions.kept import KeptCaption, num_bytes_of
from periscope.sqlite_file import FileFormat, open_file, open_or_replace, transaction

#: "PScp" in the file's header.
APPLICATION_ID: Final = 0x50536370
#: Of the table's shape. A file of another version is set aside: captions can be made again.
SCHEMA_VERSION: Final = 1
#: The texts are blobs in UTF-8, which take whatever Python's strings hold.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS captions (
  key TEXT PRIMARY KEY,
  text BLOB NOT NULL,
  num_tokens INTEGER NOT NULL,
  elapsed_ms INTEGER NOT NULL,
  created_at REAL NOT NULL,
  used_at REAL NOT NULL
)"""
_PUT: Final = "INSERT OR REPLACE INTO captions VALUES (?, ?, ?, ?, ?, ?)"
_SELECT: Final = "SELECT key, text, num_tokens, elapsed_ms, created_at, used_at FROM captions ORDER BY used_at DESC"

#: What becomes of one key: this caption, a new time of use, or nothing.
Change: TypeAlias = KeptCaption | float | None


FORMAT: Final = FileFormat("caption cache", APPLICATION_ID, SCHEMA_VERSION, (_SCHEMA,), (f"{_SELECT} LIMIT 0",))


@dataclass(frozen=True, slots=True)
class Totals:
    """What the file holds."""

    num_entries: int
    num_bytes: int


class CaptionFile:
    """Owns the connection to the file. Its methods raise `sqlite3.Error` for what the disk or another process does."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or make the file of captions, as `open_file` does."""
        return cls(open_file(path, FORMAT))

    @classmethod
    def open_or_replace(cls, path: Path) -> Self:
        """Open the file; one that cannot be used is renamed and a new one made."""
        return cls(open_or_replace(path, FORMAT))

    def load(self, max_bytes: int) -> list[KeptCaption]:
        """Read as many captions as fit, the most recently used one first. Those that do not fit are deleted."""
        loaded: list[KeptCaption] = []
        num_bytes = 0
        with closing(self.recent()) as entries:
            for entry in entries:
                num_bytes += entry.num_bytes
                if num_bytes > max_bytes:
                    break
                loaded.append(entry)
        if num_bytes > max_bytes:
            self._delete_older(entry.used_at, kept=loaded)
        return loaded

    def recent(self) -> Generator[KeptCaption, None, None]:
        """Every caption, the most recently used one first. Rows of another shape are passed over."""
        for row in self._connection.execute(_SELECT):
            if (entry := _entry(row)) is not None:
                yield entry

    def apply(self, changes: Mapping[str, Change], *, clears: bool = False) -> None:
        """Make all these changes, or none of them if this raises. `clears`: delete everything before them."""
        with transaction(self._connection):
            if clears:
                self._connection.execute("DELETE FROM captions")
            put = (change for change in changes.values() if isinstance(change, KeptCaption))
            self._connection.executemany(_PUT, map(_row, put))
            touched = ((change, key) for key, change in changes.items() if isinstance(change, float))
            self._connection.executemany("UPDATE captions SET used_at = ? WHERE key = ?", touched)
            self._delete(key for key, change in changes.items() if change is None)
        if clears:
            self._give_back_space()

    def totals(self) -> Totals:
        """Counted in the file, whoever wrote it."""
        query = "SELECT count(*), total(length(key)), total(length(text)) FROM captions"
        num_entries, num_key_bytes, num_text_bytes = self._connection.execute(query).fetchone()
        overhead = num_entries * num_bytes_of(0, 0)
        return Totals(num_entries, int(num_key_bytes + num_text_bytes) + overhead)

    def close(self) -> None:
        """Idempotent. The last process that closes the file also removes its write-ahead log."""
        self._connection.close()

    def _delete(self, keys: Iterable[str]) -> None:
        self._connection.executemany("DELETE FROM captions WHERE key = ?", ((key,) for key in keys))

    def _delete_older(self, used_at: float, *, kept: Iterable[KeptCaption]) -> None:
        """Delete what was not used since, but for `kept`: several may have been used at the same moment."""
        spared = {entry.key for entry in kept if entry.used_at <= used_at}
        rows = self._connection.execute("SELECT key FROM captions WHERE used_at <= ?", (used_at,)).fetchall()
        with transaction(self._connection):
            self._delete(key for (key,) in rows if key not in spared)

    def _give_back_space(self) -> None:
        """So that a flush leaves no captions on the disk, and the file small. Not while another process reads it."""
        with suppress(sqlite3.OperationalError):
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _row(kept: KeptCaption) -> tuple[str, bytes, int, int, float, float]:
    caption = kept.caption
    text = caption.text.encode(errors="surrogatepass")
    return kept.key, text, caption.num_tokens, caption.elapsed_ms, kept.created_at, kept.used_at


def _entry(row: tuple[Any, ...]) -> KeptCaption | None:
    """Pure: a row as `_row` made it; None for one that only damage can have made."""
    match row:
        case (str(key), bytes(text), int(num_tokens), int(elapsed_ms), float(created_at), float(used_at)):
            try:
                caption = Caption(text.decode(errors="surrogatepass"), num_tokens, elapsed_ms)
            except UnicodeDecodeError:
                return None
            return KeptCaption(key, caption, created_at, used_at)
        case _:
            return None
