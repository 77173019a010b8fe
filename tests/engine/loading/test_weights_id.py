"""`weights_id`: other weights are never taken for those that a caption was made with."""

from __future__ import annotations

import os
from pathlib import Path

from periscope.engine.loading.weights_id import weights_id


def test_a_snapshot_of_the_hub_is_its_commit(tmp_path: Path) -> None:
    """However often it is removed and fetched again."""
    folder = tmp_path / "models--a--b" / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    assert weights_id(folder) == "0123abcd"


def test_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    """It stays the same as long as they do; a file that is replaced, also by one as long, makes it another."""
    weights = tmp_path / "model.safetensors"
    weights.write_text("one")
    (tmp_path / "config.json").write_text("{}")
    before = weights_id(tmp_path)
    assert weights_id(tmp_path) == before
    facts = weights.stat()
    weights.write_text("two")
    os.utime(weights, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    replaced = weights_id(tmp_path)
    (tmp_path / "config.json").rename(tmp_path / "old.json")
    assert len({before, replaced, weights_id(tmp_path)}) == 3
