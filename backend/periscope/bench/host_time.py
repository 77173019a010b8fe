"""Host time: the CPU time of a process's Python threads, without the threads that only compute for MLX.

On Linux it is read per thread: of this process by the threads' clocks, of others from /proc. Elsewhere it is that of
the whole process, and only if a GPU computes.
"""

from __future__ import annotations

import inspect
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import mlx.core as mx

from periscope.bench import thread_marks
from periscope.bench.samples import MAIN_THREAD, HostStamp

#: Reads the CPU seconds of every Python thread of a process so far, by thread id; the main thread is `MAIN_THREAD`.
HostClock: TypeAlias = Callable[[], Mapping[int, float]]

#: Stamps are at least this far apart: reading the clocks takes some microseconds of the process that measures.
_STAMP_GAP_S = 0.02
_TASKS = Path("/proc/self/task")


class HostLog:
    """Owns the stamps of one batch. Times are seconds since the beginning of the batch. One thread at a time."""

    def __init__(self, clock: HostClock | None, *, gap_s: float = _STAMP_GAP_S) -> None:
        self._clock = clock
        self._gap_s = gap_s
        self._stamps: list[HostStamp] = []

    @property
    def stamps(self) -> tuple[HostStamp, ...]:
        """The stamps so far."""
        return tuple(self._stamps)

    def note(self, now_s: float) -> None:
        """Read the clock, unless it has just been read."""
        if self._clock is not None and (not self._stamps or now_s - self._stamps[-1].time_s >= self._gap_s):
            self._stamps.append(HostStamp(now_s, self._clock()))


def own_clock() -> HostClock | None:
    """A clock of this process, for threads that run when this is called; None where it cannot be known."""
    if not hasattr(time, "pthread_getcpuclockid"):  # macOS
        return (lambda: {MAIN_THREAD: time.process_time()}) if _gpu_computes() else None
    main = threading.main_thread()
    clocks = {
        MAIN_THREAD if thread is main else thread.native_id: time.pthread_getcpuclockid(thread.ident)
        for thread in threading.enumerate()
        if thread.native_id is not None and thread.ident is not None
    }

    def read() -> dict[int, float]:
        spent_s = {}
        for thread, clock in clocks.items():
            with suppress(OSError):  # the thread has ended
                spent_s[thread] = time.clock_gettime(clock)
        return spent_s

    return read


def process_clock(pid: int) -> HostClock | None:
    """The same of another process, which was started with `marking`; None also if none of its threads is marked."""
    if not _TASKS.is_dir():
        return _whole_process(pid) if _gpu_computes() else None
    files = {MAIN_THREAD: f"/proc/{pid}/schedstat"}
    with suppress(OSError):  # the process has ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # the thread has ended
                if (task / "comm").read_text().startswith(f"{task.name}:"):
                    files[int(task.name)] = str(task / "schedstat")
    return (lambda: _spent_s(files)) if len(files) > 1 else None


def marking(folder: Path) -> dict[str, str]:
    """Environment variables by which a Python program marks its threads; `folder` has to live as long as it does."""
    if not _TASKS.is_dir():
        return {}
    (folder / "sitecustomize.py").write_text(f"{inspect.getsource(thread_marks)}\n\nmark_threads()\n")
    known = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(folder), *([known] if known else [])])}


def _spent_s(files: Mapping[int, str]) -> dict[int, float]:
    """CPU seconds by thread: the first number of its schedstat, in nanoseconds.

    Source: Documentation/scheduler/sched-stats.rst of Linux.
    """
    spent_s = {}
    for thread, file in files.items():
        with suppress(OSError), open(file, "rb", buffering=0) as stat:  # noqa: PTH123 - the fastest of all ways
            spent_s[thread] = int(stat.read().split()[0]) / 1e9
    return spent_s


def _whole_process(pid: int) -> HostClock | None:
    try:
        import psutil

        process = psutil.Process(pid)
    except (ImportError, psutil.Error):
        return None

    def read() -> dict[int, float]:
        with suppress(psutil.Error):  # the process has ended
            times = process.cpu_times()
            return {MAIN_THREAD: times.user + times.system}
        return {}

    return read


def _gpu_computes() -> bool:
    return bool(mx.default_device().type == mx.DeviceType.gpu)
