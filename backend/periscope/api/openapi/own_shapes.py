"""The shapes of the JSON answers of Periscope's own routes, for the OpenAPI document alone. See `shapes.py`."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic reads that of typing from Python 3.12 on

from periscope.api.openapi.shapes import OpenAIErrorFacts
from periscope.core import CaptionedImage, DescribedFile
from periscope.log_tail import LogLine
from periscope.status import DownloadStatus, MemoryStatus, ToolServerStatus


class Root(TypedDict):
    name: Literal["periscope"]
    version: str


class JSONRPCFault(TypedDict):
    code: int
    message: str
    data: NotRequired[Any]


class JSONRPCReply(TypedDict):
    jsonrpc: Literal["2.0"]
    id: str | int
    result: NotRequired[dict[str, Any]]
    error: NotRequired[JSONRPCFault]


class JSONRPCError(TypedDict):
    jsonrpc: Literal["2.0"]
    id: str | int | None
    error: JSONRPCFault


class Alive(TypedDict):
    name: Literal["periscope"]
    status: Literal["alive"]


class HealthReply(TypedDict):
    status: str
    models: dict[str, str]
    problems: list[str]
    num_running: int


class UnfitHealth(HealthReply):
    """The health of a server that cannot answer, with the error in the dialect of the request."""

    error: OpenAIErrorFacts


class LoadProgress(TypedDict):
    done_bytes: int | None
    total_bytes: int | None
    progress: float | None
    eta_s: float | None


class PromptCacheRow(TypedDict):
    memory_bytes: int
    disk_bytes: int
    written_bytes: int


class Drafts(TypedDict):
    """What became of tokens that were drafted since the model was loaded."""

    accepted: int
    rejected: int
    acceptance: float


class ModelRow(TypedDict):
    id: str
    kind: str
    state: str
    aliases: list[str]
    default: bool
    pinned: bool
    active_requests: int
    queued: int
    max_active: int
    kv_bits: int | None
    held_bytes: int
    weights_bytes: int | None
    prompt_cache: PromptCacheRow
    drafts: Drafts | None
    load: LoadProgress | None
    idle_s: float | None
    ttl_s: float | None
    unload_in_s: float | None
    error: str | None
    retry_in_s: float | None


class ServerRow(TypedDict):
    state: str
    version: str
    instance_id: str
    supervisor: str | None
    pid: int
    uptime_s: float
    problems: list[str]
    num_finished: int
    tokens_per_s: float


class HostRow(TypedDict):
    pressure: str | None
    thermal: str | None
    footprint_bytes: int | None
    kept_awake: bool


class RequestRow(TypedDict):
    id: str
    model: str
    status: str
    position: int | None
    progress: float | None
    eta_s: float | None
    age_s: float
    thinking: bool
    num_images: int
    done: int | None
    total: int | None
    key: str | None


class RequestList(TypedDict):
    requests: list[RequestRow]


class StatusReply(TypedDict):
    """`schema_version` grows when a field is removed or changes its meaning."""

    schema_version: int
    server: ServerRow
    memory: MemoryStatus
    host: HostRow
    models: list[ModelRow]
    requests: list[RequestRow]
    downloads: list[DownloadStatus]
    mcp_servers: list[ToolServerStatus]


class DownloadList(TypedDict):
    downloads: list[DownloadStatus]


class CaptionsReply(TypedDict):
    captions: list[CaptionedImage]
    files: list[DescribedFile]


class CaptionFile(TypedDict):
    path: str
    state: str | None
    num_unwritten: int


class CaptionStats(TypedDict):
    num_entries: int
    num_bytes: int
    max_bytes: int
    num_hits: int
    num_misses: int
    file: CaptionFile | None


class CaptionEntry(TypedDict):
    key: str
    text: str
    num_tokens: int
    elapsed_ms: int
    created_at: float
    used_at: float


class CaptionList(TypedDict):
    stats: CaptionStats
    captions: list[CaptionEntry]


class FlushedCaptions(TypedDict):
    flushed: int
    is_written: bool


class LogLines(TypedDict):
    lines: list[LogLine]


class CancelledRequest(TypedDict):
    id: str
    cancelled: bool


class AnsweringRequest(TypedDict):
    id: str
    answering: bool


class StoppingServer(TypedDict):
    state: Literal["stopping"]
