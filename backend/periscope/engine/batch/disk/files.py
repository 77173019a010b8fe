"""The files of all models' states in one folder, and their bound in bytes. May block; any thread.

`ROOT/KEY/NAME.safetensors`, where the key tells one model's states from another's, and the name is `NAME_DIGITS` hex
digits. Whatever else is there, weights of models for one, is left alone. Several workers and several servers may use
one folder: nothing is locked for longer than a look at it, and whoever finds a file gone goes on without it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import stat
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

#: Whole files.
SUFFIX = ".safetensors"
#: Files that could not be used are named so. They count, and are the first to go.
SET_ASIDE = ".set-aside"
#: Files that are being written.
_PARTIAL = ".partial"
#: How many hex digits a file's name has before its first dot.
NAME_DIGITS = 32
#: The unit of `st_blocks`, whatever the volume's own is.
_BLOCK_BYTES = 512
_OURS = re.compile(rf"[0-9a-f]{{{NAME_DIGITS}}}\.")
#: States are written only while the volume keeps so many bytes free.
MIN_FREE_BYTES = 2 * 2**30
#: Making room, and taking it, is one act for all workers of this process.
_MAKING_ROOM = threading.Lock()


@dataclass(frozen=True, slots=True)
class Kept:
    """One file.

    Attributes:
        used_ns: when its state was last written or read.
        unwritten_bytes: those of `nbytes` that a file which is being written does not take on the volume yet.
    """

    path: Path
    nbytes: int
    used_ns: int
    unwritten_bytes: int = 0

    @property
    def may_go(self) -> bool:
        """Whether it may be removed to make room: not while it is being written."""
        return self.path.suffix != _PARTIAL


def kept_files(root: Path) -> list[Kept]:
    """All files of all models, those that go first at the start: set aside, then least recently used."""
    files = [file for folder in _folders(root) for file in files_in(folder)]
    return sorted(files, key=lambda file: (file.path.suffix != SET_ASIDE, file.used_ns))


def _folders(root: Path) -> list[Path]:
    try:
        return [folder for folder in root.iterdir() if folder.is_dir() and not folder.is_symlink()]
    except OSError:
        return []


def files_in(folder: Path) -> list[Kept]:
    """All files of one model, in no order; none if the folder cannot be read."""
    files = []
    with suppress(OSError):
        for path in folder.iterdir():
            if path.suffix in (SUFFIX, SET_ASIDE, _PARTIAL) and _OURS.match(path.name):
                with suppress(OSError):  # it has gone since
                    facts = path.lstat()
                    if stat.S_ISREG(facts.st_mode):
                        written = facts.st_blocks * _BLOCK_BYTES if path.suffix == _PARTIAL else facts.st_size
                        unwritten = max(facts.st_size - written, 0)
                        files.append(Kept(path, facts.st_size, facts.st_mtime_ns, unwritten))
    return files


def make_room(root: Path, max_bytes: int, num_bytes: int = 0, first: Collection[Path] = ()) -> bool:
    """Remove the files that were used least recently until there is room for `num_bytes` more.

    Args:
        max_bytes: of all files.
        first: these go before all others.

    Returns:
        Whether there is room. If so many bytes can never be had, nothing is removed for them.
    """
    files = sorted(kept_files(root), key=lambda file: file.path not in first)
    used_bytes = sum(file.nbytes for file in files)
    limit_bytes = max_bytes
    if num_bytes:
        promised_bytes = sum(file.unwritten_bytes for file in files)
        free_bytes = shutil.disk_usage(root).free - promised_bytes - MIN_FREE_BYTES
        limit_bytes = min(max_bytes, used_bytes + free_bytes)
    if num_bytes + sum(file.nbytes for file in files if not file.may_go) > limit_bytes:
        return False
    for file in files:
        if used_bytes + num_bytes <= limit_bytes:
            break
        if file.may_go:
            with suppress(FileNotFoundError):
                file.path.unlink()
            used_bytes -= file.nbytes
    return True


def clear(root: Path) -> tuple[int, int]:
    """Remove all states of all models: how many files, and their bytes. One that is being written is left alone."""
    sweep(root)
    removed = [file for file in kept_files(root) if file.may_go]
    for file in removed:
        with suppress(FileNotFoundError):
            file.path.unlink()
    return len(removed), sum(file.nbytes for file in removed)


class PartialFile:
    """Owns a file until it has its name: private, as long as it will be, and locked, so that nobody sweeps it away.

    Raises:
        FileNotFoundError: it was swept away before it was locked.
        OSError: it cannot be made.
    """

    def __init__(self, path: Path, num_bytes: int) -> None:
        self._path = path
        self._partial = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}{_PARTIAL}")
        self._partial.unlink(missing_ok=True)
        descriptor = os.open(self._partial, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self.file: IO[bytes] = os.fdopen(descriptor, "r+b", buffering=0)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:  # another server starts, and takes it for what a killed one has left
            self.discard()
            raise FileNotFoundError(str(self._partial)) from error
        os.truncate(descriptor, num_bytes)

    def commit(self) -> None:
        """Give the file its name; what had it before is gone."""
        self._partial.replace(self._path)
        self.file.close()

    def discard(self) -> None:
        """Remove the file if it has no name yet. Idempotent."""
        if not self.file.closed:
            self.file.close()
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)


def reserve(
    root: Path, path: Path, num_bytes: int, *, max_bytes: int, first: Collection[Path] = ()
) -> PartialFile | None:
    """A file to write `num_bytes` into, which count from now on; None if there is no room for them.

    Raises:
        FileNotFoundError: it was swept away at once, and may be tried again.
        OSError: the folder cannot be written.
    """
    with _MAKING_ROOM:
        if not make_room(root, max_bytes, num_bytes, first):
            return None
        return PartialFile(path, num_bytes)


def make_private(folder: Path) -> None:
    """Make a folder that only this user can look into.

    Raises:
        OSError: it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def sweep(root: Path) -> None:
    """Remove what processes that were killed have left half written, of all models."""
    for written in kept_files(root):
        if written.may_go:
            continue
        with suppress(OSError), written.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while somebody writes it
            written.path.unlink()


def set_aside(path: Path, why: object) -> None:
    """Rename a file that cannot be used, with a line in the log. It is removed when room is needed."""
    logger.warning("a prompt's state on disk cannot be used and is set aside: %s: %s", path.name, why)
    with suppress(OSError):
        path.replace(path.with_suffix(SET_ASIDE))
