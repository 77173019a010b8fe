"""Python's cyclic garbage collector, kept out of work that makes very many objects at once."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_pausing = threading.Lock()


@contextmanager
def paused_collector() -> Iterator[None]:
    """Inside, the collector does not start by itself. Used from any thread.

    A hundred thousand objects made by one parse look to it like a reason to search through all objects there are, over
    and over, which takes 100 ms each time in a process that has the model libraries loaded, and nobody else runs
    meanwhile. Only the first of several that overlap pauses it, so that it comes by between them.
    """
    is_first = _pausing.acquire(blocking=False)
    is_ours = is_first and gc.isenabled()
    if is_ours:
        gc.disable()
    try:
        yield
    finally:
        if is_ours:
            gc.enable()
        if is_first:
            _pausing.release()
