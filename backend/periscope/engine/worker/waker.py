"""Waker: wakes an event loop from a worker thread without giving up the interpreter lock.

`call_soon_threadsafe` writes to a socket, and Python gives up the lock for that. The event loop takes it and runs all
of the readers, while the worker, which wants to launch the next step, waits to get it back. So the byte is written
here with the lock held: the event loop's thread wakes up, and gets the lock when the worker waits for the device.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import asyncio

Call: TypeAlias = Callable[[], None]

#: The C library through `PyDLL`, which keeps the lock during a call. The pipe is never waited for.
_write = ctypes.PyDLL(None).write
_write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
_write.restype = ctypes.c_ssize_t

#: What is left of the bytes, each of which stands for a step, wakes the loop once more.
_READ_BYTES = 4096


class Waker:
    """Owns a pipe to one event loop, as long as the loop lives."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._calls: deque[Call] = deque()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        loop.add_reader(self._reader, self._run)
        weakref.finalize(loop, _close, self._reader, self._writer)

    def wake(self, calls: Iterable[Call]) -> None:
        """Have the loop make these calls soon. Any thread; the loop must not have been closed."""
        self._calls.extend(calls)
        _write(self._writer, b"\0", 1)  # a pipe that is full is one whose loop has yet to wake up

    def _run(self) -> None:
        os.read(self._reader, _READ_BYTES)
        while self._calls:
            self._calls.popleft()()


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


_wakers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Waker] = weakref.WeakKeyDictionary()


def waker_of(loop: asyncio.AbstractEventLoop) -> Waker:
    """The waker of a loop, made when it is first asked for. Called on that loop."""
    waker = _wakers.get(loop)
    if waker is None:
        waker = _wakers[loop] = Waker(loop)
    return waker
