"""MLXThread: a thread for MLX work outside an engine. Arrays stay on it; callers get plain data."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self, TypeVar

import mlx.core as mx

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")


class MLXThread:
    """Owns one thread, which ends with the async context.

    MLX's streams belong to the thread that made them. The thread clears them before it ends, because otherwise the
    process aborts at exit (MLX 0.32).
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="periscope-bench")

    async def run(self, work: Callable[[], T]) -> T:
        """Call `work` on the thread and return its result. Calls run one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(self.run(mx.clear_streams))
        self._executor.shutdown()
