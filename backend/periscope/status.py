"""The status of the server: a snapshot, and changes after it. Frozen data.

The pool makes each model's status; serving makes everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from periscope.core import ConfigChanges, ModelKind, ModelState


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The status of one configured model, made by the pool. None = unknown, or does not apply now.

    Attributes:
        is_default: it answers requests that name no model; set by serving.
        num_running, num_waiting, max_running: requests that hold it, that wait for it, and that may hold it at once.
        kv_bits: in which its KV caches are stored; None = as the model computes them.
        held_bytes: what the memory ledger counts for it: what is reserved while it loads, then its weights and room to
            work.
        weights_bytes: of the loaded weights.
        prompt_cache_bytes: of the KV caches of earlier prompts that the loaded model keeps.
        prompt_disk_bytes: of those that the loaded model has on disk.
        prompt_disk_written_bytes: of those that it has written to disk since it was loaded.
        num_preemptions: rows that gave up their memory and were computed again, since its batch was made.
        num_accepted_tokens, num_rejected_tokens: tokens that were drafted since, and were right, and were not.
        load_done_bytes, load_total_bytes: of the load under way.
        load_eta_s: estimate of the time that the load will still take.
        idle_s: time since its last use, while no request uses it or waits for it.
        ttl_s: it is unloaded after so long without work.
        unload_in_s: until it is unloaded for idleness, if nothing happens.
        error: why it failed, for the user.
        retry_in_s: time until a request can have a failed model loaded again.
    """

    name: str
    kind: ModelKind
    state: ModelState
    aliases: tuple[str, ...] = ()
    is_default: bool = False
    is_pinned: bool = False
    num_running: int = 0
    num_waiting: int = 0
    max_running: int = 1
    kv_bits: int | None = None
    held_bytes: int = 0
    weights_bytes: int | None = None
    prompt_cache_bytes: int = 0
    prompt_disk_bytes: int = 0
    prompt_disk_written_bytes: int = 0
    num_preemptions: int = 0
    num_accepted_tokens: int = 0
    num_rejected_tokens: int = 0
    load_done_bytes: int | None = None
    load_total_bytes: int | None = None
    load_eta_s: float | None = None
    idle_s: float | None = None
    ttl_s: float | None = None
    unload_in_s: float | None = None
    error: str | None = None
    retry_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class RequestStatus:
    """The status of one request.

    Attributes:
        status: a `WaitStatus`, `starting` before it waits for anything, or `generating`.
        position: among those that wait for the same model, from 1.
        age_s: time since it arrived.
        num_images: in its messages.
        num_done, num_total: as in `Waiting`, while its images are being captioned.
        key: name of the API key that it came with; None where no key is asked for.
        is_thinking: what it wrote last is reasoning.
    """

    id: str
    model: str
    status: str
    age_s: float
    position: int | None = None
    progress: float | None = None
    eta_s: float | None = None
    num_images: int = 0
    num_done: int | None = None
    num_total: int | None = None
    key: str | None = None
    is_thinking: bool = False


@dataclass(frozen=True, slots=True)
class MemoryStatus:
    """Bytes. `held_bytes` is the ledger's sum; `active_bytes` and `cache_bytes` are MLX's figures for this process."""

    budget_bytes: int
    held_bytes: int
    active_bytes: int
    cache_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class DownloadStatus:
    """One download of a model by this server. None = not known, or not the case now.

    Attributes:
        model: its hub id.
        state: `queued`, `downloading`, `paused`, `completed`, `failed` or `cancelled`.
        completed_bytes: on this disk, with what was there before.
        warning: why it may be no model for MLX.
        error: why it failed, for a person.
        created_at: seconds since 1970.
    """

    id: str
    model: str
    revision: str | None
    state: str
    total_bytes: int | None
    completed_bytes: int
    bytes_per_s: float | None
    eta_s: float | None
    warning: str | None
    error: str | None
    created_at: float


@dataclass(frozen=True, slots=True)
class ToolServerStatus:
    """An MCP server whose tools requests may have called.

    Attributes:
        state: `idle` before its first use, `connecting`, `ready`, `down` between attempts to connect, or `closed`.
        problem: why it cannot be reached or used, for a person; None if nothing is known against it.
        num_tools: those that it has, or had last, whether they are allowed or not.
    """

    name: str
    state: str
    problem: str | None
    num_tools: int


@dataclass(frozen=True, slots=True)
class HostStatus:
    """The machine. None = the system does not say.

    Attributes:
        pressure: of memory, in the whole machine: `normal`, `warning` or `critical`.
        thermal: `nominal`, `moderate`, `heavy`, `trapping` or `sleeping`.
        footprint_bytes: memory that the system counts against this process.
        is_kept_awake: it is kept from idle sleep, because there is work.
    """

    pressure: str | None = None
    thermal: str | None = None
    footprint_bytes: int | None = None
    is_kept_awake: bool = False


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """Which process this is. `instance_id` is new with each start; `supervisor` is `launchd`, `brew` or None."""

    version: str = ""
    instance_id: str = ""
    supervisor: str | None = None


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The status of the whole server.

    Attributes:
        state: as `Health.status`.
        problems: sentences for the user; empty when all is well.
        num_finished: requests that have ended since the start, for any reason.
        tokens_per_s: of all answers together, over the last seconds; each piece of an answer counts as one token.
    """

    state: str
    identity: ServerIdentity
    pid: int
    uptime_s: float
    problems: tuple[str, ...]
    memory: MemoryStatus
    host: HostStatus
    models: tuple[ModelStatus, ...]
    requests: tuple[RequestStatus, ...]
    downloads: tuple[DownloadStatus, ...]
    num_finished: int
    tokens_per_s: float = 0.0
    tool_servers: tuple[ToolServerStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelStateDelta:
    """A model changed its state; `model` is its status now."""

    old: str
    new: str
    reason: str | None
    model: ModelStatus


@dataclass(frozen=True, slots=True)
class ConfigDelta:
    """models.yaml was read again and holds from now on; a new snapshot follows."""

    changes: ConfigChanges


@dataclass(frozen=True, slots=True)
class ConfigRefusal:
    """models.yaml was read again and cannot be used; `problems` are lines for a person."""

    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelDelta:
    """Another part of a model's status changed: its queue, its leases, its pin, its load."""

    model: ModelStatus


@dataclass(frozen=True, slots=True)
class DownloadDelta:
    """A download is in another state, or has got on."""

    download: DownloadStatus


@dataclass(frozen=True, slots=True)
class RequestDelta:
    """A request has arrived or made progress."""

    request: RequestStatus


@dataclass(frozen=True, slots=True)
class RequestGone:
    """A request has ended. `outcome`: `finished`, `cancelled` (by its client or by command) or `failed`."""

    id: str
    outcome: str


@dataclass(frozen=True, slots=True)
class ServerDelta:
    """Something of the server itself changed: its problems, or what of its memory it may use. `status` is all of it."""

    status: ServerStatus


#: The snapshot comes first, and again whenever the list of models is another one.
StatusEvent: TypeAlias = (
    ServerStatus
    | ServerDelta
    | ConfigDelta
    | ConfigRefusal
    | ModelStateDelta
    | ModelDelta
    | DownloadDelta
    | RequestDelta
    | RequestGone
)
