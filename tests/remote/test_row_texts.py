"""Rows of a server's status in a few words."""

from __future__ import annotations

import pytest

from periscope.remote import DownloadRow, ModelRow
from periscope.remote.control import HostRow, LoadRow, ToolServerRow
from periscope.remote.row_texts import download_text, host_text, state_text, tool_server_text

GB = 10**9


def test_a_load_is_told_with_how_far_it_has_come() -> None:
    """Where that is known."""
    assert state_text(ModelRow(id="m", state="ready")) == "ready"
    assert state_text(ModelRow(id="m", state="loading", load=LoadRow(progress=0.375))) == "loading 38%"
    assert state_text(ModelRow(id="m", state="loading", load=LoadRow())) == "loading"


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"state": "queued"}, "a/b: queued"),
        (
            {"state": "downloading", "total_bytes": 4 * GB, "completed_bytes": GB, "bytes_per_s": 12_345_678.9},
            "a/b: downloading, 25% of 4.0 GB, 12.3 MB/s",
        ),
        (
            {"state": "paused", "total_bytes": 4 * GB, "completed_bytes": GB, "bytes_per_s": 5.0},
            "a/b: paused, 25% of 4.0 GB",
        ),
        ({"state": "completed", "total_bytes": 4 * GB, "completed_bytes": 4 * GB}, "a/b: completed"),
        ({"state": "failed", "error": "the disk is full"}, "a/b: failed: the disk is full"),
    ],
)
def test_a_download_is_told_with_its_bytes(row: dict[str, object], text: str) -> None:
    """As far as they matter in its state."""
    assert download_text(DownloadRow.model_validate({"id": "1", "model": "a/b", **row})) == text


def test_of_the_machine_only_what_is_known_is_told() -> None:
    """On Linux that is little."""
    assert host_text(HostRow()) == ""
    assert host_text(HostRow(pressure="warning", footprint_bytes=GB, kept_awake=True)) == (
        "memory pressure warning, 1.0 GB counted against the server, kept awake"
    )


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"state": "idle"}, "web: idle"),
        ({"state": "ready", "num_tools": 3}, "web: ready, 3 tools"),
        ({"state": "down", "problem": "its program has ended"}, "web: down: its program has ended"),
    ],
)
def test_a_tool_server_says_why_it_cannot_be_reached(row: dict[str, object], text: str) -> None:
    """What the status has of it, in a line."""
    assert tool_server_text(ToolServerRow.model_validate({"name": "web", **row})) == text
