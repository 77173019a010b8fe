"""TurnStore: nothing that goes wrong on the disk reaches a request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from periscope.turns import Turn, TurnMissing, TurnStore
from periscope.turns.store import MAX_BYTES_IN_MEMORY, StoreState

TURN = Turn("a", None, ({"id": "in_a"},), ({"id": "out_a"},), {"id": "a"})


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def keep(store: TurnStore) -> None:
    store.begin(TURN)
    store.finish(TURN)


@in_loop
async def test_what_was_handed_over_is_read_at_once_and_after_a_restart(tmp_path: Path) -> None:
    """The client may go on from a response the moment it has it."""
    store = TurnStore(tmp_path / "state" / "turns.sqlite3")
    keep(store)
    assert await store.turn("a") == TURN
    assert store.state is StoreState.ON_DISK
    await store.close()
    await store.close()
    store = TurnStore(tmp_path / "state" / "turns.sqlite3")
    assert [item["id"] for item in await store.conversation("a", 2**20)] == ["in_a", "out_a"]
    assert await store.delete("a")
    await store.close()


@in_loop
async def test_a_damaged_file_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The server goes on with a new one, and says where the old one is."""
    path = tmp_path / "turns.sqlite3"
    path.write_bytes(b"no SQLite file at all" * 100)
    store = TurnStore(path)
    keep(store)
    assert await store.turn("a") == TURN
    await store.close()
    assert (tmp_path / "turns.sqlite3.set-aside-1").exists()
    assert "kept as turns.sqlite3.set-aside-1" in caplog.text


@in_loop
async def test_without_a_place_on_the_disk_turns_stay_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning, and conversations go on until a restart."""
    (tmp_path / "state").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        store = TurnStore(tmp_path / "state" / "turns.sqlite3")
        keep(store)
        assert await store.turn("a") == TURN
        assert await store.items(["out_a"]) == {"out_a": {"id": "out_a"}}
    assert store.state is StoreState.IN_MEMORY
    assert len(caplog.records) == 1
    await store.close()


@in_loop
async def test_a_response_that_is_dropped_or_comes_after_the_end_is_not_kept() -> None:
    """Neither raises: the answer was given all the same."""
    store = TurnStore()
    store.begin(TURN)
    store.drop("a")
    with pytest.raises(TurnMissing):
        await store.turn("a")
    assert store.max_turn_bytes < MAX_BYTES_IN_MEMORY
    await store.close()
    keep(store)
    with pytest.raises(TurnMissing):
        await store.conversation("a", 2**20)
