"""TurnStore: the event loop hands turns over and goes on, one thread keeps them and reads them."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from periscope.sqlite_file import is_damage
from periscope.turns.file import TurnFile
from periscope.turns.turn import Turn, TurnMissing

if TYPE_CHECKING:
    from periscope.core import JSONObject

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_MAX_BYTES: Final = 256 * 1024 * 1024
DEFAULT_TTL_S: Final = 30 * 24 * 3600.0
#: Where there is no file: turns take the memory that models want.
MAX_BYTES_IN_MEMORY: Final = 64 * 1024 * 1024
#: Of all that is kept. A larger turn would drop the conversations of everybody else.
_MAX_SHARE_OF_A_TURN: Final = 4


class StoreState(StrEnum):
    """Where turns are kept. `in_memory` from the start by setting, or since the file could not be used."""

    UNOPENED = "unopened"
    ON_DISK = "on_disk"
    IN_MEMORY = "in_memory"
    CLOSED = "closed"


class TurnStore:
    """Owns the file of turns, on a thread of its own, which begins with the first turn.

    `begin`, `finish` and `drop` return at once, and what they ask for is done before anything that is asked for later.
    Whatever goes wrong with the file is one line in the log: a damaged or unusable one is left for turns in memory.

    Args:
        path: of the file; None = in memory only.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        ttl_s: float = DEFAULT_TTL_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="periscope-turns")
        self._lock = threading.Lock()
        self._state = StoreState.UNOPENED  # guarded by the lock
        self._file: TurnFile | None = None  # the thread's own

    def __repr__(self) -> str:
        return f"<TurnStore {self._path} {self._state}>"

    @property
    def state(self) -> StoreState:
        """Where turns are kept at this moment."""
        return self._state

    @property
    def max_turn_bytes(self) -> int:
        """Larger turns are not to be kept."""
        return self._bound(self._path) // _MAX_SHARE_OF_A_TURN

    def begin(self, turn: Turn) -> None:
        """Keep what the client sent, before it is answered."""
        self._submit(lambda: self._changed(lambda file: file.begin(turn)))

    def finish(self, turn: Turn) -> None:
        """Add the answer to a turn that was begun."""
        self._submit(lambda: self._changed(lambda file: file.finish(turn)))

    def drop(self, turn_id: str) -> None:
        """Delete a turn that was begun and is not answered."""
        self._submit(lambda: self._changed(lambda file: file.delete(turn_id)))

    async def turn(self, turn_id: str) -> Turn:
        """One turn that has been answered.

        Raises:
            TurnMissing: there is none.
        """
        return await self._read(lambda file: file.turn(turn_id), turn_id)

    async def conversation(self, turn_id: str, max_bytes: int) -> list[JSONObject]:
        """The items of this turn and all before it, the oldest first.

        Raises:
            TurnMissing: this turn or one before it is not there.
            TurnsTooLarge: they have more than `max_bytes`.
        """
        return await self._read(lambda file: file.conversation(turn_id, max_bytes), turn_id)

    async def items(self, item_ids: Sequence[str]) -> dict[str, JSONObject]:
        """The kept ones of these items, by id."""
        return await self._read(lambda file: file.items(item_ids), "")

    async def delete(self, turn_id: str) -> bool:
        """Delete a turn; whether it was there."""
        return await self._read(lambda file: file.delete(turn_id), turn_id)

    async def close(self) -> None:
        """Do what is left to do, close the file, end the thread. Idempotent; later turns are not kept."""
        with self._lock:
            is_open, self._state = self._state is not StoreState.CLOSED, StoreState.CLOSED
        if is_open:
            await asyncio.wrap_future(self._executor.submit(self._close_file))
            self._executor.shutdown(wait=False)

    def _submit(self, work: Callable[[], T]) -> Future[T] | None:
        with self._lock:
            return None if self._state is StoreState.CLOSED else self._executor.submit(work)

    async def _read(self, work: Callable[[TurnFile], T], turn_id: str) -> T:
        future = self._submit(lambda: self._told(work, turn_id))
        if future is None:
            raise TurnMissing(turn_id)
        return await asyncio.wrap_future(future)

    # --- on the thread ---------------------------------------------------------------------------------------------

    def _changed(self, work: Callable[[TurnFile], object]) -> None:
        try:
            work(self._opened())
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be told and must not end the thread's work
            self._take_failure(error)

    def _told(self, work: Callable[[TurnFile], T], turn_id: str) -> T:
        """What the file has. One that cannot be read has nothing any more."""
        try:
            return work(self._opened())
        except sqlite3.Error as error:
            self._take_failure(error)
            raise TurnMissing(turn_id) from None

    def _opened(self) -> TurnFile:
        if self._file is None:
            try:
                self._file = self._open(self._path)
            except (OSError, sqlite3.Error) as error:
                self._fall_back(error)
                self._file = self._open(None)
        return self._file

    def _open(self, path: Path | None) -> TurnFile:
        file = TurnFile.open(path, max_bytes=self._bound(path), ttl_s=self._ttl_s, clock=self._clock)
        with self._lock:
            if self._state is not StoreState.CLOSED:
                self._state = StoreState.IN_MEMORY if path is None else StoreState.ON_DISK
        return file

    def _take_failure(self, error: Exception) -> None:
        if isinstance(error, sqlite3.DatabaseError) and is_damage(error):
            self._fall_back(error)
            self._close_file()
        else:
            logger.warning("a response could not be stored (%s)", error)

    def _fall_back(self, error: Exception) -> None:
        logger.warning(
            "stored responses %s cannot be used (%s); they stay in memory until a restart", self._path, error
        )
        self._path = None

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _bound(self, path: Path | None) -> int:
        return self._max_bytes if path is not None else min(self._max_bytes, MAX_BYTES_IN_MEMORY)
