"""Returns freed memory to the system where the C library would keep it."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """The C library's `malloc_trim`, which only glibc has; other allocators return large blocks by themselves."""
    if sys.platform != "linux":
        return None
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # musl
        return None
    trim.argtypes = [ctypes.c_size_t]
    return lambda keep_bytes: int(trim(keep_bytes))


def give_back_freed_memory() -> None:
    """Return freed memory. Idempotent; takes milliseconds, without the GIL. Does nothing where it is not needed."""
    trim = _trim()
    if trim is not None:
        trim(0)
