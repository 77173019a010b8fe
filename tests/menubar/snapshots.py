"""Servers in the states that a menu has to show."""

from __future__ import annotations

from typing import Any

from periscope.menubar import View
from periscope.remote import Snapshot

URL = "http://127.0.0.1:7374"
GB = 10**9


def model(name: str, **facts: Any) -> dict[str, Any]:
    return {"id": name, "kind": "text", "state": "unloaded", **facts}


def view(
    *models: dict[str, Any],
    state: str = "ready",
    requests: tuple[dict[str, Any], ...] = (),
    tokens_per_s: float = 0.0,
    problems: tuple[str, ...] = (),
    captions: tuple[str, ...] = (),
    page: str | None = None,
    has_agent: bool = False,
    **others: Any,
) -> View:
    snapshot = {
        "schema_version": 1,
        "server": {"state": state, "version": "0.1.0", "problems": problems, "tokens_per_s": tokens_per_s},
        "memory": {"budget_bytes": 20 * GB, "held_bytes": sum(each.get("held_bytes", 0) for each in models)},
        "models": models,
        "requests": requests,
        **others,
    }
    return View(Snapshot.model_validate(snapshot), URL, captions, page, has_agent)


BIG = model("big", default=True, state="ready", held_bytes=9 * GB, active_requests=1)
EYES = model("eyes", kind="captioner", state="ready", held_bytes=2 * GB)
SMALL = model("small")
VIEWS = {
    "not_running": View(),
    "not_running_with_agent": View(has_agent=True),
    "idle": view({**BIG, "pinned": True}, SMALL, EYES, has_agent=True, page=f"{URL}/"),
    "loading": view({**BIG, "state": "loading", "load": {"done_bytes": 3, "total_bytes": 8, "progress": 0.375}}, SMALL),
    "busy": view(
        {**BIG, "queued": 1},
        SMALL,
        EYES,
        tokens_per_s=41.4,
        requests=(
            {"id": "a", "model": "big", "status": "generating", "age_s": 65.0, "num_images": 2},
            {"id": "b", "model": "big", "status": "waiting_for_model", "age_s": 3.2, "num_images": 0},
        ),
        captions=("A red circle | with a pipe\nand two lines.", "--- a caption like a separator", "x" * 200),
    ),
    "fetching": view(
        BIG,
        host={"pressure": "critical"},
        downloads=(
            {"id": "1", "model": "a/one", "state": "downloading", "total_bytes": 4 * GB, "completed_bytes": GB}
            | {"bytes_per_s": 12_345_678.9},
            {"id": "2", "model": "a/two", "state": "failed", "error": "the disk is full"},
            {"id": "3", "model": "a/three", "state": "completed", "total_bytes": GB, "completed_bytes": GB},
        ),
    ),
    "failed": view(
        {**BIG, "state": "failed", "held_bytes": 0, "error": "it needs 44.0 GB, 20.0 GB are free"},
        SMALL,
        state="failed",
        problems=("big: it needs 44.0 GB, 20.0 GB are free", "The last five starts did not last."),
    ),
}
