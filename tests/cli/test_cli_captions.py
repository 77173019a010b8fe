"""`periscope captions` without a server: they open the file (with one: tests/e2e/test_restart.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from periscope.captions.file import CaptionFile
from tests.captions.keeping import kept, loaded, wrote
from tests.cli.process import run_command

CONFIG = """\
server: {port: 1}
caption_cache: {path: kept/captions.sqlite3}
models:
- name: demo
  local_path: embedded:text
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "models.yaml"
    file.write_text(CONFIG)
    return file


def captions_of(config: Path) -> Path:
    return config.parent / "kept" / "captions.sqlite3"


def run(config: Path, *arguments: str) -> tuple[int, str, str]:
    ended = run_command("captions", *arguments, "--config", str(config))
    return ended.returncode, ended.stdout, ended.stderr


def test_the_file_is_shown_and_flushed(config: Path) -> None:
    """The captions used last come first, those of one picture by its digest; a flush empties the file, once."""
    path = captions_of(config)
    entries = [kept("caption/ab1/0", "A red circle.", 1.0), kept("caption/cd2/0", "A blue square.", 2.0)]
    wrote(path, *entries)
    stats = json.loads(run(config, "stats", "--json")[1])
    assert stats == {
        "schema_version": 1,
        "server": None,
        "num_entries": 2,
        "num_bytes": sum(entry.num_bytes for entry in entries),
        "file": {"path": str(path), "state": "unopened"},
    }
    shown = json.loads(run(config, "show", "--json")[1])["captions"]
    assert [each["text"] for each in shown] == ["A blue square.", "A red circle."]
    code, shown_as_text, _ = run(config, "show", "ab1")
    assert (code, "A red circle.\n" in shown_as_text, "blue" in shown_as_text) == (0, True, False)
    assert run(config, "flush") == (0, "Dropped 2 captions.\n", "")
    assert run(config, "flush")[1] == "Dropped 0 captions.\n"
    assert loaded(path) == {}


def test_a_flush_reaches_a_file_that_another_process_has_open(config: Path) -> None:
    """A server that the command does not find goes on with its captions in memory, and with the same file."""
    path = captions_of(config)
    wrote(path, kept("a"))
    server = CaptionFile.open(path)
    assert run(config, "flush")[0] == 0
    server.apply({"a": 9.0, "b": kept("b")})
    server.close()
    assert loaded(path) == {"b": "about b"}


def test_looking_makes_no_file_and_sets_none_aside(config: Path) -> None:
    """Where nothing is kept yet the answer is nothing; what is no caption cache is left alone, with exit code 1."""
    path = captions_of(config)
    code, shown, _ = run(config, "stats")
    assert (code, f"{path} (missing)" in shown) == (0, True)
    assert not path.parent.exists()
    path.parent.mkdir()
    path.write_text("not a database " * 100)
    code, shown, complaint = run(config, "flush")
    assert (code, shown) == (1, "")
    assert "no SQLite file" in complaint
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_server_that_is_named_and_is_not_there_is_no_file(config: Path) -> None:
    """Whoever names a server means it: exit code 3, and nothing is flushed."""
    wrote(captions_of(config), kept("a"))
    assert run(config, "flush", "--url", "http://127.0.0.1:1")[0] == 3
    assert loaded(captions_of(config)) == {"a": "about a"}
