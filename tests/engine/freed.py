"""How many bytes a model takes of the device, and gives back when it is freed."""

from __future__ import annotations

import gc
import threading
import time
from typing import Final

import mlx.core as mx

from periscope.engine.worker.host import HostedEngine

SETTLE_S: Final = 10.0


def freed_bytes(host: HostedEngine) -> int | None:
    """The bytes; None before the worker has ended, or if something still refers to the model."""
    return host._thread.freed_bytes


def settled_bytes(before: int, bound: int) -> int:
    """MLX's active memory beyond `before` once it is below `bound`, or what it is after `SETTLE_S`.

    Threads and streams of a busy machine may hold temporaries of a load for a moment longer.
    """
    deadline = time.monotonic() + SETTLE_S
    while (taken := mx.get_active_memory() - before) >= bound and time.monotonic() < deadline:
        gc.collect()
        threading.Event().wait(0.01)
    return taken
