"""A server in a process of its own: its log, its processor time, its end. Event loop; knows no server in particular."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_STOP_TIMEOUT_S = 30.0
#: What a process that has ended wrote last is there at once, unless a process of its own holds the pipe.
_LAST_WORDS_TIMEOUT_S = 5.0
#: Of its log, told when something goes wrong, and what is kept to find them in.
_TOLD_LINES = 12
_KEPT_CHARS = 8000


class Child:
    """Owns the log of a process, stdout and stderr together, of which the end is kept."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        self._process = process
        self._log = process.stdout
        self._seen = ""
        self._draining: asyncio.Task[None] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.returncode is not None

    async def find(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Read up to the line with this; None = the log ended without."""
        async for line in self._log:
            self._see(line)
            if found := pattern.search(line.decode(errors="replace")):
                return found
        return None

    def drain(self) -> None:
        """From now on read whatever it says, so that it never blocks on a full pipe."""
        self._draining = asyncio.create_task(self._read_to_end())

    async def last_lines(self) -> str:
        """The end of the log; of a process that has ended, to its last word."""
        if self.has_ended and self._draining is not None:
            draining, self._draining = self._draining, None
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_TIMEOUT_S):
                    await draining
        return "\n".join(self._seen.splitlines()[-_TOLD_LINES:])

    def cpu_s(self) -> float | None:
        """Processor time of the process and those it started; None once it is gone.

        None also without psutil, which only development environments have.
        """
        try:
            import psutil
        except ImportError:
            return None
        try:
            process = psutil.Process(self._process.pid)
            return sum(_used_s(one) for one in (process, *process.children(recursive=True)))
        except psutil.NoSuchProcess:
            return None

    async def _read_to_end(self) -> None:
        while told := await self._log.read(65536):
            self._see(told)

    def _see(self, told: bytes) -> None:
        self._seen = (self._seen + told.decode(errors="replace"))[-_KEPT_CHARS:]


def _used_s(process: psutil.Process) -> float:
    """Its own, and that of children which have ended."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


@asynccontextmanager
async def child(argv: Sequence[str], **environment: str) -> AsyncIterator[Child]:
    """Inside, the process runs, in our environment less what configures Periscope; at the end it is stopped, kindly."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PERISCOPE_")}
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=ours | environment,
    )
    running = Child(process)
    try:
        yield running
        await _stop(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await running.last_lines()


async def _stop(process: asyncio.subprocess.Process) -> None:
    """The caller kills what does not listen."""
    with suppress(ProcessLookupError, TimeoutError):
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await process.wait()
