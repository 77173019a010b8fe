"""What the device got back when a model was freed, as its worker counted it."""

from __future__ import annotations

from periscope.engine.worker.host import HostedEngine


def freed_bytes(host: HostedEngine) -> int | None:
    """None before the worker has ended, and when something still holds on to the model."""
    return host._thread.freed_bytes
