"""Sets the C library's allocator so that freed memory can be returned to the system."""

from __future__ import annotations

import ctypes
import os
import sys

#: The option's number in glibc's malloc.h.
_M_ARENA_MAX = -8


def use_one_arena() -> None:
    """Let all threads allocate from one heap. Call it before threads start. Does nothing without glibc.

    glibc gives each thread an arena of its own, and freed memory goes back from an arena only as far as it lies at
    the arena's end: after some large requests, each parsed and decoded in other threads, a server stood 180 MB above
    what it needed, for good. What arenas are for, threads that allocate at once, hardly happens here: Python's threads
    hold its lock, and MLX keeps its buffers for itself. Whoever sets `MALLOC_ARENA_MAX` decides alone.
    """
    if sys.platform != "linux" or "MALLOC_ARENA_MAX" in os.environ:
        return
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    set_option.argtypes = [ctypes.c_int, ctypes.c_int]
    set_option(_M_ARENA_MAX, 1)
