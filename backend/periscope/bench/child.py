"""Child: a server process with its log, its CPU time and its end. Event loop; knows no server in particular."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from periscope.bench.host_time import marking, process_clock

if TYPE_CHECKING:
    import psutil

    from periscope.bench.host_time import HostClock

_STOP_TIMEOUT_S = 30.0
#: The rest of an ended process's log is there at once, unless one of its children keeps the pipe open.
_LAST_WORDS_TIMEOUT_S = 5.0
#: Lines of the log in an error message, and how many characters of the log are kept for them.
_TOLD_LINES = 12
_KEPT_CHARS = 8000


class Child:
    """Owns the log of a process, stdout and stderr together, and keeps its end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        self._process = process
        self._log = process.stdout
        self._seen = ""
        self._draining: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The id of the child process."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.returncode is not None

    async def find(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Read the log up to the first line that matches; None = the log ended without one."""
        async for line in self.lines():
            if found := pattern.search(line.decode(errors="replace")):
                return found
        return None

    async def lines(self) -> AsyncIterator[bytes]:
        """The lines of the log as they come, to its end."""
        async for line in self._log:
            self._see(line)
            yield line

    def drain(self) -> None:
        """Read the log in the background from now on, so that the process never blocks on a full pipe."""
        self._draining = asyncio.create_task(self._read_to_end())

    async def last_lines(self) -> str:
        """The last lines of the log; complete if the process has ended."""
        if self.has_ended and self._draining is not None:
            draining, self._draining = self._draining, None
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_TIMEOUT_S):
                    await draining
        return "\n".join(self._seen.splitlines()[-_TOLD_LINES:])

    def cpu_s(self) -> float | None:
        """CPU seconds of the process and its children; None once it has ended.

        Also None without psutil, which only development environments have.
        """
        return self._summed(_used_s)

    def host_clock(self) -> HostClock | None:
        """A clock of the process's own Python threads that run now; None where it cannot be known."""
        return process_clock(self.pid)

    def memory_bytes(self) -> int | None:
        """Resident memory of the process and its children; None as for `cpu_s`."""
        used = self._summed(lambda process: process.memory_info().rss)
        return None if used is None else int(used)

    def _summed(self, read: Callable[[psutil.Process], float]) -> float | None:
        try:
            import psutil
        except ImportError:
            return None
        try:
            process = psutil.Process(self.pid)
            return sum(read(one) for one in (process, *process.children(recursive=True)))
        except psutil.NoSuchProcess:
            return None

    async def _read_to_end(self) -> None:
        while told := await self._log.read(65536):
            self._see(told)

    def _see(self, told: bytes) -> None:
        self._seen = (self._seen + told.decode(errors="replace"))[-_KEPT_CHARS:]


def _used_s(process: psutil.Process) -> float:
    """CPU seconds of a process and of its children that have ended."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


@asynccontextmanager
async def child(argv: Sequence[str], **environment: str) -> AsyncIterator[Child]:
    """Run a process inside the context, without our PERISCOPE_ variables. It is terminated, then killed, at exit.

    A Python program has its threads marked, for `Child.host_clock`.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PERISCOPE_")}
    with tempfile.TemporaryDirectory(prefix="periscope-bench-") as marks:
        async with _child(argv, ours | marking(Path(marks)) | environment) as running:
            yield running


@asynccontextmanager
async def _child(argv: Sequence[str], environment: dict[str, str]) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
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
    """Send SIGTERM and wait for `_STOP_TIMEOUT_S`. The caller kills a process that is still running then."""
    with suppress(ProcessLookupError, TimeoutError):
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await process.wait()
