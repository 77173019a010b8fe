"""Pauses Python's cyclic garbage collector during work that makes very many objects at once."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_pausing = threading.Lock()


@contextmanager
def paused_collector() -> Iterator[None]:
    """Inside this context the collector does not start by itself. Usable from any thread.

    A parse that makes a hundred thousand objects would start it over and over. Each time it looks through all objects
    of the process, which takes 100 ms once the model libraries are loaded and holds up every other thread. If several
    contexts overlap, only the first pauses it, so that it can run between them.
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
