"""CaptionFile: what it gives back, who may share it, and which files it leaves alone."""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.captions.caption import Caption
from periscope.captions.file import FORMAT, SCHEMA_VERSION, CaptionFile
from periscope.captions.kept import KeptCaption, num_bytes_of
from periscope.sqlite_file import FileNotUsable, open_in_memory
from tests.captions.keeping import kept, loaded, query, wrote


def test_captions_come_back_as_they_were(tmp_path: Path) -> None:
    """Every field, in the order of use."""
    path = tmp_path / "captions.sqlite3"
    first, second = kept("a", at=1.5), KeptCaption("b", Caption("line\nline", 7, 90), created_at=0.25, used_at=9.125)
    wrote(path, second, first)
    file = CaptionFile.open(path)
    assert file.load(2**20) == [second, first]
    assert file.totals().num_bytes == first.num_bytes + second.num_bytes
    file.close()


@given(st.dictionaries(st.text(st.characters(codec="ascii"), max_size=9), st.text(max_size=99), max_size=9))
def test_any_text_comes_back(texts: dict[str, str]) -> None:
    """Half characters, NULs and line breaks of any kind, too."""
    file = CaptionFile(open_in_memory(FORMAT))
    texts["half"] = "\ud800 \0"
    file.apply({key: kept(key, text) for key, text in texts.items()})
    expected = {key: kept(key, text).caption.text for key, text in texts.items()}
    assert {entry.key: entry.caption.text for entry in file.load(2**20)} == expected
    file.close()


def test_changes_are_made_together(tmp_path: Path) -> None:
    """A caption, a time of use, a deletion and a flush each do what they say; a change of what is gone does nothing."""
    path = tmp_path / "captions.sqlite3"
    wrote(path, kept("a", at=1.0), kept("b", at=2.0), kept("c", at=3.0))
    file = CaptionFile.open(path)
    file.apply({"a": 4.0, "b": None, "d": kept("d", at=3.5), "gone": 5.0})
    assert [entry.key for entry in file.load(2**20)] == ["a", "d", "c"]
    file.apply({"e": kept("e")}, clears=True)
    assert [entry.key for entry in file.load(2**20)] == ["e"]
    file.close()


def test_what_does_not_fit_any_more_is_deleted_at_the_load(tmp_path: Path) -> None:
    """A smaller `max_bytes` holds for the file, too; of captions used at one moment some stay."""
    path = tmp_path / "captions.sqlite3"
    wrote(path, *(kept(key, "x" * 10, at=at) for key, at in zip("abcdef", (1.0, 2.0, 2.0, 2.0, 3.0, 4.0), strict=True)))
    few = loaded(path, max_bytes=3 * num_bytes_of(1, 10))
    assert (len(few), set(few) >= {"e", "f"}, "a" in few) == (3, True, False)
    assert loaded(path) == few


def test_a_flush_leaves_no_caption_on_the_disk(tmp_path: Path) -> None:
    """The bytes are gone, not only the rows: captions are private."""
    path = tmp_path / "captions.sqlite3"
    file = CaptionFile.open(path)
    file.apply({str(n): kept(str(n), "a secret " * 50) for n in range(200)})
    file.apply({}, clears=True)
    on_disk = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert b"secret" not in on_disk
    assert path.stat().st_size < 50_000
    file.close()


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    """The file, its log and the folder made for it, whatever the umask; a wider file of ours is narrowed."""
    path = tmp_path / "periscope" / "captions.sqlite3"
    umask = os.umask(0)
    try:
        file = CaptionFile.open(path)
        file.apply({"a": kept("a")})
    finally:
        os.umask(umask)
    assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700
    file.close()
    path.chmod(0o644)
    CaptionFile.open(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def damaged(path: Path) -> None:
    wrote(path, *(kept(str(n), "x" * 500) for n in range(100)))
    content = bytearray(path.read_bytes())
    content[8192:12288] = b"\xff" * 4096
    path.write_bytes(content)


def text(path: Path) -> None:
    path.write_text("Dear diary, this is no database at all. " * 50)


def cut_off(path: Path) -> None:
    wrote(path, *(kept(str(n), "x" * 500) for n in range(100)))
    path.write_bytes(path.read_bytes()[:9000])


def foreign(path: Path) -> None:
    query(path, "CREATE TABLE bookmarks (url)")


def newer(path: Path) -> None:
    wrote(path, kept("a"))
    query(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


def without_its_table(path: Path) -> None:
    wrote(path, kept("a"))
    query(path, "ALTER TABLE captions RENAME COLUMN text TO words")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (damaged, "damaged"),
        (text, "no SQLite file"),
        (cut_off, "damaged"),
        (foreign, "another program"),
        (newer, "version 2"),
        (without_its_table, "damaged"),
    ],
)
def test_a_file_that_cannot_be_used_is_set_aside(spoil, why: str, tmp_path: Path, caplog) -> None:
    """One line in the log; the file is kept, byte for byte, beside the new one. Nothing is ever overwritten."""
    path = tmp_path / "captions.sqlite3"
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(FileNotUsable, match=why):
        CaptionFile.open(path)
    (tmp_path / "captions.sqlite3.set-aside-1").write_text("of an earlier time")
    with caplog.at_level(logging.INFO):
        file = CaptionFile.open_or_replace(path)
    file.apply({"b": kept("b")})
    file.close()
    assert [why in record.message for record in caplog.records] == [True]
    assert len(caplog.records[0].message.splitlines()) == 1
    assert "set-aside-2" in caplog.text
    assert (tmp_path / "captions.sqlite3.set-aside-2").read_bytes() == before
    assert (tmp_path / "captions.sqlite3.set-aside-1").read_text() == "of an earlier time"
    assert loaded(path) == {"b": "about b"}


def test_rows_that_only_damage_can_have_made_are_passed_over(tmp_path: Path) -> None:
    """The others are given out."""
    path = tmp_path / "captions.sqlite3"
    wrote(path, kept("a"), kept("b"), kept("c"))
    query(path, "UPDATE captions SET text = x'ff' WHERE key = 'a'")
    query(path, "UPDATE captions SET num_tokens = 'many' WHERE key = 'b'")
    assert loaded(path) == {"c": "about c"}


def test_openers_that_make_the_file_at_the_same_moment_share_it(tmp_path: Path) -> None:
    """None of them finds it locked, or half made and so no cache at all. Twenty files, three openers each."""
    with ThreadPoolExecutor(3) as threads:
        for number in range(20):
            path, ready = tmp_path / f"{number}" / "captions.sqlite3", threading.Barrier(3)

            def opened(path: Path = path, ready: threading.Barrier = ready) -> None:
                ready.wait()
                CaptionFile.open_or_replace(path).close()

            for opening in [threads.submit(opened) for _ in range(3)]:
                opening.result()
            assert not list(path.parent.glob("*set-aside*"))


def test_two_openers_share_a_file(tmp_path: Path) -> None:
    """Both write, none loses anything, and whoever starts later finds the captions of both."""
    path = tmp_path / "captions.sqlite3"
    one, two = CaptionFile.open(path), CaptionFile.open(path)
    for n in range(20):
        one.apply({f"one {n}": kept(f"one {n}")})
        two.apply({f"two {n}": kept(f"two {n}"), "both": kept("both", f"two {n}")})
    one.close()
    two.apply({"one 0": None})
    two.close()
    assert len(loaded(path)) == 40
    assert loaded(path)["both"] == "two 19"
