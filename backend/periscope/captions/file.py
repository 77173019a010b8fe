"""CaptionFile: the SQLite file in which captions survive a restart. May block; used by one thread at a time.

Several processes may have the same file open: SQLite's locks keep it whole, each process keeps its own captions in
memory, and what one writes the others find when they start.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

from periscope.captions.caption import Caption
from periscope.captions.kept import KeptCaption, num_bytes_of

logger = logging.getLogger(__name__)

#: "PScp" in the file's header, so that a file of another program is never written to.
APPLICATION_ID: Final = 0x50536370
#: Of the table's shape. A file of another version is set aside: captions can be made again.
SCHEMA_VERSION: Final = 1
#: How long a write waits for another process that writes.
BUSY_TIMEOUT_S: Final = 5.0
_RETRY_S: Final = 0.01

#: Result codes, without their extensions, of a file that holds something else than it should.
_DAMAGE_CODES: Final = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SIDE_FILES: Final = ("-wal", "-shm", "-journal")
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


class FileNotUsable(Exception):
    """The file at this path is not a caption cache of this version, or it is damaged; the message says which."""


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
        """Open the file, which only its owner may read, or make a new one.

        Raises:
            FileNotUsable: there is a file, but it is not ours, not of this version, or damaged. It is left as it is.
            OSError, sqlite3.Error: there can be no file, or another process holds it.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private_file(path)
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            is_new = _check(connection)
            file = cls(connection)
            file._prepare(is_new=is_new)
        except sqlite3.DatabaseError as error:
            connection.close()
            if is_damage(error):
                raise FileNotUsable(f"it is damaged or no SQLite file ({error})") from None
            raise
        except BaseException:
            connection.close()
            raise
        with suppress(OSError):
            path.chmod(0o600)
        return file

    @classmethod
    def open_or_replace(cls, path: Path) -> Self:
        """Open the file; one that cannot be used is renamed, with one line in the log, and a new one is made.

        Raises:
            OSError, sqlite3.Error: as `open`; also when the file cannot be renamed.
        """
        before = _inode(path)
        try:
            return cls.open(path)
        except FileNotUsable as error:
            if before is not None and _inode(path) == before:  # else another process has just replaced it
                logger.warning("caption cache %s: %s; kept as %s, a new one is begun", path, error, _set_aside(path))
        try:
            return cls.open(path)
        except FileNotUsable as error:
            raise OSError(str(error)) from error

    def load(self, max_bytes: int) -> list[KeptCaption]:
        """As many captions as fit, the most recently used one first. Those that do not fit are deleted."""
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
        with self._transaction():
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

    def _prepare(self, *, is_new: bool) -> None:
        """A log ahead of the file: a process that is killed loses what it had not committed, and harms nothing."""
        self._switch_to_wal()
        for pragma in ("synchronous = NORMAL", "secure_delete = ON"):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        if is_new:
            with self._transaction():
                self._connection.execute(_SCHEMA)
                self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._connection.execute(f"{_SELECT} LIMIT 0").fetchall()  # the table has the columns that it should have

    def _switch_to_wal(self) -> None:
        """Here SQLite does not wait for another process that opens the file at the same moment, so that this does."""
        end = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL").fetchall()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
            else:
                return
            time.sleep(_RETRY_S)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite has ended it by itself when the disk was full
                self._connection.execute("ROLLBACK")
            raise

    def _delete(self, keys: Iterable[str]) -> None:
        self._connection.executemany("DELETE FROM captions WHERE key = ?", ((key,) for key in keys))

    def _delete_older(self, used_at: float, *, kept: Iterable[KeptCaption]) -> None:
        """Delete what was not used since, but for `kept`: several may have been used at the same moment."""
        spared = {entry.key for entry in kept if entry.used_at <= used_at}
        rows = self._connection.execute("SELECT key FROM captions WHERE used_at <= ?", (used_at,)).fetchall()
        with self._transaction():
            self._delete(key for (key,) in rows if key not in spared)

    def _give_back_space(self) -> None:
        """So that a flush leaves no captions on the disk, and the file small. Not while another process reads it."""
        with suppress(sqlite3.OperationalError):
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Pure: the file's content is wrong. Else the disk, its rights or another process is in the way."""
    code = getattr(error, "sqlite_errorcode", None)  # Python's own errors, such as a closed connection, have none
    return code is not None and code & 0xFF in _DAMAGE_CODES


def _check(connection: sqlite3.Connection) -> bool:
    """Whether the file is empty. Raises FileNotUsable unless it is, or is a whole caption cache of this version."""
    connection.execute("BEGIN")  # all three at one moment: another process may be making the file
    num_tables, application_id, version = (
        connection.execute(query).fetchone()[0]
        for query in ("SELECT count(*) FROM sqlite_master", "PRAGMA application_id", "PRAGMA user_version")
    )
    connection.execute("COMMIT")
    if (application_id, version, num_tables) == (0, 0, 0):
        return True
    if application_id != APPLICATION_ID:
        raise FileNotUsable("it belongs to another program")
    if version != SCHEMA_VERSION:
        raise FileNotUsable(f"it has version {version}, and this Periscope reads version {SCHEMA_VERSION}")
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise FileNotUsable(f"it is damaged ({found})")
    return False


def _make_private_file(path: Path) -> None:
    """An empty file that only its owner may read, unless there is one; SQLite gives its side files the same rights.

    A file that is there is not opened: to close it again would end the locks that SQLite holds on it in this process.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not path.is_file():
            raise OSError(f"{path} is not a regular file") from None


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _set_aside(path: Path) -> str:
    """Rename the file and its side files to the first free name; returns the name."""
    number = 1
    while (aside := path.with_name(f"{path.name}.set-aside-{number}")).exists():
        number += 1
    path.rename(aside)
    for suffix in _SIDE_FILES:
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    return aside.name


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
