"""What the server tells of itself: one snapshot, and what changed since. Frozen data.

The pool makes each model's status; serving makes everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from periscope.core import ModelKind, ModelState


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One configured model at one moment; made by the pool. None = not known, or not the case now.

    Attributes:
        is_default: requests that name no model get it; filled in by serving.
        num_running, num_waiting, max_running: requests that hold it, wait for it, and may hold it at once.
        held_bytes: what the memory ledger counts for it: what is reserved while it loads, then its weights and room to
            work.
        weights_bytes: of the loaded weights.
        load_done_bytes, load_total_bytes: of the load under way.
        load_eta_s: estimate of the time that the load will still take.
        idle_s: since it was last used, while no request uses it or waits for it.
        ttl_s: it is unloaded after so long without work.
        unload_in_s: until it is unloaded for idleness, if nothing happens.
        error: why it failed, for a person.
        retry_in_s: until a failed model is loaded again if a request asks for it.
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
    held_bytes: int = 0
    weights_bytes: int | None = None
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
    """One request now.

    Attributes:
        status: a `WaitStatus`, `starting` before it waits for anything, or `generating`.
        position: among those that wait for the same model, from 1.
        age_s: since it came.
        num_images: in its messages.
        num_done, num_total: as in `Waiting`, while its images are being captioned.
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


@dataclass(frozen=True, slots=True)
class MemoryStatus:
    """Bytes. `held_bytes` is the ledger's sum; `active_bytes` and `cache_bytes` are what MLX says of this process."""

    budget_bytes: int
    held_bytes: int
    active_bytes: int
    cache_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """Which process this is. `instance_id` is new with each start; `supervisor` is `launchd`, `brew` or None."""

    version: str = ""
    instance_id: str = ""
    supervisor: str | None = None


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """All at one moment.

    Attributes:
        state: as `Health.status`.
        problems: sentences for a person; empty when all is well.
        num_finished: requests that have ended since the start, however they did.
    """

    state: str
    identity: ServerIdentity
    pid: int
    uptime_s: float
    problems: tuple[str, ...]
    memory: MemoryStatus
    models: tuple[ModelStatus, ...]
    requests: tuple[RequestStatus, ...]
    num_finished: int


@dataclass(frozen=True, slots=True)
class ModelStateDelta:
    """A model went from one state to another; `model` is how it stands now."""

    old: str
    new: str
    reason: str | None
    model: ModelStatus


@dataclass(frozen=True, slots=True)
class ModelDelta:
    """Something else of a model changed: its queue, its leases, its pin, what it has loaded."""

    model: ModelStatus


@dataclass(frozen=True, slots=True)
class RequestDelta:
    """A request has come or got on."""

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


#: The snapshot comes first, once.
StatusEvent: TypeAlias = ServerStatus | ServerDelta | ModelStateDelta | ModelDelta | RequestDelta | RequestGone
