"""CaptionStore writes behind: the event loop hands over changes and goes on, one thread brings them to disk."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from periscope.captions.file import CaptionFile, Change
from periscope.captions.kept import KeptCaption
from periscope.sqlite_file import is_damage

logger = logging.getLogger(__name__)

T = TypeVar("T")


class StoreState(StrEnum):
    """What becomes of changes. `failing`: they wait for the next try. `off`: they are dropped until the next start."""

    UNOPENED = "unopened"
    OPEN = "open"
    FAILING = "failing"
    OFF = "off"
    CLOSED = "closed"


_TRANSITIONS: Final = {
    StoreState.UNOPENED: {StoreState.OPEN, StoreState.OFF, StoreState.CLOSED},
    StoreState.OPEN: {StoreState.FAILING, StoreState.OFF, StoreState.CLOSED},
    StoreState.FAILING: {StoreState.OPEN, StoreState.OFF, StoreState.CLOSED},
    StoreState.OFF: {StoreState.CLOSED},
    StoreState.CLOSED: set[StoreState](),
}


@dataclass(slots=True)
class _Changes:
    """What is to be written: the last word on each key, after everything was deleted if `clears`."""

    by_key: dict[str, Change] = field(default_factory=dict)
    clears: bool = False

    @property
    def num_changes(self) -> int:
        """A flush is one."""
        return len(self.by_key) + self.clears

    def followed_by(self, later: _Changes) -> _Changes:
        """These changes and then those."""
        if later.clears:
            return later
        merged = _Changes(dict(self.by_key), self.clears)
        for key, change in later.by_key.items():
            merged.add(key, change)
        return merged

    def add(self, key: str, change: Change) -> None:
        before = self.by_key.get(key)
        if isinstance(change, float) and isinstance(before, KeptCaption):
            change = replace(before, used_at=change)
        self.by_key[key] = change


class CaptionStore:
    """Owns the caption file, on a thread of its own, and the changes that are not written yet.

    A `Journal` of `KeptCaptions`. Its methods return at once; whatever goes wrong on the disk is one line in the log,
    and the captions stay in memory. While one transaction runs, the next changes gather for the one after it.
    """

    def __init__(self, path: Path, *, executor: Executor | None = None) -> None:
        self._path = path
        self._executor = executor or ThreadPoolExecutor(1, thread_name_prefix="periscope-captions")
        self._lock = threading.Lock()
        self._changes = _Changes()  # guarded by the lock, like the three after it
        self._is_write_due = False
        self._num_writing = 0
        self._state = StoreState.UNOPENED
        self._file: CaptionFile | None = None  # the thread's own

    def __repr__(self) -> str:
        return f"<CaptionStore {self._path} {self._state} unwritten={self.num_unwritten}>"

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._path

    @property
    def state(self) -> StoreState:
        """What becomes of changes at this moment."""
        return self._state

    @property
    def num_unwritten(self) -> int:
        """Changes that are not on disk yet, those of the transaction that runs included."""
        with self._lock:
            return self._changes.num_changes + self._num_writing

    def put(self, kept: KeptCaption) -> None:
        self._add(kept.key, kept)

    def touch(self, key: str, used_at: float) -> None:
        self._add(key, used_at)

    def drop(self, key: str) -> None:
        self._add(key, None)

    def clear(self) -> None:
        with self._lock:
            self._changes = _Changes(clears=True)
            self._make_write_due()

    async def load(self, max_bytes: int) -> list[KeptCaption]:
        """Open the file and read it, the most recently used caption first; empty if that cannot be."""
        return await self._on_thread(lambda: self._load(max_bytes), [])

    async def written(self) -> bool:
        """Wait until every change so far is on disk, or could not be brought there; whether it is."""
        return await self._on_thread(self._write, instead=False)

    async def close(self) -> None:
        """Write what is not written, close the file, end the thread. Idempotent; later changes are dropped."""
        try:
            await self._on_thread(self._close, None)
        finally:
            self._executor.shutdown(wait=False)

    def _add(self, key: str, change: Change) -> None:
        with self._lock:
            if self._state not in (StoreState.OFF, StoreState.CLOSED):
                self._changes.add(key, change)
                self._make_write_due()

    def _make_write_due(self) -> None:
        """Let the thread write, unless it is going to. Called with the lock held."""
        if not self._is_write_due and self._state not in (StoreState.OFF, StoreState.CLOSED):
            self._is_write_due = True
            self._executor.submit(self._write)

    async def _on_thread(self, work: Callable[[], T], instead: T) -> T:
        """`instead` after the end of the thread."""
        with self._lock:
            if self._state is StoreState.CLOSED:
                return instead
            future: Future[T] = self._executor.submit(work)
        return await asyncio.wrap_future(future)

    # --- on the thread ---------------------------------------------------------------------------------------------

    def _load(self, max_bytes: int) -> list[KeptCaption]:
        if self._state is StoreState.OFF:
            return []
        try:
            return self._opened().load(max_bytes)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)
            return []

    def _opened(self) -> CaptionFile:
        if self._file is None:
            self._file = CaptionFile.open_or_replace(self._path)
            self._enter(StoreState.OPEN)
        return self._file

    def _write(self) -> bool:
        """Bring all changes so far to disk in one transaction. If that fails they wait for the next one."""
        with self._lock:
            self._is_write_due = False
            changes, self._changes = self._changes, _Changes()
            if self._state in (StoreState.OFF, StoreState.CLOSED):
                return False
            self._num_writing = changes.num_changes
        if changes.num_changes:
            self._write_to_file(changes)
        self._num_writing = 0
        return self._state in (StoreState.UNOPENED, StoreState.OPEN)

    def _write_to_file(self, changes: _Changes) -> None:
        try:
            file = self._opened()
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)
            return
        try:
            file.apply(changes.by_key, clears=changes.clears)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be told and must not end the thread's work
            self._take_failure(changes, error)
        else:
            if self._state is StoreState.FAILING:
                self._enter(StoreState.OPEN)
                logger.info("caption cache %s can be written again", self._path)

    def _take_failure(self, changes: _Changes, error: Exception) -> None:
        """Keep the changes for another try if the failure is one that may pass; else switch the store off."""
        if not isinstance(error, sqlite3.DatabaseError) or is_damage(error):
            self._give_up(error)
            return
        with self._lock:
            self._changes = changes.followed_by(self._changes)
        if self._state is StoreState.OPEN:
            self._enter(StoreState.FAILING)
            logger.warning(
                "caption cache %s cannot be written (%s); captions stay in memory, and each new one is another try",
                self._path,
                error,
            )

    def _give_up(self, error: Exception) -> None:
        logger.warning("caption cache %s cannot be used (%s); captions stay in memory only", self._path, error)
        self._enter(StoreState.OFF)
        with self._lock:
            self._changes = _Changes()
        self._close_file()

    def _close(self) -> None:
        self._write()
        with self._lock:
            self._state = StoreState.CLOSED
        self._close_file()

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except sqlite3.Error as error:
                logger.debug("caption cache %s could not be closed: %s", self._path, error)

    def _enter(self, state: StoreState) -> None:
        with self._lock:
            if state not in _TRANSITIONS[self._state]:
                raise RuntimeError(f"a caption store cannot go from {self._state} to {state}")
            self._state = state
