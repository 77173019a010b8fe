"""What the device got back when a model was freed, as its worker counted it."""

from __future__ import annotations

from typing import Any

from periscope.engine.worker.host import HostedEngine, WorkerHost


def freed_bytes(owner: HostedEngine | WorkerHost[Any]) -> int | None:
    """None before the worker has ended, and when something still holds on to the model."""
    host = owner._host if isinstance(owner, HostedEngine) else owner
    return host._worker.freed_bytes
