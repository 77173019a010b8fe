"""How many bytes the device got back when a model was freed, as its worker counted them."""

from __future__ import annotations

from periscope.engine.worker.host import HostedEngine


def freed_bytes(host: HostedEngine) -> int | None:
    """The bytes; None before the worker has ended, or if something still refers to the model."""
    return host._thread.freed_bytes
