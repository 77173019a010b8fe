"""The server's status, core to wire: one shape for the snapshot and for what changes after it. Pure."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from periscope.api.replies import json_number
from periscope.status import (
    ConfigDelta,
    ConfigRefusal,
    DownloadDelta,
    ModelDelta,
    ModelStateDelta,
    RequestDelta,
    RequestGone,
    ServerDelta,
    ServerStatus,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from periscope.core import JSONObject, Waiting
    from periscope.status import DownloadStatus, ModelStatus, RequestStatus, StatusEvent

#: Increased when a field is removed or changes its meaning, not when one is added.
SCHEMA_VERSION = 1


def encode_status(status: ServerStatus) -> JSONObject:
    """The snapshot of the whole server, as `GET /api/status` tells it."""
    return {
        "schema_version": SCHEMA_VERSION,
        **encode_server(status),
        "models": [encode_model(model) for model in status.models],
        **encode_requests(status.requests),
        **encode_downloads(status.downloads),
        "mcp_servers": [asdict(server) for server in status.tool_servers],
    }


def encode_server(status: ServerStatus) -> JSONObject:
    """What is told of the server itself, as it also stands in the snapshot."""
    return {
        "server": {
            "state": status.state,
            **asdict(status.identity),
            "pid": status.pid,
            "uptime_s": json_number(status.uptime_s),
            "problems": list(status.problems),
            "num_finished": status.num_finished,
            "tokens_per_s": json_number(status.tokens_per_s),
        },
        "memory": asdict(status.memory),
        "host": {
            "pressure": status.host.pressure,
            "thermal": status.host.thermal,
            "footprint_bytes": status.host.footprint_bytes,
            "kept_awake": status.host.is_kept_awake,
        },
    }


def encode_requests(requests: Sequence[RequestStatus]) -> JSONObject:
    """The list of requests, as in the snapshot."""
    return {"requests": [encode_request(request) for request in requests]}


def encode_downloads(downloads: Sequence[DownloadStatus]) -> JSONObject:
    """The list, as it also stands in the snapshot."""
    return {"downloads": [encode_download(download) for download in downloads]}


def encode_download(download: DownloadStatus) -> JSONObject:
    """A download as one row of the snapshot."""
    times = {name: json_number(getattr(download, name)) for name in ("bytes_per_s", "eta_s", "created_at")}
    return asdict(download) | times


def encode_model(model: ModelStatus) -> JSONObject:
    """A model as one row of the snapshot."""
    return {
        "id": model.name,
        "kind": model.kind,
        "state": model.state,
        "aliases": list(model.aliases),
        "default": model.is_default,
        "pinned": model.is_pinned,
        "active_requests": model.num_running,
        "queued": model.num_waiting,
        "max_active": model.max_running,
        "kv_bits": model.kv_bits,
        "held_bytes": model.held_bytes,
        "weights_bytes": model.weights_bytes,
        "prompt_cache": {
            "memory_bytes": model.prompt_cache_bytes,
            "disk_bytes": model.prompt_disk_bytes,
            "written_bytes": model.prompt_disk_written_bytes,
        },
        "drafts": _drafts(model),
        "load": _load(model),
        "idle_s": json_number(model.idle_s),
        "ttl_s": json_number(model.ttl_s),
        "unload_in_s": json_number(model.unload_in_s),
        "error": model.error,
        "retry_in_s": json_number(model.retry_in_s),
    }


def _drafts(model: ModelStatus) -> JSONObject | None:
    """What became of drafted tokens since the load; None if there were none."""
    accepted, rejected = model.num_accepted_tokens, model.num_rejected_tokens
    if not accepted + rejected:
        return None
    return {"accepted": accepted, "rejected": rejected, "acceptance": json_number(accepted / (accepted + rejected))}


def _load(model: ModelStatus) -> JSONObject | None:
    done, total = model.load_done_bytes, model.load_total_bytes
    if done is None and total is None:
        return None
    progress = min(max(done, 0), total) / total if done is not None and total is not None and total > 0 else None
    return {
        "done_bytes": done,
        "total_bytes": total,
        "progress": json_number(progress),
        "eta_s": json_number(model.load_eta_s),
    }


def encode_request(request: RequestStatus) -> JSONObject:
    """A request as one row of the snapshot."""
    return {
        "id": request.id,
        "model": request.model,
        "status": request.status,
        "position": request.position,
        "progress": json_number(request.progress),
        "eta_s": json_number(request.eta_s),
        "age_s": json_number(request.age_s),
        "thinking": request.is_thinking,
        "num_images": request.num_images,
        "done": request.num_done,
        "total": request.num_total,
        "key": request.key,
    }


def encode_event(event: StatusEvent) -> tuple[str, JSONObject]:
    """An event's name and data. A change comes with its whole row, so that readers replace what they had."""
    data: JSONObject
    match event:
        case ServerStatus():
            name, data = "snapshot", encode_status(event)
        case ServerDelta(status):
            name, data = "server.changed", encode_server(status)
        case ConfigDelta(changes):
            name, data = "config.changed", asdict(changes)
        case ConfigRefusal():
            name, data = "config.rejected", asdict(event)
        case ModelStateDelta(old, new, reason, model):
            name, data = "model.state", {"from": old, "to": new, "reason": reason, **encode_model(model)}
        case ModelDelta(model):
            name, data = "model.changed", encode_model(model)
        case DownloadDelta(download):
            name, data = "download.changed", encode_download(download)
        case RequestDelta(request):
            name, data = "request.changed", encode_request(request)
        case RequestGone():
            name, data = "request.end", asdict(event)
    return name, data


def encode_wait(waiting: Waiting) -> JSONObject:
    """What a request waits for, as its stream says it; rounded so that not every loaded byte makes a chunk."""
    eta_s = json_number(waiting.eta_s)
    told = {
        "status": waiting.status,
        "model": waiting.model or None,
        "position": waiting.position,
        "progress": json_number(waiting.progress, 2),
        "eta_s": None if eta_s is None else math.ceil(eta_s),
        "done": waiting.num_done,
        "total": waiting.num_total,
    }
    return {key: value for key, value in told.items() if value is not None}
