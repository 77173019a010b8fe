"""Runs blocking calls in the threads of a shared executor. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import TypeVar

from periscope.errors import ServerStopping

T = TypeVar("T")

_STOPPING = "The server is stopping."


class Threads:
    """Runs the blocking calls of a request in parallel in a shared executor, which its creator shuts down."""

    def __init__(self, executor: Executor | None) -> None:
        self._executor = executor

    async def all(self, calls: Iterable[Callable[[], T]]) -> list[T]:
        """Results of all calls, in order. Of several errors the first call's is raised, so that the answer is stable.

        Calls after one that has failed are not started, because their results would not be used.

        Raises:
            ServerStopping: the executor was shut down before or meanwhile.
        """
        loop = asyncio.get_running_loop()
        try:
            failed: list[int] = []
            running = [
                loop.run_in_executor(self._executor, _unless_behind, failed, number, call)
                for number, call in enumerate(calls)
            ]
        except RuntimeError as error:  # the executor's error after its shutdown
            raise ServerStopping(_STOPPING) from error
        done = await asyncio.gather(*running, return_exceptions=True)
        results: list[T] = []
        for result in done:
            if isinstance(result, asyncio.CancelledError):  # not by us: then `gather` itself would have raised it
                raise ServerStopping(_STOPPING)
            if isinstance(result, BaseException):
                raise result
            results.append(result)
        return results


class _BehindFailureError(Exception):
    """A call was not started, because an earlier one failed, whose error is raised."""


def _unless_behind(failed: list[int], number: int, call: Callable[[], T]) -> T:
    """Runs the call and notes its number if it fails.

    Args:
        failed: numbers of the calls that failed so far; several threads add to it.

    Raises:
        _BehindFailureError: an earlier call has failed, so this one was not started.
        Exception: the call's own error.
    """
    if any(each < number for each in failed):
        raise _BehindFailureError
    try:
        return call()
    except BaseException:
        failed.append(number)
        raise
