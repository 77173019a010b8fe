"""TurnFile: the tables in which turns are kept. May block; used by one thread at a time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from periscope.sqlite_file import FileFormat, open_in_memory, open_or_replace, transaction
from periscope.turns.large_texts import put_back, without_large_texts
from periscope.turns.turn import Turn, TurnMissing, TurnsTooLarge

if TYPE_CHECKING:
    from periscope.core import JSONObject

#: JSON and texts are blobs in UTF-8, which take whatever Python's strings hold. `used_at` is that of the newest turn
#: that went on from this one, so that the turns of a conversation are dropped together.
_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS turns (
  id TEXT PRIMARY KEY, previous_id TEXT, used_at REAL NOT NULL, num_bytes INTEGER NOT NULL, answer BLOB)""",
    """CREATE TABLE IF NOT EXISTS items (
  turn_id TEXT NOT NULL, position INTEGER NOT NULL, is_output INTEGER NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL,
  large_texts BLOB NOT NULL, PRIMARY KEY (turn_id, position))""",
    "CREATE INDEX IF NOT EXISTS items_by_id ON items (id)",
    "CREATE TABLE IF NOT EXISTS texts (digest BLOB PRIMARY KEY, num_bytes INTEGER NOT NULL, body BLOB NOT NULL)",
    """CREATE TABLE IF NOT EXISTS uses (
  digest BLOB NOT NULL, turn_id TEXT NOT NULL, PRIMARY KEY (digest, turn_id)) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS uses_by_turn ON uses (turn_id)",
)
FORMAT: Final = FileFormat(
    "file of stored responses",
    0x50537475,  # "PStu"
    1,
    _SCHEMA,
    (
        "SELECT id, previous_id, used_at, num_bytes, answer FROM turns LIMIT 0",
        "SELECT turn_id, position, is_output, id, body, large_texts FROM items LIMIT 0",
        "SELECT digest, num_bytes, body FROM texts LIMIT 0",
        "SELECT digest, turn_id FROM uses LIMIT 0",
    ),
)
#: Rough size of a turn beside its items: its rows, and the entries in the indexes.
_TURN_OVERHEAD_BYTES: Final = 500
#: The turns from the newest to the oldest, with the bytes of each, without those of long texts.
_CHAIN: Final = """
WITH RECURSIVE chain (id, previous_id, num_bytes, depth) AS (
  SELECT id, previous_id, num_bytes, 0 FROM turns WHERE id = ? AND answer IS NOT NULL
  UNION ALL
  SELECT turns.id, turns.previous_id, turns.num_bytes, depth + 1 FROM turns JOIN chain ON turns.id = chain.previous_id
) SELECT id, previous_id, num_bytes FROM chain ORDER BY depth"""
_ITEMS: Final = "SELECT body, large_texts FROM items WHERE turn_id = ?"


class TurnFile:
    """Owns the connection. Its methods raise `sqlite3.Error` for what the disk or another process does.

    Args:
        max_bytes: of all turns together. Those that were not used for the longest time make room.
        ttl_s: a turn that was not used for so long is deleted.
        clock: seconds since 1970.
    """

    def __init__(
        self, connection: sqlite3.Connection, *, max_bytes: int, ttl_s: float, clock: Callable[[], float]
    ) -> None:
        self._connection = connection
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock

    @classmethod
    def open(cls, path: Path | None, *, max_bytes: int, ttl_s: float, clock: Callable[[], float]) -> Self:
        """The file at this path, or a new one; in memory if there is none.

        Raises:
            OSError, sqlite3.Error: there can be no file.
        """
        connection = open_in_memory(FORMAT) if path is None else open_or_replace(path, FORMAT)
        return cls(connection, max_bytes=max_bytes, ttl_s=ttl_s, clock=clock)

    def begin(self, turn: Turn) -> None:
        """Keep a turn that has no answer yet, and make room for it."""
        with transaction(self._connection):
            num_bytes = _TURN_OVERHEAD_BYTES + self._put_items(turn.id, 0, turn.inputs, is_output=False)
            row = (turn.id, turn.previous_id, self._clock(), num_bytes)
            self._connection.execute("INSERT INTO turns VALUES (?, ?, ?, ?, NULL)", row)
            self._make_room(but=turn.id)

    def finish(self, turn: Turn) -> None:
        """Add the answer of a turn that was begun. Does nothing if the turn is gone."""
        with transaction(self._connection):
            if not self._number_of("SELECT count(*) FROM turns WHERE id = ? AND answer IS NULL", turn.id):
                return
            body = _dumped(turn.answer)
            position = self._number_of("SELECT count(*) FROM items WHERE turn_id = ?", turn.id)
            num_bytes = len(body) + self._put_items(turn.id, position, turn.outputs, is_output=True)
            self._connection.execute(
                "UPDATE turns SET answer = ?, used_at = ?, num_bytes = num_bytes + ? WHERE id = ?",
                (body, self._clock(), num_bytes, turn.id),
            )
            self._make_room(but=turn.id)

    def turn(self, turn_id: str) -> Turn:
        """One turn that has been answered.

        Raises:
            TurnMissing: there is none.
        """
        query = "SELECT previous_id, answer FROM turns WHERE id = ? AND answer IS NOT NULL"
        row = self._connection.execute(query, (turn_id,)).fetchone()
        if row is None:
            raise TurnMissing(turn_id)
        inputs, outputs = (
            self._items(f"{_ITEMS} AND is_output = ? ORDER BY position", turn_id, is_output) for is_output in (0, 1)
        )
        return Turn(turn_id, row[0], tuple(inputs), tuple(outputs), json.loads(row[1]))

    def conversation(self, turn_id: str, max_bytes: int) -> list[JSONObject]:
        """The items of this turn and all before it, the oldest first. They count as used now.

        Raises:
            TurnMissing: this turn or one before it is not there.
            TurnsTooLarge: they have more than `max_bytes`.
        """
        chain = self._connection.execute(_CHAIN, (turn_id,)).fetchall()
        missing = chain[-1][1] if chain else turn_id
        if missing is not None:
            raise TurnMissing(missing)
        ids = [row[0] for row in chain]
        size = sum(row[2] for row in chain) + sum(map(self._large_bytes, ids))
        if size > max_bytes:
            raise TurnsTooLarge(size)
        now = self._clock()
        with transaction(self._connection):
            self._connection.executemany("UPDATE turns SET used_at = ? WHERE id = ?", ((now, each) for each in ids))
        return [item for each in reversed(ids) for item in self._items(f"{_ITEMS} ORDER BY position", each)]

    def items(self, item_ids: Sequence[str]) -> dict[str, JSONObject]:
        """The items that are kept under these ids, of whichever turn."""
        query = "SELECT body, large_texts FROM items WHERE id = ? ORDER BY rowid DESC LIMIT 1"
        found = {item_id: self._items(query, item_id) for item_id in item_ids}
        return {item_id: items[0] for item_id, items in found.items() if items}

    def delete(self, turn_id: str) -> bool:
        """Delete a turn, and its bytes from the disk; whether it was there."""
        with transaction(self._connection):
            is_there = bool(self._number_of("SELECT count(*) FROM turns WHERE id = ?", turn_id))
            self._remove([turn_id])
        with suppress(sqlite3.OperationalError):  # another process reads the file now
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return is_there

    def num_bytes(self) -> int:
        """What all turns have together."""
        return self._number_of("SELECT total(num_bytes) FROM turns") + self._number_of(
            "SELECT total(num_bytes) FROM texts"
        )

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._connection.close()

    def _put_items(self, turn_id: str, position: int, items: Iterable[JSONObject], *, is_output: bool) -> int:
        """Add items to a turn, and long texts that are not there yet. Returns the bytes without those of such texts."""
        num_bytes = 0
        for place, item in enumerate(items, position):
            rest, taken = without_large_texts(item)
            for each in taken:
                text = each.text.encode(errors="surrogatepass")
                self._connection.execute("INSERT OR IGNORE INTO texts VALUES (?, ?, ?)", (each.digest, len(text), text))
                self._connection.execute("INSERT OR IGNORE INTO uses VALUES (?, ?)", (each.digest, turn_id))
            body, places = _dumped(rest), _dumped([[each.path, each.digest.hex()] for each in taken])
            row = (turn_id, place, is_output, item["id"], body, places)
            self._connection.execute("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)", row)
            num_bytes += len(body) + len(places)
        return num_bytes

    def _items(self, query: str, *values: Any) -> list[JSONObject]:
        """The items of these rows, each with its long texts."""
        items = []
        for body, places in self._connection.execute(query, values).fetchall():
            item = json.loads(body)
            put_back(item, {tuple(path): self._text(bytes.fromhex(digest)) for path, digest in json.loads(places)})
            items.append(item)
        return items

    def _text(self, digest: bytes) -> str:
        (body,) = self._connection.execute("SELECT body FROM texts WHERE digest = ?", (digest,)).fetchone()
        return str(body.decode(errors="surrogatepass"))

    def _large_bytes(self, turn_id: str) -> int:
        query = "SELECT total(num_bytes) FROM texts WHERE digest IN (SELECT digest FROM uses WHERE turn_id = ?)"
        return self._number_of(query, turn_id)

    def _make_room(self, *, but: str) -> None:
        """Delete what is too old and, from the one that was not used for the longest time on, what is too much."""
        query = "SELECT id FROM turns WHERE used_at < ? AND id <> ?"
        self._remove([row[0] for row in self._connection.execute(query, (self._clock() - self._ttl_s, but))])
        oldest = "SELECT id FROM turns WHERE id <> ? ORDER BY used_at, rowid LIMIT 1"
        while self.num_bytes() > self._max_bytes and (row := self._connection.execute(oldest, (but,)).fetchone()):
            self._remove([row[0]])

    def _remove(self, turn_ids: Sequence[str]) -> None:
        for turn_id in turn_ids:
            used = self._connection.execute("SELECT digest FROM uses WHERE turn_id = ?", (turn_id,)).fetchall()
            for table, column in (("turns", "id"), ("items", "turn_id"), ("uses", "turn_id")):
                self._connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (turn_id,))  # noqa: S608
            unused = "DELETE FROM texts WHERE digest = ? AND digest NOT IN (SELECT digest FROM uses)"
            self._connection.executemany(unused, used)

    def _number_of(self, query: str, *values: Any) -> int:
        return int(self._connection.execute(query, values).fetchone()[0])


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")
