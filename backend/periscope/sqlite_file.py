"""SQLite files of our own: private, whole after a kill, and set aside if they cannot be used. May block.

Several processes may have the same file open: SQLite's locks keep it whole.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

#: How long a write waits for another process that writes.
BUSY_TIMEOUT_S: Final = 5.0
_RETRY_S: Final = 0.01

#: Result codes, without their extensions, of a file that holds something else than it should.
_DAMAGE_CODES: Final = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SIDE_FILES: Final = ("-wal", "-shm", "-journal")


class FileNotUsable(Exception):
    """The file at this path is not one of this format and version, or it is damaged; the message says which."""


@dataclass(frozen=True, slots=True)
class FileFormat:
    """What a file must be.

    Attributes:
        what: it is called in the log (`caption cache`).
        application_id: in the file's header, so that a file of another program is never written to.
        version: of the tables' shape. A file of another version is set aside.
        schema: statements that make the tables of a new file.
        checks: queries that only run if the tables have the columns that they should have.
    """

    what: str
    application_id: int
    version: int
    schema: tuple[str, ...]
    checks: tuple[str, ...]


def open_file(path: Path, form: FileFormat) -> sqlite3.Connection:
    """Open the file, which only its owner may read, or make a new one.

    Raises:
        FileNotUsable: there is a file, but it is not ours, not of this version, or damaged. It is left as it is.
        OSError, sqlite3.Error: there can be no file, or another process holds it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make_private_file(path)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        _prepare(connection, form, is_new=_check(connection, form))
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
    return connection


def open_or_replace(path: Path, form: FileFormat) -> sqlite3.Connection:
    """Open the file; one that cannot be used is renamed, with one line in the log, and a new one is made.

    Raises:
        OSError, sqlite3.Error: as `open_file`; also when the file cannot be renamed.
    """
    before = _inode(path)
    try:
        return open_file(path, form)
    except FileNotUsable as error:
        if before is not None and _inode(path) == before:  # else another process has just replaced it
            logger.warning("%s %s: %s; kept as %s, a new one is begun", form.what, path, error, _set_aside(path))
    try:
        return open_file(path, form)
    except FileNotUsable as error:
        raise OSError(str(error)) from error


def open_in_memory(form: FileFormat) -> sqlite3.Connection:
    """The same tables without a file. They are gone when the connection is closed."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    _prepare(connection, form, is_new=True)
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All changes in the block, or none of them if it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has ended it by itself when the disk was full
            connection.execute("ROLLBACK")
        raise


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Pure: the file's content is wrong. Else the disk, its rights or another process is in the way."""
    code = getattr(error, "sqlite_errorcode", None)  # Python's own errors, such as a closed connection, have none
    return code is not None and code & 0xFF in _DAMAGE_CODES


def _prepare(connection: sqlite3.Connection, form: FileFormat, *, is_new: bool) -> None:
    """A log ahead of the file: a process that is killed loses what it had not committed, and harms nothing."""
    _switch_to_wal(connection)
    for pragma in ("synchronous = NORMAL", "secure_delete = ON"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    if is_new:
        with transaction(connection):
            for statement in form.schema:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {form.application_id}")
            connection.execute(f"PRAGMA user_version = {form.version}")
    for query in form.checks:
        connection.execute(query).fetchall()


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Here SQLite does not wait for another process that opens the file at the same moment, so that this does."""
    end = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
        else:
            return
        time.sleep(_RETRY_S)


def _check(connection: sqlite3.Connection, form: FileFormat) -> bool:
    """Whether the file is empty. Raises FileNotUsable unless it is, or is a whole file of this format and version."""
    connection.execute("BEGIN")  # all three at one moment: another process may be making the file
    num_tables, application_id, version = (
        connection.execute(query).fetchone()[0]
        for query in ("SELECT count(*) FROM sqlite_master", "PRAGMA application_id", "PRAGMA user_version")
    )
    connection.execute("COMMIT")
    if (application_id, version, num_tables) == (0, 0, 0):
        return True
    if application_id != form.application_id:
        raise FileNotUsable("it belongs to another program")
    if version != form.version:
        raise FileNotUsable(f"it has version {version}, and this Periscope reads version {form.version}")
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise FileNotUsable(f"it is damaged ({' '.join(found.split())})")
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
