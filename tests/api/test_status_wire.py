"""The server's status on the wire: field names are a promise to menubars and scripts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.api.replies import dump_json
from periscope.api.status_wire import encode_event, encode_model, encode_status
from periscope.status import (
    DownloadDelta,
    ModelDelta,
    ModelStateDelta,
    ModelStatus,
    RequestDelta,
    RequestGone,
    ServerDelta,
    ServerStatus,
    StatusEvent,
)
from tests.api.fake_control import DOWNLOAD, ROW, SNAPSHOT, WAITER

ROW_WIRE: dict[str, Any] = {
    "id": "org/text",
    "kind": "text",
    "state": "ready",
    "aliases": ["small"],
    "default": True,
    "pinned": False,
    "active_requests": 0,
    "queued": 0,
    "max_active": 16,
    "kv_bits": None,
    "held_bytes": 0,
    "weights_bytes": None,
    "prompt_cache": {"memory_bytes": 0, "disk_bytes": 0, "written_bytes": 0},
    "drafts": None,
    "load": None,
    "idle_s": None,
    "ttl_s": None,
    "unload_in_s": None,
    "error": None,
    "retry_in_s": None,
}
WAITER_WIRE = {
    "id": "chatcmpl-1",
    "model": "org/text",
    "status": "queued",
    "position": 2,
    "progress": None,
    "eta_s": None,
    "age_s": 1.5,
    "thinking": False,
    "num_images": 0,
    "done": None,
    "total": None,
    "key": None,
}


DOWNLOAD_WIRE = {
    "id": "dl-1",
    "model": "org/Text-4bit",
    "revision": None,
    "state": "downloading",
    "total_bytes": 1000,
    "completed_bytes": 400,
    "bytes_per_s": 60.123,
    "eta_s": 10.0,
    "warning": None,
    "error": None,
    "created_at": 1764383836.25,
}


def test_the_snapshot_has_these_fields() -> None:
    """Exactly these, whatever is known: what is not known is null and not missing."""
    assert encode_status(SNAPSHOT) == {
        "schema_version": 1,
        "server": {
            "state": "ready",
            "version": "1.2.3",
            "instance_id": "9f3c",
            "supervisor": "launchd",
            "pid": 7,
            "uptime_s": 60.0,
            "problems": [],
            "num_finished": 3,
            "tokens_per_s": 12.5,
        },
        "memory": {"budget_bytes": 100, "held_bytes": 40, "active_bytes": 30, "cache_bytes": 5, "peak_bytes": 50},
        "host": {"pressure": "normal", "thermal": "nominal", "footprint_bytes": 60, "kept_awake": True},
        "models": [ROW_WIRE],
        "requests": [WAITER_WIRE],
        "downloads": [DOWNLOAD_WIRE],
        "mcp_servers": [],
    }


@pytest.mark.parametrize(
    ("changes", "load"),
    [
        ({"load_done_bytes": 1, "load_total_bytes": 3}, (1, 3, 0.333, None)),
        ({"load_done_bytes": 1, "load_total_bytes": 2, "load_eta_s": 1.23456}, (1, 2, 0.5, 1.235)),
        ({"load_done_bytes": 5, "load_total_bytes": 4}, (5, 4, 1.0, None)),
        ({"load_done_bytes": 0, "load_total_bytes": 0}, (0, 0, None, None)),
        ({"load_done_bytes": 7}, (7, None, None, None)),
        ({"load_total_bytes": 7}, (None, 7, None, None)),
    ],
)
def test_a_load_is_told_while_it_runs(changes: dict[str, Any], load: tuple[float | None, ...]) -> None:
    """Bytes done of all, the share of it from 0 to 1, and how long still; of no load at all there is null."""
    told = encode_model(replace(ROW, **changes))["load"]
    assert told == dict(zip(("done_bytes", "total_bytes", "progress", "eta_s"), load, strict=True))


def test_seconds_are_rounded() -> None:
    """Milliseconds are enough for anybody, and diffs of two snapshots stay readable."""
    row = encode_model(replace(ROW, num_accepted_tokens=2, num_rejected_tokens=1))
    assert row["drafts"] == {"accepted": 2, "rejected": 1, "acceptance": 0.667}
    row = encode_model(replace(ROW, idle_s=1.23456, ttl_s=60, unload_in_s=58.76544, retry_in_s=0.0004))
    assert (row["idle_s"], row["ttl_s"], row["unload_in_s"], row["retry_in_s"]) == (1.235, 60, 58.765, 0.0)


@pytest.mark.parametrize(
    ("event", "name", "data"),
    [
        (SNAPSHOT, "snapshot", encode_status(SNAPSHOT)),
        (
            ServerDelta(SNAPSHOT),
            "server.changed",
            {name: encode_status(SNAPSHOT)[name] for name in ("server", "memory", "host")},
        ),
        (
            ModelStateDelta("loading", "ready", None, ROW),
            "model.state",
            {"from": "loading", "to": "ready", "reason": None, **ROW_WIRE},
        ),
        (ModelDelta(ROW), "model.changed", ROW_WIRE),
        (DownloadDelta(DOWNLOAD), "download.changed", DOWNLOAD_WIRE),
        (RequestDelta(WAITER), "request.changed", WAITER_WIRE),
        (RequestGone("chatcmpl-1", "cancelled"), "request.end", {"id": "chatcmpl-1", "outcome": "cancelled"}),
    ],
)
def test_events_carry_the_same_rows(event: StatusEvent, name: str, data: dict[str, Any]) -> None:
    """A reader replaces the row of this id with what it gets; it merges nothing."""
    assert encode_event(event) == (name, data)


@given(st.builds(ServerStatus))
def test_every_status_is_json(status: ServerStatus) -> None:
    """Any numbers, infinite ones too, and any text: strict JSON on one line, one row for each model and request."""
    wire = dump_json(encode_status(status))
    told = json.loads(wire, parse_constant=pytest.fail)
    assert b"\n" not in wire
    assert [row["id"] for row in told["models"]] == [model.name for model in status.models]
    assert [row["id"] for row in told["requests"]] == [request.id for request in status.requests]


@given(st.builds(ModelStatus))
def test_progress_is_a_share(model: ModelStatus) -> None:
    """Whatever was counted, a bar drawn of it stays in its frame."""
    load = encode_model(model)["load"]
    assert load is None or load["progress"] is None or 0 <= load["progress"] <= 1
