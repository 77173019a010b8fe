"""LoopThread: an event loop on a thread of its own, for callers without one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Owns an event loop and the daemon thread that runs it until `close`. Its methods are for all other threads."""

    def __init__(self, name: str) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._until_closed(started)), name=name, daemon=True)
        self._thread.start()
        self._loop = started.result()

    async def _until_closed(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        started.set_result(asyncio.get_running_loop())
        await self._closing.wait()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and wait for its result. Ctrl-C cancels it, and is raised when it has cleaned up.

        Raises:
            Exception: whatever the work raised.
            RuntimeError: the loop was closed.
        """
        outcome: Future[T] = Future()
        tasks: list[asyncio.Task[T]] = []

        def begin() -> None:
            tasks.append(self._loop.create_task(work))
            tasks[0].add_done_callback(lambda task: _settle(outcome, task))

        def cancel() -> None:
            if tasks:
                tasks[0].cancel()
            else:  # it was not even begun
                work.close()
                outcome.set_exception(asyncio.CancelledError())

        try:
            self._loop.call_soon_threadsafe(begin)  # may raise KeyboardInterrupt, too, after the loop has been woken
            return outcome.result()
        except BaseException as error:
            if outcome.done():  # it is the work's
                raise
            if isinstance(error, RuntimeError):
                work.close()
                raise
            self._loop.call_soon_threadsafe(cancel)
            wait([outcome])
            raise

    def close(self) -> None:
        """Idempotent: cancel what still runs on the loop, and end it and its thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join()


def _settle(outcome: Future[T], task: asyncio.Task[T]) -> None:
    if task.cancelled():
        outcome.set_exception(asyncio.CancelledError())
    elif (error := task.exception()) is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())
