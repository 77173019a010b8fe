"""TurnFile: what it gives back, what makes room, and what is gone from the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.turns.file import TurnFile
from periscope.turns.large_texts import MIN_CHARS, put_back, without_large_texts
from periscope.turns.turn import Turn, TurnMissing, TurnsTooLarge

PICTURE = "data:image/png;base64," + "A" * MIN_CHARS
LEAF = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(PICTURE) | st.just("é" * MIN_CHARS)
JSON: st.SearchStrategy[Any] = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


OPEN: list[TurnFile] = []


@pytest.fixture(autouse=True)
def close_files() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def opened(
    path: Path | None = None, *, max_bytes: int = 2**30, ttl_s: float = 1e6, clock: Clock | None = None
) -> TurnFile:
    OPEN.append(TurnFile.open(path, max_bytes=max_bytes, ttl_s=ttl_s, clock=clock or Clock()))
    return OPEN[-1]


def item(item_id: str, text: str = "Hello") -> dict[str, Any]:
    return {"id": item_id, "type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def keep(file: TurnFile, turn_id: str, previous_id: str | None = None, text: str = "Hello") -> Turn:
    """A turn with one item in and one out."""
    turn = Turn(turn_id, previous_id, (item(f"in_{turn_id}", text),), (item(f"out_{turn_id}"),), {"id": turn_id})
    file.begin(turn)
    file.finish(turn)
    return turn


@given(JSON)
def test_long_texts_come_back_into_their_places(value: Any) -> None:
    """Whatever else stands in an item, and however often the same text does."""
    whole = {"content": value}
    rest, taken = without_large_texts(whole)
    assert PICTURE not in json.dumps(rest)
    put_back(rest, {each.path: each.text for each in taken})
    assert rest == whole


def test_a_turn_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    """By a process that opens the file later, with half characters and pictures."""
    file = opened(tmp_path / "turns.sqlite3")
    turn = keep(file, "a", text=f"\ud800 {PICTURE}")
    file.close()
    assert opened(tmp_path / "turns.sqlite3").turn("a") == turn


def test_a_conversation_is_all_turns_up_to_the_one_asked_for() -> None:
    """A turn may be gone on from twice; each branch has the turns before it, the oldest first."""
    file = opened()
    keep(file, "a")
    keep(file, "b", "a")
    keep(file, "c", "a")
    for branch in ("b", "c"):
        ids = [each["id"] for each in file.conversation(branch, 2**20)]
        assert ids == ["in_a", "out_a", f"in_{branch}", f"out_{branch}"]


def test_what_is_not_answered_yet_is_not_gone_on_from() -> None:
    """Its answer is missing. It is dropped as a whole."""
    file = opened()
    file.begin(Turn("a", None, (item("in_a"),)))
    for read in (file.turn, lambda turn_id: file.conversation(turn_id, 2**20)):
        with pytest.raises(TurnMissing):
            read("a")
    file.delete("a")
    assert file.items(["in_a"]) == {}
    file.finish(Turn("a", outputs=(item("out_a"),), answer={}))
    assert file.num_bytes() == 0


def test_a_missing_turn_is_named_wherever_it_is_missing() -> None:
    """The one that was asked for, or the deleted one before it."""
    file = opened()
    keep(file, "a")
    keep(file, "b", "a")
    assert file.delete("a")
    assert not file.delete("a")
    with pytest.raises(TurnMissing) as missing:
        file.conversation("b", 2**20)
    assert missing.value.id == "a"


def test_a_conversation_that_is_too_large_is_not_read() -> None:
    """Its pictures count, too."""
    file = opened()
    keep(file, "a", text=PICTURE)
    with pytest.raises(TurnsTooLarge) as error:
        file.conversation("a", len(PICTURE))
    assert error.value.num_bytes > len(PICTURE)


def test_a_picture_in_several_turns_is_kept_once() -> None:
    """Clients that always send the whole conversation would fill the disk. It goes with the last turn that has it."""
    file = opened()
    keep(file, "a", text=PICTURE)
    one = file.num_bytes()
    keep(file, "b", text=PICTURE)
    assert file.num_bytes() - one < len(PICTURE)
    file.delete("a")
    assert file.turn("b").inputs[0]["content"][0]["text"] == PICTURE
    file.delete("b")
    assert file.num_bytes() == 0


def test_what_was_not_used_for_long_makes_room() -> None:
    """A conversation stays as long as it is gone on from, its first turns included; the bound holds at any time."""
    file = opened(max_bytes=20_000)
    keep(file, "old")
    keep(file, "a")
    for number in range(30):
        keep(file, f"other{number}", text=f"{number}" * MIN_CHARS)
        assert file.conversation("a", 2**20)
        assert file.num_bytes() <= 20_000
    with pytest.raises(TurnMissing):
        file.turn("old")


def test_what_is_too_old_is_dropped() -> None:
    """When the next turn is kept."""
    clock = Clock()
    file = opened(ttl_s=100, clock=clock)
    keep(file, "a")
    clock.now += 200
    keep(file, "b")
    with pytest.raises(TurnMissing):
        file.turn("a")
    assert file.turn("b")


def test_the_newest_item_of_an_id_is_found() -> None:
    """Clients name items of answers, which may stand in several turns."""
    file = opened()
    keep(file, "a", text="first")
    file.begin(Turn("b", None, (item("in_a", "second"),)))
    found = file.items(["in_a", "out_a", "none"])
    assert set(found) == {"in_a", "out_a"}
    assert found["in_a"] == item("in_a", "second")


def test_a_deleted_turn_is_gone_from_the_disk(tmp_path: Path) -> None:
    """The bytes are gone, not only the rows: conversations are private."""
    file = opened(tmp_path / "turns.sqlite3")
    keep(file, "a", text="a secret " * 50)
    keep(file, "b", text="a secret " * 5000)
    file.delete("a")
    file.delete("b")
    assert b"secret" not in b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {0o600}
    file.close()
